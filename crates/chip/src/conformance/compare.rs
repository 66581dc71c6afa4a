//! Tolerances, and what counts as the same result.

use cachalot_numerics::{bf16, e2m1, e4m3, e8m0};

use super::case::{Argument, Outputs};
use crate::{Mode, RowFormat};

/// Largest error in reference mode, relative to the largest value of the row (or to [`Expect::Floats`]' magnitude).
///
/// Both sides compute in `f32` and may add in different orders. Sums of a few thousand terms of mixed signs then differ
/// by some 1e-6 of their typical size; 1e-5 leaves room for exponentials, which turn an absolute error of their argument
/// into a relative one.
pub const REFERENCE_RELATIVE_ERROR_MAX: f32 = 1e-5;

/// Largest relative error of a single element in official mode: one step of bf16.
///
/// An `f32` result that falls on either side of a rounding border, depending on the order of a sum, moves by one step.
pub const OFFICIAL_STEP: f32 = 1.0 / 128.0;

/// How much further from the reference a result of [`Mode::Fast`] may be than the reference's own [`Mode::Official`]
/// (L2 over a whole output, so that single elements may trade places).
///
/// The law of fast mode is about next-token distributions and holds without a margin; one operator on a few values is a
/// small sample of its rounding errors, so the ratio of two equally good roundings scatters around one.
pub const FAST_ERROR_RATIO_MAX: f32 = 1.5;

/// Largest part of packed codes that may differ by one step where both sides computed the packed values themselves.
pub const CODE_FLIP_RATIO_MAX: f32 = 0.02;

/// How an output is compared.
#[derive(Clone, Debug)]
pub(super) enum Expect {
    /// `f32` values.
    Floats {
        /// Official mode only: error from roundings inside the operator, relative to the largest value of a row.
        official_noise: f32,
        /// For each outermost row a size that errors are relative to, where the row's own values may cancel out.
        magnitudes: Option<Vec<f32>>,
    },
    /// Rows packed as a [`RowFormat`] with this width and tail.
    Packed(RowFormat, usize, usize),
    /// The same bytes.
    Bytes,
    /// The case's own verification, because several answers are right.
    Verified,
}

impl Expect {
    /// Values that differ by the order of sums, and by one step of bf16 in official mode.
    pub const FLOATS: Expect = Expect::Floats {
        official_noise: 0.0,
        magnitudes: None,
    };

    pub fn noisy(official_noise: f32) -> Self {
        Expect::Floats {
            official_noise,
            magnitudes: None,
        }
    }

    pub fn magnitudes(magnitudes: Vec<f32>) -> Self {
        Expect::Floats {
            official_noise: 0.0,
            magnitudes: Some(magnitudes),
        }
    }
}

/// What the reference chip computed for a case.
pub(super) struct Expected {
    pub reference: Outputs,
    pub official: Outputs,
}

/// Compares one output of the candidate in `mode`.
pub(super) fn compare(mode: Mode, argument: &Argument, found: &[u8], expected: &Expected) -> Result<(), String> {
    let (reference, official) = (&expected.reference[argument.name], &expected.official[argument.name]);
    let same_mode = if mode == Mode::Official { official } else { reference };
    match argument.expect() {
        None | Some(Expect::Verified) => Ok(()),
        Some(Expect::Bytes) => compare_bytes(argument, found, same_mode),
        Some(Expect::Packed(format, width, tail)) => {
            let row = format.byte_count(*width, *tail);
            compare_packed(mode, argument, *format, [*width, *tail], found, same_mode, row)
        }
        Some(Expect::Floats {
            official_noise,
            magnitudes,
        }) => {
            let found = floats(found);
            let scales = row_scales(argument, &floats(reference), magnitudes.as_deref());
            match mode {
                Mode::Reference => compare_floats(argument, &found, &floats(reference), |_, row| {
                    REFERENCE_RELATIVE_ERROR_MAX * scales[row]
                }),
                Mode::Official => compare_floats(argument, &found, &floats(official), |value, row| {
                    value.abs() * OFFICIAL_STEP + (official_noise + REFERENCE_RELATIVE_ERROR_MAX) * scales[row]
                }),
                Mode::Fast => compare_fast(argument, &found, &floats(reference), &floats(official), &scales),
            }
        }
    }
}

