//! Does the checkpoint hold every tensor that its configuration demands?

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

use cachalot_numerics::{Dtype, MatrixFormat, ScaleDtype, integer};

use crate::{
    catalogue::{Catalogue, Placement},
    config::Architecture,
    inventory::{self, MatrixClass, Place, Slot, SlotKind},
};

/// Groups of similar problems that a report spells out.
const GROUPS_SHOWN_MAX: usize = 20;

/// Everything that is wrong with the tensors of a checkpoint, similar problems together.
#[derive(Debug)]
pub struct TensorReport {
    /// The checkpoint's folder or name.
    pub place: String,
    /// Tensors with a problem.
    pub problem_count: usize,
    /// The problems, those of the same tensor in different layers or experts as one.
    pub groups: Vec<ProblemGroup>,
}

/// The same problem of the same tensor in different layers or experts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProblemGroup {
    /// Official name with `*` for layer and expert.
    pub pattern: String,
    /// What is wrong.
    pub problem: Problem,
    /// Full name of the first such tensor.
    pub first: String,
    /// How many there are.
    pub count: usize,
}

/// What can be wrong with a tensor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Problem {
    /// It is not there.
    Missing,
    /// It has another element type.
    Dtype {
        /// Stored type.
        found: String,
        /// Types that would do.
        expected: String,
    },
    /// It has another shape.
    Shape {
        /// Stored shape.
        found: Vec<usize>,
        /// The shape that the configuration demands.
        expected: Vec<usize>,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Missing => formatter.write_str("missing"),
            Problem::Dtype { found, expected } => {
                write!(formatter, "type {found}, expected {expected}")
            }
            Problem::Shape { found, expected } => {
                write!(formatter, "shape {found:?}, expected {expected:?}")
            }
        }
    }
}

impl fmt::Display for TensorReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}: {} tensors do not fit config.json:",
            self.place, self.problem_count
        )?;
        for group in self.groups.iter().take(GROUPS_SHOWN_MAX) {
            match group.count {
                1 => write!(formatter, "\n  {}: {}", group.first, group.problem)?,
                count => write!(
                    formatter,
                    "\n  {} ({count} tensors, first {}): {}",
                    group.pattern, group.first, group.problem
                )?,
            }
        }
        let hidden: usize = self.groups.iter().skip(GROUPS_SHOWN_MAX).map(|group| group.count).sum();
        if hidden > 0 {
            write!(formatter, "\n  and {hidden} more")?;
        }
        write!(
            formatter,
            "\ncheck that config.json and weights are of the same release and that the download is complete"
        )
    }
}

impl std::error::Error for TensorReport {}

/// What a checkpoint without problems also tells.
#[derive(Debug)]
pub(crate) struct Findings {
    /// Whether MTP layer or DSpark stages are stored.
    pub(crate) stages_present: bool,
    /// Official names of tensors that nobody asked for, sorted.
    pub(crate) extra: Vec<String>,
}

/// Compares the stored tensors with the inventory.
///
/// MTP and DSpark tensors may be absent altogether; if one of them is there, all must be.
pub(crate) fn check(
    config: &dyn Architecture,
    catalogue: &Catalogue,
    place: impl FnOnce() -> String,
) -> Result<Findings, Box<TensorReport>> {
    let stages_present = config.nextn_stage_count() > 0
        && inventory::slots_at(config, Place::Stage(0)).iter().any(|slot| {
            let name = match &slot.kind {
                SlotKind::Matrix { .. } => format!("{}.weight", slot.name),
                SlotKind::Plain { .. } => slot.name.clone(),
            };
            catalogue.tensors.contains_key(&name)
        });
    let mut auditor = Auditor::new(config, catalogue, stages_present, |_: &str| ());
    auditor.run();
    if auditor.problems.is_empty() {
        let extra = match auditor.found_count == catalogue.tensors.len() {
            true => Vec::new(),
            false => extra_tensors(config, catalogue, stages_present),
        };
        return Ok(Findings { stages_present, extra });
    }
    let groups: Vec<ProblemGroup> = auditor.problems.into_values().collect();
    Err(Box::new(TensorReport {
        place: place(),
        problem_count: groups.iter().map(|group| group.count).sum(),
        groups,
    }))
}

/// Names of tensors that the inventory does not ask for: a second, slower round.
fn extra_tensors(config: &dyn Architecture, catalogue: &Catalogue, stages_present: bool) -> Vec<String> {
    let mut wanted = HashSet::new();
    let note = |name: &str| {
        wanted.insert(name.to_owned());
    };
    Auditor::new(config, catalogue, stages_present, note).run();
    let names = catalogue.tensors.keys();
    let mut extra: Vec<String> = names.filter(|name| !wanted.contains(*name)).cloned().collect();
    extra.sort();
    extra
}

struct Auditor<'a, F> {
    config: &'a dyn Architecture,
    catalogue: &'a Catalogue,
    stages_present: bool,
    problems: BTreeMap<(String, Problem), ProblemGroup>,
    /// Tensors found that the inventory asks for.
    found_count: usize,
    /// Learns their names.
    on_found: F,
}

