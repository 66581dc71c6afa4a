//! Element types: their widths and their numbers. Every value passes through `f64`, which holds all of them exactly.

use crate::memory::Memory;

pub const F32: i32 = 0;
pub const F16: i32 = 1;
pub const I8: i32 = 2;
pub const I32: i32 = 3;
pub const U8: i32 = 4;
pub const I64: i32 = 9;
/// Only as scales of int4 weights: the low half holds a float.
pub const U64: i32 = 10;
pub const F64: i32 = 11;
pub const BOOL: i32 = 12;
pub const BF16: i32 = 27;
pub const I4: i32 = 29;
/// The first number of the types that only the 950 knows.
pub const FIRST_950: i32 = 34;
pub const E4M3: i32 = 36;
pub const E8M0: i32 = 37;
pub const E2M1: i32 = 40;

/// Formats that name axes and lay them out like ND: NCHW, NHWC, ND, NCDHW, NC, NCL.
const PLAIN: [i32; 6] = [0, 1, 2, 30, 35, 47];
const FRACTAL_NZ: i32 = 29;

/// A view as given to `aclCreateTensor`, all counts in elements.
#[derive(Clone)]
pub struct Tensor {
    pub dims: Vec<usize>,
    pub strides: Vec<usize>,
    pub offset: usize,
    pub storage: Vec<usize>,
    pub dtype: i32,
    pub format: i32,
    pub address: usize,
}

/// Bits of one element; `None` for types the emulator does not have.
pub fn bits(dtype: i32) -> Option<usize> {
    Some(match dtype {
        F32 | I32 => 32,
        F16 | BF16 => 16,
        I8 | U8 | BOOL | E4M3 | E8M0 => 8,
        I64 | F64 | U64 => 64,
        I4 | E2M1 => 4,
        _ => return None,
    })
}

impl Tensor {
    pub fn count(&self) -> usize {
        self.dims.iter().product()
    }

    pub fn is_weight_layout(&self) -> bool {
        self.format == FRACTAL_NZ
    }

    /// The length of the last axis, 1 for scalars.
    pub fn width(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }

    /// Where each element of the view lies, in elements from the address, in the order of the view.
    pub fn places(&self) -> Vec<usize> {
        let mut places = vec![self.offset];
        for (&dim, &stride) in self.dims.iter().zip(&self.strides) {
            places = places
                .iter()
                .flat_map(|&place| (0..dim).map(move |index| place + index * stride))
                .collect();
        }
        if self.is_weight_layout() {
            places.iter_mut().for_each(|place| *place = self.tiled(*place));
        }
        places
    }

    /// Row-major place to its place among tiles of 16 rows and 32 bytes.
    fn tiled(&self, place: usize) -> usize {
        let rank = self.dims.len();
        let transposed = self.strides[rank - 1] != 1;
        let (rows, columns) = match transposed {
            true => (self.dims[rank - 1], self.dims[rank - 2]),
            false => (self.dims[rank - 2], self.dims[rank - 1]),
        };
        let tile = 256 / bits(self.dtype).unwrap_or(8);
        let (matrix, place) = (place / (rows * columns), place % (rows * columns));
        let (row, column) = (place / columns, place % columns);
        let (row_tiles, column_tiles) = (rows.div_ceil(16), columns.div_ceil(tile));
        (((matrix * column_tiles + column / tile) * row_tiles + row / 16) * 16 + row % 16) * tile + column % tile
    }

    /// Bytes from the address to behind the last element; `None` where the numbers overflow.
    pub fn extent(&self) -> Option<usize> {
        let bits = bits(self.dtype)?;
        if self.is_weight_layout() {
            let elements = self
                .storage
                .iter()
                .try_fold(1_usize, |product, &dim| product.checked_mul(dim))?;
            return Some(elements.checked_mul(bits)?.div_ceil(8));
        }
        if self.dims.contains(&0) {
            return Some(0);
        }
        let mut last = self.offset;
        for (&dim, &stride) in self.dims.iter().zip(&self.strides) {
            last = last.checked_add((dim - 1).checked_mul(stride)?)?;
        }
        Some(last.checked_add(1)?.checked_mul(bits)?.div_ceil(8))
    }

    /// Bytes before the first element.
    pub fn lead(&self) -> usize {
        if self.is_weight_layout() {
            0
        } else {
            self.offset * bits(self.dtype).unwrap_or(8) / 8
        }
    }

