//! A call of an operator as host data, and how it gets onto a chip and back.

use std::{collections::BTreeMap, fmt, ops::Range, rc::Rc};

use bytes::Bytes;
use cachalot_numerics::Dtype;

use super::compare::Expect;
use crate::{Chip, Error, ExpertMatrices, Matrix, MatrixSource, Mode, Operation, Tensor, TensorSource};

/// Bytes before and after every tensor that no operator may touch. Keeps tensors aligned to 256 bytes.
const GUARD_BYTE_COUNT: usize = 256;
const GUARD_BYTE: u8 = 0xA5;
/// What outputs hold before: NaN as `f32`, so reading them shows.
pub(super) const UNWRITTEN_BYTE: u8 = 0xFF;

/// What an operator does with an argument.
#[derive(Clone)]
pub(super) enum Role {
    Input,
    /// An input that comes through [`Chip::load`].
    Weight,
    /// Written; what was there before does not count.
    Output(Expect),
    /// Read and written.
    InOut(Expect),
}

/// A tensor argument.
#[derive(Clone)]
pub(super) struct Argument {
    pub name: &'static str,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
    pub role: Role,
    /// Whether the outermost dimension counts the step's rows, each of which is computed for itself.
    pub by_row: bool,
    /// Whether another length of the innermost dimension would be as good.
    pub is_last_free: bool,
}

impl Argument {
    pub fn new(name: &'static str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> Self {
        let byte_count = shape.iter().product::<usize>() * dtype.byte_count();
        assert_eq!(bytes.len(), byte_count, "bytes of '{name}' {shape:?}");
        Argument {
            name,
            dtype,
            shape: shape.to_vec(),
            bytes,
            role: Role::Input,
            by_row: false,
            is_last_free: false,
        }
    }

    pub fn f32(name: &'static str, shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Argument::new(name, Dtype::F32, shape, bytes)
    }

    pub fn i32(name: &'static str, shape: &[usize], values: &[i32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Argument::new(name, Dtype::I32, shape, bytes)
    }

    pub fn output(name: &'static str, dtype: Dtype, shape: &[usize], expect: Expect) -> Self {
        let byte_count = shape.iter().product::<usize>() * dtype.byte_count();
        let argument = Argument::new(name, dtype, shape, vec![UNWRITTEN_BYTE; byte_count]);
        Argument {
            role: Role::Output(expect),
            ..argument
        }
    }

    pub fn by_row(mut self) -> Self {
        self.by_row = true;
        self
    }

    pub fn weight(mut self) -> Self {
        self.role = Role::Weight;
        self
    }

    pub fn in_place(mut self, expect: Expect) -> Self {
        self.role = Role::InOut(expect);
        self
    }

    pub fn last_free(mut self) -> Self {
        self.is_last_free = true;
        self
    }

    /// How a written argument is compared.
    pub fn expect(&self) -> Option<&Expect> {
        match &self.role {
            Role::Output(expect) | Role::InOut(expect) => Some(expect),
            Role::Input | Role::Weight => None,
        }
    }

    pub fn row_byte_count(&self) -> usize {
        self.bytes.len() / self.shape[0].max(1)
    }

    pub fn set_i32(&mut self, index: usize, value: i32) {
        self.bytes[4 * index..4 * index + 4].copy_from_slice(&value.to_le_bytes());
    }
}

/// Makes the operator of a case out of arguments that are on a chip.
pub(super) type Build = Rc<dyn for<'a> Fn(&'a Loaded) -> Operation<'a>>;

/// Checks the outputs of a run by themselves: discrete choices, and outside knowledge.
pub(super) type Verify = Rc<dyn Fn(Mode, &Outputs) -> Result<(), String>>;

/// Written arguments after a run.
pub(super) type Outputs = BTreeMap<&'static str, Vec<u8>>;