impl<'a, F: FnMut(&str)> Auditor<'a, F> {
    fn new(config: &'a dyn Architecture, catalogue: &'a Catalogue, stages_present: bool, on_found: F) -> Self {
        Auditor {
            config,
            catalogue,
            stages_present,
            problems: BTreeMap::new(),
            found_count: 0,
            on_found,
        }
    }

    fn run(&mut self) {
        for place in inventory::places(self.config) {
            if self.stages_present || !matches!(place, Place::Stage(_)) {
                for slot in inventory::slots_at(self.config, place) {
                    self.slot(slot);
                }
            }
        }
    }

    fn slot(&mut self, slot: Slot) {
        match slot.kind {
            SlotKind::Plain { shape, dtype } => {
                if let Some(placement) = self.find(&slot.name) {
                    let allowed = SlotKind::plain_dtypes(dtype);
                    self.compare(&slot.name, placement, allowed, &shape);
                }
            }
            SlotKind::Matrix { rows, columns, class } => {
                let may_be_low_bit = slot.part.is_dense() && self.config.low_bit().is_some();
                self.matrix(&slot.name, [rows, columns], class, may_be_low_bit);
            }
        }
    }

    fn matrix(&mut self, name: &str, [rows, columns]: [usize; 2], class: MatrixClass, may_be_low_bit: bool) {
        let weight_name = format!("{name}.weight");
        let Some(weight) = self.find(&weight_name) else {
            return;
        };
        let scale_name = format!("{name}.scale");
        let scale = self.catalogue.tensors.get(&scale_name);
        let format = format_of(self.config, name, weight, scale);
        let shape = match format {
            // Packed bytes must hold whole groups.
            Some(MatrixFormat::Fp4Group { group }) if !columns.is_multiple_of(group) => None,
            Some(MatrixFormat::Integer(_)) if !columns.is_multiple_of(integer::GROUP) => None,
            Some(format) => Some(format.weight_shape(rows, columns)),
            None => Some([rows, columns]),
        };
        match shape {
            Some(shape) => {
                let mut allowed = class.dtypes().to_vec();
                allowed.extend(may_be_low_bit.then_some(Dtype::U8));
                self.compare(&weight_name, weight, &allowed, &shape);
            }
            None => self.compare(&weight_name, weight, &[Dtype::F8E4m3, Dtype::Bf16], &[rows, columns]),
        }
        let Some((_, shape)) = format.and_then(|format| format.scale_shape(rows, columns)) else {
            return;
        };
        if let Some(scale) = self.find(&scale_name) {
            let either = [Dtype::F8E8m0, Dtype::F32];
            let allowed = match weight.dtype() {
                Some(Dtype::F8E4m3) => &either[..],
                Some(Dtype::U8) => &[Dtype::U8],
                _ => &either[..1],
            };
            self.compare(&scale_name, scale, allowed, &shape);
        }
    }

    /// The tensor, or a problem.
    fn find(&mut self, name: &str) -> Option<&'a Placement> {
        let found = self.catalogue.tensors.get(name);
        match found {
            Some(_) => {
                self.found_count += 1;
                (self.on_found)(name);
            }
            None => self.report(name, Problem::Missing),
        }
        found
    }

    fn compare(&mut self, name: &str, placement: &Placement, allowed: &[Dtype], shape: &[usize]) {
        if !placement.dtype().is_some_and(|dtype| allowed.contains(&dtype)) {
            let names: Vec<&str> = allowed.iter().map(|dtype| dtype.name()).collect();
            self.report(
                name,
                Problem::Dtype {
                    found: placement.dtype.to_string(),
                    expected: names.join(" or "),
                },
            );
        } else if placement.shape != shape {
            self.report(
                name,
                Problem::Shape {
                    found: placement.shape.clone(),
                    expected: shape.to_vec(),
                },
            );
        }
    }

    fn report(&mut self, name: &str, problem: Problem) {
        let pattern = pattern_of(name);
        let group = self.problems.entry((pattern.clone(), problem.clone()));
        group
            .or_insert_with(|| ProblemGroup {
                pattern,
                problem,
                first: name.to_owned(),
                count: 0,
            })
            .count += 1;
    }
}

/// The format of a stored matrix, judged by the types of weight and scale; how wide integers are, the configuration
/// says.
pub(crate) fn format_of(
    config: &dyn Architecture,
    name: &str,
    weight: &Placement,
    scale: Option<&Placement>,
) -> Option<MatrixFormat> {
    Some(match weight.dtype()? {
        Dtype::F32 => MatrixFormat::F32,
        Dtype::Bf16 => MatrixFormat::Bf16,
        Dtype::I8 => MatrixFormat::FP4,
        Dtype::U8 => MatrixFormat::Integer(config.low_bit()?),
        Dtype::F8E4m3 => {
            let [rows, columns] = config.fp8_block(name);
            let scale = match scale.and_then(Placement::dtype) {
                Some(Dtype::F32) => ScaleDtype::F32,
                _ => ScaleDtype::E8m0,
            };
            MatrixFormat::Fp8Block { rows, columns, scale }
        }
        _ => return None,
    })
}

/// The name with `*` for every number between dots.
fn pattern_of(name: &str) -> String {
    let parts: Vec<&str> = name
        .split('.')
        .map(|part| match part.bytes().all(|byte| byte.is_ascii_digit()) {
            true => "*",
            false => part,
        })
        .collect();
    parts.join(".")
}