    /// Why the descriptor cannot be right, whatever the operator.
    pub fn flaw(&self) -> Option<String> {
        let Some(bits) = bits(self.dtype) else {
            return Some(format!("data type {} is not emulated", self.dtype));
        };
        if self.dims.is_empty() || self.dims.contains(&0) {
            return Some("tensors without axes or elements are not emulated".to_owned());
        }
        if self.format == FRACTAL_NZ {
            let rank = self.dims.len();
            if rank < 2 || self.storage.len() != rank + 2 {
                return Some(
                    "format NZ needs a matrix and two more storage dimensions than view dimensions".to_owned(),
                );
            }
            let straight = self.strides[rank - 1] == 1;
            let (rows, columns) = if straight {
                (self.dims[rank - 2], self.dims[rank - 1])
            } else {
                (self.dims[rank - 1], self.dims[rank - 2])
            };
            let tile = 256 / bits;
            let expected = [columns.div_ceil(tile), rows.div_ceil(16), 16, tile];
            if self.storage[rank - 2..] != expected {
                return Some(format!(
                    "format NZ of {rows} × {columns} needs storage {expected:?}, not {:?}",
                    self.storage
                ));
            }
        } else if !PLAIN.contains(&self.format) {
            return Some(format!("format {} is not emulated", self.format));
        }
        (!self.address.is_multiple_of(32)).then(|| "the address is not aligned to 32 bytes".to_owned())
    }

    pub fn load(&self, memory: &mut Memory) -> Result<Vec<f64>, String> {
        let len = self.extent().ok_or("the view overflows")?;
        let bytes = memory
            .range(self.address, len)
            .ok_or("a tensor's memory was freed or is too small")?;
        Ok(self
            .places()
            .into_iter()
            .map(|place| read(bytes, place, self.dtype))
            .collect())
    }

    pub fn store(&self, memory: &mut Memory, values: &[f64]) -> Result<(), String> {
        let len = self.extent().ok_or("the view overflows")?;
        let bytes = memory
            .range(self.address, len)
            .ok_or("an output's memory was freed or is too small")?;
        self.places()
            .into_iter()
            .zip(values)
            .for_each(|(place, &value)| write(bytes, place, self.dtype, value));
        Ok(())
    }
}

/// The numbers that lie one after the other in `bytes`.
pub fn decode(bytes: &[u8], dtype: i32) -> Vec<f64> {
    let count = bytes.len() * 8 / bits(dtype).unwrap_or(8);
    (0..count).map(|place| read(bytes, place, dtype)).collect()
}

fn take<const N: usize>(bytes: &[u8], place: usize) -> [u8; N] {
    let mut taken = [0; N];
    taken.copy_from_slice(&bytes[place * N..][..N]);
    taken
}

fn read(bytes: &[u8], place: usize, dtype: i32) -> f64 {
    let nibble = |place: usize| (bytes[place / 2] >> (4 * (place % 2))) & 15;
    match dtype {
        F32 => f64::from(f32::from_le_bytes(take(bytes, place))),
        F64 => f64::from_le_bytes(take(bytes, place)),
        U64 => f64::from(f32::from_bits(u64::from_le_bytes(take(bytes, place)) as u32)),
        F16 => small_float(u32::from(u16::from_le_bytes(take(bytes, place))), 5, 10),
        BF16 => f64::from(f32::from_bits(u32::from(u16::from_le_bytes(take(bytes, place))) << 16)),
        I8 => f64::from(bytes[place] as i8),
        I32 => f64::from(i32::from_le_bytes(take(bytes, place))),
        I64 => i64::from_le_bytes(take(bytes, place)) as f64,
        I4 => f64::from(((nibble(place) << 4) as i8) >> 4),
        E4M3 if bytes[place] & 0x7F == 0x7F => f64::NAN,
        E4M3 => finite_float(u32::from(bytes[place]), 4, 3),
        E8M0 if bytes[place] == 0xFF => f64::NAN,
        E8M0 => 2_f64.powi(i32::from(bytes[place]) - 127),
        E2M1 => finite_float(u32::from(nibble(place)), 2, 1),
        _ => f64::from(bytes[place]),
    }
}