/// A part of a case that must give the same bits when it is computed alone.
pub(super) struct Piece {
    pub case: Case,
    /// Name of an output, its bytes in the whole case, its bytes in the piece.
    pub equal: Vec<(&'static str, Range<usize>, Range<usize>)>,
}

/// A value in a device tensor that an operator has to refuse.
#[derive(Clone, Copy, Debug)]
pub(super) struct BadIndex {
    pub tensor: &'static str,
    pub element: usize,
    pub value: i64,
}

/// A call of an operator as host data.
#[derive(Clone)]
pub(super) struct Case {
    /// Parameters that do not show in shapes.
    pub label: String,
    pub arguments: Vec<Argument>,
    pub matrices: Vec<(&'static str, MatrixSource)>,
    pub experts: Vec<[MatrixSource; 3]>,
    pub build: Build,
    pub verify: Option<Verify>,
    /// Cuts the case into pieces; without it arguments are cut by row.
    pub pieces: Option<Rc<dyn Fn() -> Vec<Piece>>>,
    pub bad_indices: Vec<BadIndex>,
}

impl Case {
    pub fn new(
        label: impl Into<String>,
        arguments: Vec<Argument>,
        build: impl for<'a> Fn(&'a Loaded) -> Operation<'a> + 'static,
    ) -> Self {
        Case {
            label: label.into(),
            arguments,
            matrices: Vec::new(),
            experts: Vec::new(),
            build: Rc::new(build),
            verify: None,
            pieces: None,
            bad_indices: Vec::new(),
        }
    }

    pub fn matrix(mut self, name: &'static str, source: MatrixSource) -> Self {
        self.matrices.push((name, source));
        self
    }

    pub fn verify(mut self, verify: impl Fn(Mode, &Outputs) -> Result<(), String> + 'static) -> Self {
        self.verify = Some(Rc::new(verify));
        self
    }

    pub fn refuses(mut self, tensor: &'static str, element: usize, value: i64) -> Self {
        self.bad_indices.push(BadIndex { tensor, element, value });
        self
    }

    pub fn argument(&self, name: &str) -> &Argument {
        let found = self.arguments.iter().find(|argument| argument.name == name);
        found.unwrap_or_else(|| panic!("the case has no argument '{name}'"))
    }

    /// Single rows of a case whose rows are independent: the first, a middle and the last one.
    pub fn pieces(&self) -> Vec<Piece> {
        if let Some(pieces) = &self.pieces {
            return pieces();
        }
        let Some(row_count) = self.arguments.iter().find(|a| a.by_row).map(|a| a.shape[0]) else {
            return Vec::new();
        };
        let mut rows = vec![0, row_count / 2, row_count.saturating_sub(1)];
        rows.dedup();
        rows.retain(|row| *row < row_count && row_count > 1);
        rows.into_iter().map(|row| self.row(row)).collect()
    }

    fn row(&self, row: usize) -> Piece {
        let mut case = self.clone();
        case.label = format!("{}, row {row} alone", self.label);
        let mut equal = Vec::new();
        for argument in case.arguments.iter_mut().filter(|argument| argument.by_row) {
            let row_byte_count = argument.row_byte_count();
            let whole = row * row_byte_count..(row + 1) * row_byte_count;
            argument.bytes = argument.bytes[whole.clone()].to_vec();
            argument.shape[0] = 1;
            if argument.expect().is_some() {
                equal.push((argument.name, whole, 0..row_byte_count));
            }
        }
        Piece { case, equal }
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.label)?;
        for argument in &self.arguments {
            write!(formatter, "; {} {} {:?}", argument.name, argument.dtype, argument.shape)?;
        }
        for (name, matrix) in &self.matrices {
            write!(
                formatter,
                "; {name} [{}, {}] {}",
                matrix.rows, matrix.columns, matrix.format
            )?;
        }
        if let Some([w1, ..]) = self.experts.first() {
            let (count, inner, width) = (self.experts.len(), w1.rows, w1.columns);
            write!(formatter, "; {count} experts [{inner}, {width}] {}", w1.format)?;
        }
        Ok(())
    }
}

/// The arguments of a case in a chip's memory.
pub(super) struct Loaded {
    tensors: BTreeMap<&'static str, Tensor>,
    matrices: BTreeMap<&'static str, Matrix>,
    experts: Vec<ExpertMatrices>,
}