/// The same bytes, or a message with the first element that differs.
pub(super) fn compare_bytes(argument: &Argument, found: &[u8], expected: &[u8]) -> Result<(), String> {
    let size = argument.dtype.byte_count();
    let elements = found.chunks(size).zip(expected.chunks(size)).enumerate();
    for (index, (found, expected)) in elements {
        if found != expected {
            return Err(format!(
                "'{}' element {:?}: found {}, expected {}",
                argument.name,
                place(&argument.shape, index),
                show(argument, found),
                show(argument, expected)
            ));
        }
    }
    Ok(())
}

fn show(argument: &Argument, bytes: &[u8]) -> String {
    match (argument.dtype, bytes.try_into()) {
        (cachalot_numerics::Dtype::F32, Ok(bytes)) => {
            format!(
                "{:e} (bits {:#010x})",
                f32::from_le_bytes(bytes),
                u32::from_le_bytes(bytes)
            )
        }
        (cachalot_numerics::Dtype::I32, Ok(bytes)) => i32::from_le_bytes(bytes).to_string(),
        _ => format!("{bytes:02x?}"),
    }
}

pub(super) fn floats(bytes: &[u8]) -> Vec<f32> {
    let (values, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty(), "whole f32 values");
    values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

pub(super) fn integers(bytes: &[u8]) -> Vec<i32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| i32::from_le_bytes(*bytes))
        .collect()
}

/// For every element row (innermost dimension) the size that its errors are relative to.
fn row_scales(argument: &Argument, reference: &[f32], magnitudes: Option<&[f32]>) -> Vec<f32> {
    let width = argument.shape.last().copied().unwrap_or(1).max(1);
    let rows_each = (reference.len() / width)
        .checked_div(argument.shape[0])
        .unwrap_or(1)
        .max(1);
    let rows = reference.chunks(width).enumerate();
    rows.map(|(row, values)| {
        let largest = values.iter().fold(0.0, |max: f32, value| max.max(value.abs()));
        let magnitude = magnitudes.map_or(0.0, |magnitudes| magnitudes[row / rows_each]);
        largest.max(magnitude).max(f32::MIN_POSITIVE)
    })
    .collect()
}

fn compare_floats(
    argument: &Argument,
    found: &[f32],
    expected: &[f32],
    tolerance: impl Fn(f32, usize) -> f32,
) -> Result<(), String> {
    let width = argument.shape.last().copied().unwrap_or(1).max(1);
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let tolerance = tolerance(*expected, index / width);
        // Negated so that NaN fails.
        let is_close = (found - expected).abs() <= tolerance;
        if !is_close {
            return Err(format!(
                "'{}' element {:?}: found {found:e}, expected {expected:e}, tolerance {tolerance:e}",
                argument.name,
                place(&argument.shape, index)
            ));
        }
    }
    Ok(())
}

fn compare_fast(
    argument: &Argument,
    found: &[f32],
    reference: &[f32],
    official: &[f32],
    scales: &[f32],
) -> Result<(), String> {
    let width = argument.shape.last().copied().unwrap_or(1).max(1);
    let square = |a: f32, b: f32| f64::from(a - b).powi(2);
    let official_error: f64 = official.iter().zip(reference).map(|(a, b)| square(*a, *b)).sum();
    let allowed = f64::from(FAST_ERROR_RATIO_MAX) * official_error.sqrt();
    let errors = found
        .iter()
        .zip(reference)
        .enumerate()
        .map(|(index, (found, reference))| {
            let noise = REFERENCE_RELATIVE_ERROR_MAX * scales[index / width];
            // What the order of sums explains does not count.
            (
                index,
                (f64::from(found - reference).abs() - f64::from(noise)).max(0.0),
                found.is_nan(),
            )
        });
    let (mut sum, mut worst) = (0.0, (0, 0.0));
    for (index, error, is_nan) in errors {
        let error = if is_nan { f64::INFINITY } else { error };
        sum += error * error;
        if error > worst.1 {
            worst = (index, error);
        }
    }
    if sum.sqrt() <= allowed {
        return Ok(());
    }
    let index = worst.0;
    Err(format!(
        "'{}' is {:e} (L2) from the reference, official mode allows {allowed:e}; worst element {:?}: found {:e}, \
         expected {:e}",
        argument.name,
        sum.sqrt(),
        place(&argument.shape, index),
        found[index],
        reference[index]
    ))
}