/// A float without infinities.
fn finite_float(bits: u32, exponent_bits: u32, mantissa_bits: u32) -> f64 {
    let bias = (1 << (exponent_bits - 1)) - 1;
    let mantissa = f64::from(bits & ((1 << mantissa_bits) - 1)) / f64::from(1 << mantissa_bits);
    let exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
    let size = match exponent {
        0 => mantissa * 2_f64.powi(1 - bias),
        _ => (1.0 + mantissa) * 2_f64.powi(exponent as i32 - bias),
    };
    if bits >> (exponent_bits + mantissa_bits) & 1 == 1 {
        -size
    } else {
        size
    }
}

fn small_float(bits: u32, exponent_bits: u32, mantissa_bits: u32) -> f64 {
    let all = (1 << exponent_bits) - 1;
    if (bits >> mantissa_bits) & all == all {
        let sign = if bits >> (exponent_bits + mantissa_bits) & 1 == 1 {
            -1.0
        } else {
            1.0
        };
        return if bits & ((1 << mantissa_bits) - 1) == 0 {
            sign * f64::INFINITY
        } else {
            f64::NAN
        };
    }
    finite_float(bits, exponent_bits, mantissa_bits)
}

/// The value rounded to so many mantissa bits, ties to even; below `least_exponent` the steps stay equal.
fn rounded(value: f64, mantissa_bits: i32, least_exponent: i32) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let exponent = ((value.to_bits() >> 52) as i32 & 0x7FF) - 1023;
    let step = 2_f64.powi(exponent.max(least_exponent) - mantissa_bits);
    (value / step).round_ties_even() * step
}

/// The bits of a value that `rounded` made representable.
fn small_bits(value: f64, exponent_bits: i32, mantissa_bits: i32) -> u32 {
    let sign = u32::from(value.is_sign_negative()) << (exponent_bits + mantissa_bits);
    let bias = (1 << (exponent_bits - 1)) - 1;
    let size = value.abs();
    let least = 2_f64.powi(1 - bias);
    if size < least {
        return sign | (size / least * f64::from(1 << mantissa_bits)) as u32;
    }
    let exponent = ((size.to_bits() >> 52) as i32) - 1023;
    let mantissa = ((size / 2_f64.powi(exponent) - 1.0) * f64::from(1 << mantissa_bits)) as u32;
    sign | ((exponent + bias) as u32) << mantissa_bits | mantissa
}

/// `value` as `dtype` holds it.
pub fn round_to(value: f64, dtype: i32) -> f64 {
    let mut bytes = [0; 8];
    write(&mut bytes, 0, dtype, value);
    read(&bytes, 0, dtype)
}

fn write(bytes: &mut [u8], place: usize, dtype: i32, value: f64) {
    let mut put = |raw: &[u8]| bytes[place * raw.len()..][..raw.len()].copy_from_slice(raw);
    match dtype {
        F32 => put(&(value as f32).to_le_bytes()),
        F64 => put(&value.to_le_bytes()),
        U64 => put(&u64::from((value as f32).to_bits()).to_le_bytes()),
        BF16 if value.is_nan() => put(&0x7FC0_u16.to_le_bytes()),
        BF16 => put(&((rounded(value, 7, -126) as f32).to_bits() >> 16).to_le_bytes()[..2]),
        F16 => {
            let held = rounded(value, 10, -14);
            let bits = match held {
                _ if held.is_nan() => 0x7E00,
                _ if held.abs() > 65504.0 => 0x7C00 | u32::from(held < 0.0) << 15,
                _ => small_bits(held, 5, 10),
            };
            put(&bits.to_le_bytes()[..2]);
        }
        I8 => put(&[value as i8 as u8]),
        I32 => put(&(value as i32).to_le_bytes()),
        I64 => put(&(value as i64).to_le_bytes()),
        E4M3 if value.is_nan() => put(&[0x7F]),
        E4M3 => put(&[small_bits(rounded(value.clamp(-448.0, 448.0), 3, -6), 4, 3) as u8]),
        E8M0 => put(&[(value.log2().round() + 127.0) as u8]),
        BOOL => put(&[u8::from(value != 0.0)]),
        I4 | E2M1 => {
            let held = match dtype {
                I4 => (value as i8 as u8) & 15,
                _ => small_bits(rounded(value.clamp(-6.0, 6.0), 1, 0), 2, 1) as u8,
            };
            let shift = 4 * (place % 2);
            bytes[place / 2] = bytes[place / 2] & !(15 << shift) | held << shift;
        }
        _ => put(&[value as u8]),
    }
}