impl Loaded {
    pub fn new(chip: &dyn Chip, case: &Case) -> Result<Self, Error> {
        let mut tensors = BTreeMap::new();
        for argument in &case.arguments {
            tensors.insert(argument.name, load(chip, argument)?);
        }
        let mut matrices = BTreeMap::new();
        for (name, source) in &case.matrices {
            matrices.insert(*name, chip.load_matrix(source.clone())?);
        }
        let experts = case.experts.iter().map(|matrices| {
            let [w1, w2, w3] = matrices.clone();
            Ok(ExpertMatrices {
                w1: chip.load_matrix(w1)?,
                w2: chip.load_matrix(w2)?,
                w3: chip.load_matrix(w3)?,
            })
        });
        Ok(Loaded {
            experts: experts.collect::<Result<_, Error>>()?,
            tensors,
            matrices,
        })
    }

    pub fn tensor(&self, name: &str) -> &Tensor {
        self.tensors
            .get(name)
            .unwrap_or_else(|| panic!("the case has no tensor '{name}'"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    pub fn matrix(&self, name: &str) -> &Matrix {
        &self.matrices[name]
    }

    pub fn experts(&self) -> &[ExpertMatrices] {
        &self.experts
    }

    /// Puts another matrix in an argument's place.
    pub fn replace_matrix(&mut self, name: &'static str, matrix: Matrix) {
        self.matrices.insert(name, matrix);
    }

    /// Puts another tensor in an argument's place.
    pub fn replace(&mut self, name: &'static str, tensor: Tensor) {
        self.tensors.insert(name, tensor);
    }
}

/// An argument on the chip, in the middle of guard bytes unless it is a weight.
fn load(chip: &dyn Chip, argument: &Argument) -> Result<Tensor, Error> {
    if matches!(argument.role, Role::Weight) {
        return chip.load(TensorSource {
            name: argument.name.to_owned(),
            dtype: argument.dtype,
            shape: argument.shape.clone(),
            data: Bytes::from(argument.bytes.clone()),
        });
    }
    let guard = GUARD_BYTE_COUNT / argument.dtype.byte_count();
    let count = argument.shape.iter().product::<usize>();
    let whole = chip.allocate(argument.dtype, &[count + 2 * guard])?;
    let mut bytes = vec![GUARD_BYTE; whole.byte_count()];
    bytes[GUARD_BYTE_COUNT..][..argument.bytes.len()].copy_from_slice(&argument.bytes);
    chip.write(&whole, &bytes)?;
    Ok(whole.narrow(guard, count).reshape(&argument.shape))
}

/// Why a run of a case counts as failed.
pub(super) enum Failure {
    Refused(Error),
    Wrong(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Refused(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(error) => write!(formatter, "refused: {error}"),
            Failure::Wrong(message) => formatter.write_str(message),
        }
    }
}

/// Runs a case and returns what it wrote. Fails if it wrote anything else.
pub(super) fn execute(chip: &dyn Chip, mode: Mode, case: &Case) -> Result<Outputs, Failure> {
    let loaded = Loaded::new(chip, case)?;
    chip.enqueue(mode, &(case.build)(&loaded))?;
    chip.synchronize()?;
    let mut outputs = Outputs::new();
    for argument in &case.arguments {
        let tensor = loaded.tensor(argument.name);
        let bytes = if matches!(argument.role, Role::Weight) {
            read(chip, tensor)?
        } else {
            read_guarded(chip, argument, tensor)?
        };
        if argument.expect().is_some() {
            outputs.insert(argument.name, bytes);
        } else if bytes != argument.bytes {
            return Err(Failure::Wrong(format!("input '{}' was changed", argument.name)));
        }
    }
    Ok(outputs)
}

fn read(chip: &dyn Chip, tensor: &Tensor) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; tensor.byte_count()];
    chip.read(tensor, &mut bytes)?;
    Ok(bytes)
}

fn read_guarded(chip: &dyn Chip, argument: &Argument, tensor: &Tensor) -> Result<Vec<u8>, Failure> {
    let guard = GUARD_BYTE_COUNT / argument.dtype.byte_count();
    let count = argument.shape.iter().product::<usize>() + 2 * guard;
    let whole = Tensor::new(tensor.buffer().clone(), argument.dtype, &[count]);
    let bytes = read(chip, &whole)?;
    let (before, rest) = bytes.split_at(GUARD_BYTE_COUNT);
    let (inside, after) = rest.split_at(argument.bytes.len());
    if before.iter().chain(after).any(|byte| *byte != GUARD_BYTE) {
        let message = format!("bytes before or after '{}' were overwritten", argument.name);
        return Err(Failure::Wrong(message));
    }
    Ok(inside.to_vec())
}