fn compare_packed(
    mode: Mode,
    argument: &Argument,
    format: RowFormat,
    [width, tail]: [usize; 2],
    found: &[u8],
    expected: &[u8],
    row_byte_count: usize,
) -> Result<(), String> {
    let (mut flip_count, mut first_flip) = (0usize, String::new());
    let rows = found
        .chunks_exact(row_byte_count.max(1))
        .zip(expected.chunks_exact(row_byte_count.max(1)));
    for (row, (found, expected)) in rows.enumerate() {
        if found == expected {
            continue;
        }
        let found = unpack(format, width, tail, found);
        let expected = unpack(format, width, tail, expected);
        let largest = expected.iter().fold(0.0, |max: f32, value| max.max(value.abs()));
        for (channel, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let step = step(mode, format, channel >= width - tail, *expected, largest);
            let message = format!(
                "'{}' packed row {row} channel {channel}: found {found:e}, expected {expected:e}, step {step:e}",
                argument.name
            );
            let is_close = (found - expected).abs() <= step;
            if !is_close {
                return Err(message);
            }
            if found != expected && format != RowFormat::F32 {
                flip_count += 1;
                first_flip = if flip_count == 1 { message } else { first_flip };
            }
        }
    }
    let value_count = expected.len() / row_byte_count.max(1) * width;
    if flip_count > 2 + (value_count as f32 * CODE_FLIP_RATIO_MAX) as usize {
        return Err(format!(
            "{flip_count} of {value_count} codes differ, first {first_flip}"
        ));
    }
    Ok(())
}

/// The distance of neighbouring codes around `value`.
fn step(mode: Mode, format: RowFormat, in_tail: bool, value: f32, largest: f32) -> f32 {
    let mut noise = REFERENCE_RELATIVE_ERROR_MAX * largest;
    if mode == Mode::Official {
        // What is packed was rounded to bf16 before.
        noise += value.abs() * OFFICIAL_STEP;
    }
    match format {
        RowFormat::F32 => noise,
        RowFormat::Fp8Tail if !in_tail => value.abs() / 8.0 + largest / (448.0 * 512.0) + noise,
        RowFormat::Bf16 | RowFormat::Fp8Tail => value.abs() * OFFICIAL_STEP + noise,
        // The scale of a group reaches from a sixth to a third of its largest value.
        RowFormat::Fp8 => value.abs() / 8.0 + largest / (448.0 * 512.0) + noise,
        RowFormat::Fp4Hadamard | RowFormat::Fp4 | RowFormat::Fp4Fine => (value.abs() / 2.0).max(largest / 6.0) + noise,
    }
}

/// Unpacks a row by the description of [`RowFormat`].
pub(super) fn unpack(format: RowFormat, width: usize, tail: usize, row: &[u8]) -> Vec<f32> {
    let bf16_at = |index: usize| bf16::decode(u16::from_le_bytes([row[index], row[index + 1]]));
    let plain = width - tail;
    let value = |channel: usize| match format {
        RowFormat::F32 => floats(&row[4 * channel..4 * channel + 4])[0],
        RowFormat::Bf16 => bf16_at(2 * channel),
        RowFormat::Fp8Tail if channel < plain => {
            let scale = row[plain + 2 * tail + channel / RowFormat::FP8_GROUP];
            e4m3::decode(row[channel]) * e8m0::decode(scale)
        }
        RowFormat::Fp8Tail => bf16_at(plain + 2 * (channel - plain)),
        RowFormat::Fp8 => {
            let scale = row[width + channel / RowFormat::FP8_SMALL_GROUP];
            e4m3::decode(row[channel]) * e8m0::decode(scale)
        }
        RowFormat::Fp4Fine => {
            let scale = row[width.div_ceil(2) + channel / RowFormat::FP4_FINE_GROUP];
            e2m1::decode(row[channel / 2] >> (4 * (channel % 2))) * e4m3::decode(scale)
        }
        RowFormat::Fp4Hadamard | RowFormat::Fp4 => {
            let scale = row[width.div_ceil(2) + channel / RowFormat::FP4_GROUP];
            e2m1::decode(row[channel / 2] >> (4 * (channel % 2))) * e8m0::decode(scale)
        }
    };
    (0..width).map(value).collect()
}

/// An element's index along each dimension.
fn place(shape: &[usize], mut index: usize) -> Vec<usize> {
    let mut place = vec![0; shape.len()];
    for (place, dimension) in place.iter_mut().zip(shape).rev() {
        *place = index % dimension.max(&1);
        index /= dimension.max(&1);
    }
    place
}
