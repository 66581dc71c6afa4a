//! Calls that a chip has to refuse, and how.

use std::{any::Any, sync::Arc};

use bytes::Bytes;
use cachalot_numerics::{Dtype, MatrixFormat};

use super::{
    case::{Argument, Case, Failure, Loaded, Role, execute},
    for_each_case,
};
use crate::{Buffer, Chip, Error, Matrix, MatrixSource, Mode, OperationKind, Support, Tensor};

/// Outputs that may be exactly the named input.
const IN_PLACE: [(OperationKind, &str, &str); 2] =
    [(OperationKind::RmsNorm, "out", "x"), (OperationKind::Add, "out", "a")];

/// Every kind of fault on some of an operator's cases; afterwards the chip still has to work.
pub(super) fn check(kind: OperationKind, chip: &dyn Chip) {
    if chip.support(kind, Mode::Fast) == Support::Missing {
        return;
    }
    for_each_case(kind, 4, |case| {
        if case.arguments.iter().any(|argument| argument.bytes.is_empty()) {
            return Ok(());
        }
        check_arguments(chip, case)?;
        check_overlaps(kind, chip, case)?;
        check_indices(chip, case)?;
        check_scales(chip, case)?;
        let outcome = execute(chip, Mode::Fast, case);
        outcome
            .map(drop)
            .map_err(|failure| format!("after refused calls: {failure}"))
    });
}

/// An operator that a chip says is missing must be refused as such.
pub(super) fn check_unsupported(
    operation: OperationKind,
    chip: &dyn Chip,
    mode: Mode,
    case: &Case,
) -> Result<(), String> {
    let loaded = Loaded::new(chip, case).map_err(|error| error.to_string())?;
    match chip.enqueue(mode, &(case.build)(&loaded)) {
        Err(Error::Unsupported { .. }) => Ok(()),
        outcome => Err(format!("{mode} mode: a missing {operation} gave {outcome:?}")),
    }
}

/// One argument at a time of another type, another shape, another chip, or a weight in an output's place.
fn check_arguments(chip: &dyn Chip, case: &Case) -> Result<(), String> {
    for argument in &case.arguments {
        let other = if argument.dtype == Dtype::I64 {
            Dtype::I8
        } else {
            Dtype::I64
        };
        refuse(
            chip,
            case,
            argument,
            "of another dtype",
            |chip| chip.allocate(other, &argument.shape),
            |error| {
                matches!(
                    error,
                    Error::Dtype { .. } | Error::Shape { .. } | Error::Argument { .. }
                )
            },
        )?;
        let mut shape = argument.shape.clone();
        *shape.last_mut().expect("tensors of cases have dimensions") += 1;
        if !argument.is_last_free {
            refuse(
                chip,
                case,
                argument,
                "one longer",
                |chip| chip.allocate(argument.dtype, &shape),
                |error| matches!(error, Error::Shape { .. } | Error::Argument { .. }),
            )?;
        }
        let foreign = |_: &dyn Chip| Ok(Tensor::new(Arc::new(Foreign), argument.dtype, &argument.shape));
        refuse(chip, case, argument, "of another chip", foreign, |error| {
            matches!(error, Error::ForeignTensor { .. })
        })?;
        if argument.expect().is_some() {
            let mut weight = argument.clone();
            weight.role = Role::Weight;
            let weights = case_with(case, weight);
            match execute(chip, Mode::Fast, &weights) {
                Err(Failure::Refused(Error::Argument { .. })) => {}
                Err(failure) => return Err(format!("a weight as output '{}': {failure}", argument.name)),
                Ok(_) => return Err(format!("a weight as output '{}' was accepted", argument.name)),
            }
        }
    }
    check_foreign_matrices(chip, case)
}

fn check_foreign_matrices(chip: &dyn Chip, case: &Case) -> Result<(), String> {
    for (name, source) in &case.matrices {
        let mut loaded = Loaded::new(chip, case).map_err(|error| error.to_string())?;
        let foreign = Matrix::new(Arc::new(Foreign), source.rows, source.columns, source.format);
        loaded.replace_matrix(name, foreign);
        match run(chip, &loaded, case) {
            Err(Error::ForeignTensor { .. }) => {}
            outcome => return Err(format!("matrix '{name}' of another chip: {outcome:?}")),
        }
    }
    Ok(())
}

/// Memory of nobody.
#[derive(Debug)]
struct Foreign;

