//! Integer codes in groups of 32 columns with a one-byte scale: the low-bit formats of the dense part.
//!
//! A code of `b` bits stands for `code - 2^(b-1)`, so the integers are `-2^(b-1) ..= 2^(b-1) - 1`. Codes follow each
//! other along a row without gaps, the lowest bits of a byte first. A scale byte is `s eeeee mm` and stands for
//! `(-1)^s (1 + mm/4) 2^(eeeee - 25)`: `2^-25` to `1.75 * 2^6`, without zero and NaN.
//!
//! Why so:
//! * 32 weights are what one register of AVX-512 holds as bf16, and divide every width of V4.
//! * An integer times a scale has at most eight significant bits (five of int6 and three of the scale), so every
//!   weight is exactly a bf16 number and the chips' bf16 units compute on it without rounding. For int8 that leaves a
//!   scale without mantissa: `mm` is 0 and `s` is 0.
//! * The integers reach one further below zero than above. A scale with a sign puts the group's largest weight on that
//!   side, which lowers the error of int4 by 5 %; that is worth more than a further bit of mantissa (2 %).
//! * One byte for 32 weights costs a quarter bit each. An f16 scale would cost half a bit and lower the error by 6 % at
//!   int4 (groups of 16 with one byte each cost the same and lower it by 16 %: a step towards int5, not taken).

use std::{fmt, str::FromStr};

/// Bits of an integer code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IntegerWidth {
    /// -8 to 7: two codes a byte.
    Int4,
    /// -32 to 31: four codes in three bytes.
    Int6,
    /// -128 to 127; scales are powers of two.
    Int8,
}

/// Columns that share a scale.
pub const GROUP: usize = 32;

impl IntegerWidth {
    /// All widths, the smallest first.
    pub const ALL: [IntegerWidth; 3] = [IntegerWidth::Int4, IntegerWidth::Int6, IntegerWidth::Int8];

    /// Bits of a code.
    pub const fn bit_count(self) -> usize {
        match self {
            IntegerWidth::Int4 => 4,
            IntegerWidth::Int6 => 6,
            IntegerWidth::Int8 => 8,
        }
    }

    /// What is subtracted from a code: half of the codes are negative.
    pub const fn offset(self) -> u8 {
        1 << (self.bit_count() - 1)
    }

    /// The largest magnitude that weights of either sign may have: the largest integer times the largest scale.
    pub const fn weight_max(self) -> f32 {
        let largest_scale = match self {
            IntegerWidth::Int8 => 0x7C,
            _ => 0x7F,
        };
        (self.offset() - 1) as f32 * decode_scale(largest_scale)
    }

    /// Bytes of the codes of one row.
    pub const fn row_byte_count(self, columns: usize) -> usize {
        (columns * self.bit_count()).div_ceil(8)
    }

    /// Columns of a row of so many bytes, if whole groups fill it.
    pub const fn columns(self, row_byte_count: usize) -> Option<usize> {
        let columns = row_byte_count / self.bit_count() * 8;
        match columns.is_multiple_of(GROUP) && self.row_byte_count(columns) == row_byte_count {
            true => Some(columns),
            false => None,
        }
    }

    /// Whether this width knows a scale byte: int8 has powers of two only.
    #[inline]
    pub const fn has_scale(self, code: u8) -> bool {
        !matches!(self, IntegerWidth::Int8) || code & INT8_SCALE_ZERO_BITS == 0
    }

    /// The integer of column `index` of a row.
    ///
    /// # Panics
    /// If the row is too short.
    #[inline]
    pub fn integer(self, row: &[u8], index: usize) -> i8 {
        let code = match self {
            IntegerWidth::Int4 => row[index / 2] >> (index % 2 * 4) & 0xF,
            IntegerWidth::Int6 => {
                let bit = index * 6;
                let next = row.get(bit / 8 + 1).copied().unwrap_or(0);
                (u16::from_le_bytes([row[bit / 8], next]) >> (bit % 8)) as u8 & 0x3F
            }
            IntegerWidth::Int8 => row[index],
        };
        code.wrapping_sub(self.offset()) as i8
    }

