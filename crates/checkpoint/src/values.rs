//! Values that no calculation can use: NaN, infinities, scales that are not positive, experts that do not
//! exist.

use std::fmt;

use cachalot_numerics::{Dtype, IntegerWidth, e8m0};

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ValueFault {
    /// Not a number.
    NotANumber,
    /// Plus or minus infinity.
    Infinite,
    /// A scale of zero or below.
    NotPositive(f32),
    /// A byte that is no scale in the matrix's format.
    NotAScale(u8),
    /// An expert that the model does not have.
    Expert {
        /// The id.
        id: i64,
        /// Number of experts.
        count: usize,
    },
}

impl fmt::Display for ValueFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueFault::NotANumber => formatter.write_str("NaN, expected a number"),
            ValueFault::Infinite => formatter.write_str("infinite, expected a finite number"),
            ValueFault::NotPositive(value) => {
                write!(formatter, "{value}, expected a scale above 0")
            }
            ValueFault::NotAScale(code) => {
                write!(formatter, "{code:#04x}, expected a power of two")
            }
            ValueFault::Expert { id, count } => {
                write!(formatter, "{id}, expected an expert id from 0 to {}", count - 1)
            }
        }
    }
}

/// Elements looked at in one go: the common case is that all are fine, and that is checked without branches.
const CHUNK: usize = 4096;

/// The first bad element of the scales of integer codes.
pub(crate) fn bad_integer_scale(width: IntegerWidth, bytes: &[u8]) -> Option<(usize, ValueFault)> {
    let index = first_byte(bytes, |code| !width.has_scale(code))?;
    Some((index, ValueFault::NotAScale(bytes[index])))
}

/// The first bad element of a scale tensor.
pub(crate) fn bad_scale(dtype: Dtype, bytes: &[u8]) -> Option<(usize, ValueFault)> {
    match dtype {
        Dtype::F8E8m0 => {
            let index = first_byte(bytes, |code| code == e8m0::NAN)?;
            Some((index, ValueFault::NotANumber))
        }
        Dtype::F32 => {
            let good = |value: f32| value > 0.0 && value < f32::INFINITY;
            let (index, value) = first_float(bytes.as_chunks::<4>().0, |b| f32::from_le_bytes(*b), good)?;
            Some((index, fault_of(value)))
        }
        _ => None,
    }
}

/// The first element of a weight tensor that is NaN or infinite. Integers have none.
pub(crate) fn bad_number(dtype: Dtype, bytes: &[u8]) -> Option<(usize, ValueFault)> {
    match dtype {
        Dtype::F8E4m3 => {
            let index = first_byte(bytes, |code| code & 0x7F == 0x7F)?;
            Some((index, ValueFault::NotANumber))
        }
        Dtype::F32 => {
            let values = bytes.as_chunks::<4>().0;
            let (index, value) = first_float(values, |b| f32::from_le_bytes(*b), f32::is_finite)?;
            Some((index, fault_of(value)))
        }
        Dtype::Bf16 => {
            let values = bytes.as_chunks::<2>().0;
            let decode = |b: &[u8; 2]| cachalot_numerics::bf16::decode(u16::from_le_bytes(*b));
            let (index, value) = first_float(values, decode, f32::is_finite)?;
            Some((index, fault_of(value)))
        }
        _ => None,
    }
}

/// The first id of a table of experts that is out of range.
pub(crate) fn bad_expert(bytes: &[u8], expert_count: usize) -> Option<(usize, ValueFault)> {
    let ids = bytes.as_chunks::<8>().0;
    // Negative ids are huge as unsigned numbers.
    let good = |id: &[u8; 8]| u64::from_le_bytes(*id) < expert_count as u64;
    let index = first(ids, good)?;
    let id = i64::from_le_bytes(ids[index]);
    let count = expert_count;
    Some((index, ValueFault::Expert { id, count }))
}

fn fault_of(value: f32) -> ValueFault {
    match value {
        value if value.is_nan() => ValueFault::NotANumber,
        value if value.is_infinite() => ValueFault::Infinite,
        value => ValueFault::NotPositive(value),
    }
}

fn first_byte(bytes: &[u8], bad: impl Fn(u8) -> bool) -> Option<usize> {
    first(bytes, |byte| !bad(*byte))
}

fn first_float<B>(values: &[B], decode: impl Fn(&B) -> f32, good: impl Fn(f32) -> bool) -> Option<(usize, f32)> {
    let index = first(values, |value| good(decode(value)))?;
    Some((index, decode(&values[index])))
}

/// Index of the first element that is not `good`.
fn first<T>(values: &[T], good: impl Fn(&T) -> bool) -> Option<usize> {
    for (position, chunk) in values.chunks(CHUNK).enumerate() {
        // No early exit inside a chunk, so that the loop becomes vector instructions.
        let all_good = chunk.iter().fold(true, |all, value| all & good(value));
        if !all_good {
            let inside = chunk.iter().position(|value| !good(value))?;
            return Some(position * CHUNK + inside);
        }
    }
    None
}