impl Buffer for Foreign {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn refuse(
    chip: &dyn Chip,
    case: &Case,
    argument: &Argument,
    what: &str,
    make: impl Fn(&dyn Chip) -> Result<Tensor, Error>,
    is_right: impl Fn(&Error) -> bool,
) -> Result<(), String> {
    let mut loaded = Loaded::new(chip, case).map_err(|error| error.to_string())?;
    loaded.replace(argument.name, make(chip).map_err(|error| error.to_string())?);
    match run(chip, &loaded, case) {
        Err(error) if is_right(&error) => Ok(()),
        outcome => Err(format!("'{}' {what}: {outcome:?}", argument.name)),
    }
}

fn run(chip: &dyn Chip, loaded: &Loaded, case: &Case) -> Result<(), Error> {
    // An error of the enqueue leaves nothing to wait for; the synchronisation then has to be clean.
    let enqueued = chip.enqueue(Mode::Fast, &(case.build)(loaded));
    let synchronised = chip.synchronize();
    enqueued.and(synchronised)
}

/// Every output on the memory of every other argument. The host sees this without asking the chip.
fn check_overlaps(operation: OperationKind, chip: &dyn Chip, case: &Case) -> Result<(), String> {
    for output in case.arguments.iter().filter(|argument| argument.expect().is_some()) {
        for other in case.arguments.iter().filter(|other| other.name != output.name) {
            if IN_PLACE.contains(&(operation, output.name, other.name)) && output.bytes.len() <= 4 {
                continue;
            }
            let mut loaded = Loaded::new(chip, case).map_err(|error| error.to_string())?;
            // In place is allowed where it is exact; one element further it never is.
            let shift = usize::from(IN_PLACE.contains(&(operation, output.name, other.name)));
            let byte_count = output.bytes.len().max(other.bytes.len()) + 16;
            let memory = chip
                .allocate(Dtype::U8, &[byte_count])
                .map_err(|error| error.to_string())?;
            let part = |argument: &Argument, shift: usize| {
                let count = argument.shape.iter().product::<usize>();
                let all = Tensor::new(memory.buffer().clone(), argument.dtype, &[count + shift]);
                all.narrow(shift, count).reshape(&argument.shape)
            };
            loaded.replace(output.name, part(output, shift));
            loaded.replace(other.name, part(other, 0));
            match (case.build)(&loaded).check() {
                Err(Error::Overlap { .. }) => {}
                outcome => return Err(format!("'{}' on top of '{}': {outcome:?}", output.name, other.name)),
            }
        }
    }
    Ok(())
}

fn check_indices(chip: &dyn Chip, case: &Case) -> Result<(), String> {
    for bad in &case.bad_indices {
        let mut argument = case.argument(bad.tensor).clone();
        argument.set_i32(bad.element, bad.value as i32);
        match execute(chip, Mode::Fast, &case_with(case, argument)) {
            Err(Failure::Refused(Error::Index { tensor, .. })) if tensor == bad.tensor => {}
            Err(failure) => return Err(format!("{bad:?}: {failure}")),
            Ok(_) => return Err(format!("{bad:?} was accepted")),
        }
    }
    Ok(())
}

/// The case with one argument replaced.
fn case_with(case: &Case, argument: Argument) -> Case {
    let mut changed = case.clone();
    for place in changed.arguments.iter_mut().filter(|place| place.name == argument.name) {
        *place = argument.clone();
    }
    changed
}

/// Scales of a damaged file.
fn check_scales(chip: &dyn Chip, case: &Case) -> Result<(), String> {
    let formats = case.matrices.iter().map(|(_, matrix)| matrix.format);
    let formats: Vec<MatrixFormat> = formats.chain(case.experts.iter().map(|[w1, ..]| w1.format)).collect();
    let Some(format) = formats.first() else {
        return Ok(());
    };
    let dtype = format.scale_shape(1, 1).map(|(dtype, _)| dtype);
    let bad_scales: Vec<Vec<u8>> = match (format, dtype) {
        (_, None) => return Ok(()),
        (_, Some(Dtype::F32)) => [f32::NAN, 0.0, -1.0, f32::INFINITY]
            .map(|scale| scale.to_le_bytes().to_vec())
            .into(),
        (MatrixFormat::Integer(width), _) => {
            let bad = (0..=255).filter(|code| !width.has_scale(*code)).step_by(37);
            bad.map(|code| vec![code]).collect()
        }
        _ => vec![vec![255]],
    };
    for scale in bad_scales {
        let mut damaged = case.clone();
        damaged
            .matrices
            .iter_mut()
            .for_each(|(_, matrix)| damage(matrix, &scale));
        damaged.experts.iter_mut().for_each(|[w1, ..]| damage(w1, &scale));
        match execute(chip, Mode::Fast, &damaged) {
            Err(Failure::Refused(Error::BadScale { .. })) => {}
            Err(failure) => return Err(format!("scale {scale:?}: {failure}")),
            Ok(_) => return Err(format!("scale {scale:?} was accepted")),
        }
    }
    Ok(())
}

/// Overwrites the last scale.
fn damage(matrix: &mut MatrixSource, scale: &[u8]) {
    let mut scales = matrix.scales.to_vec();
    let start = scales.len() - scale.len();
    scales[start..].copy_from_slice(scale);
    matrix.scales = Bytes::from(scales);
}