    /// Decodes a row; exact, and every value is a bf16 number. `scales` are those of the row.
    pub(crate) fn decode_row(self, codes: &[u8], scales: &[u8], out: &mut [f32]) {
        for (group, (out, scale)) in out.chunks_mut(GROUP).zip(scales).enumerate() {
            let scale = decode_scale(*scale);
            for (index, value) in out.iter_mut().enumerate() {
                *value = f32::from(self.integer(codes, group * GROUP + index)) * scale;
            }
        }
    }
}

/// Bits that are zero in every scale of int8: sign and mantissa.
const INT8_SCALE_ZERO_BITS: u8 = 0x83;

/// The value of a scale byte.
///
/// ```
/// use cachalot_numerics::integer::decode_scale;
/// assert_eq!([0x64, 0x65, 0xE7].map(decode_scale), [1.0, 1.25, -1.75]);
/// ```
#[inline]
pub const fn decode_scale(code: u8) -> f32 {
    // Exponent and mantissa lie side by side as in an f32, two bits of mantissa instead of 23.
    let magnitude = ((code & 0x7F) as u32 + (EXPONENT_SHIFT << 2)) << 21;
    f32::from_bits(magnitude | ((code & 0x80) as u32) << 24)
}

/// From the exponent of a scale byte to that of an f32: 127 - 25.
const EXPONENT_SHIFT: u32 = 102;

impl fmt::Display for IntegerWidth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "int{}", self.bit_count())
    }
}

impl FromStr for IntegerWidth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = IntegerWidth::ALL.into_iter().find(|width| width.to_string() == text);
        named.ok_or_else(|| format!("'{text}' is no low-bit format; there are int8, int6 and int4"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16;

    #[test]
    fn every_weight_is_a_bf16_number() {
        for width in IntegerWidth::ALL {
            let offset = i32::from(width.offset());
            for code in (0..=255).filter(|code| width.has_scale(*code)) {
                for integer in -offset..offset {
                    let value = integer as f32 * decode_scale(code);
                    assert_eq!(bf16::round(value), value, "{width}: {integer} times scale {code:#x}");
                }
            }
        }
    }

    #[test]
    fn scales_ascend_from_the_smallest_to_the_largest() {
        assert_eq!(decode_scale(0), 2f32.powi(-25));
        assert_eq!(decode_scale(0x7F), 112.0);
        assert!((0..0x7F).all(|code| decode_scale(code) < decode_scale(code + 1)));
        assert!((0..0x80).all(|code| decode_scale(code | 0x80) == -decode_scale(code)));
    }

    #[test]
    fn rows_know_their_columns() {
        for width in IntegerWidth::ALL {
            for columns in [32, 64, 4096] {
                assert_eq!(width.columns(width.row_byte_count(columns)), Some(columns));
            }
            assert_eq!(width.columns(width.row_byte_count(32) + 1), None);
            assert_eq!(width.columns(width.row_byte_count(16)), None);
        }
    }

    #[test]
    fn codes_follow_each_other_from_the_lowest_bits_on() {
        assert_eq!([0, 1].map(|i| IntegerWidth::Int4.integer(&[0xF0], i)), [-8, 7]);
        // 6-bit codes 1, 2, 3, 63 as one little-endian number.
        let bytes = (1u32 | 2 << 6 | 3 << 12 | 63 << 18).to_le_bytes();
        let integers = [0, 1, 2, 3].map(|i| IntegerWidth::Int6.integer(&bytes[..3], i));
        assert_eq!(integers, [-31, -30, -29, 31]);
        assert_eq!([0, 1].map(|i| IntegerWidth::Int8.integer(&[0, 255], i)), [-128, 127]);
    }

    #[test]
    fn names_read_back() {
        for width in IntegerWidth::ALL {
            assert_eq!(width.to_string().parse(), Ok(width));
        }
        assert!("int5".parse::<IntegerWidth>().is_err());
    }
}
