//! Integer codes in groups of 32, eight at a time, as `f32`.

use std::arch::x86_64::*;

use cachalot_numerics::integer::{GROUP, decode_scale};

use super::stored::{Stored, padded};
use crate::memory::CpuMatrix;

/// The values of all scale bytes: a load instead of four operations.
static SCALES: [f32; 256] = {
    let mut scales = [0.0; 256];
    let mut code = 0;
    while code < scales.len() {
        scales[code] = decode_scale(code as u8);
        code += 1;
    }
    scales
};

/// A matrix of codes of 4, 6 or 8 bits.
#[derive(Clone, Copy)]
pub(super) struct StoredInteger<'a, const BITS: usize> {
    weights: &'a [u8],
    scales: &'a [u8],
    row_byte_count: usize,
    row_group_count: usize,
}

/// `(code - offset) * scale` is `code * scale - offset * scale`: one exact operation.
#[derive(Clone, Copy)]
pub(super) struct IntegerScale {
    scale: __m256,
    offset: __m256,
}

impl<'a, const BITS: usize> StoredInteger<'a, BITS> {
    pub fn new(matrix: &'a CpuMatrix) -> Self {
        StoredInteger {
            weights: &matrix.weights,
            scales: &matrix.scales,
            row_byte_count: (matrix.columns * BITS).div_ceil(8),
            row_group_count: matrix.columns.div_ceil(GROUP),
        }
    }

    #[inline(always)]
    fn start(self, row: usize, column: usize) -> usize {
        // Columns are multiples of eight, whose codes are whole bytes.
        row * self.row_byte_count + column / 8 * BITS
    }
}

impl<const BITS: usize> Stored for StoredInteger<'_, BITS> {
    type Scale = IntegerScale;

    #[inline(always)]
    fn scale_columns(self) -> usize {
        GROUP
    }

    #[inline(always)]
    unsafe fn scale(self, row: usize, block: usize) -> IntegerScale {
        // SAFETY: the caller has the features, and the block is inside the matrix; any byte is an index of the table.
        unsafe {
            let code = *self.scales.as_ptr().add(row * self.row_group_count + block);
            let scale = _mm256_broadcast_ss(&*SCALES.as_ptr().add(usize::from(code)));
            let offset = _mm256_mul_ps(scale, _mm256_set1_ps((1 << (BITS - 1)) as f32));
            IntegerScale { scale, offset }
        }
    }

    #[inline(always)]
    unsafe fn decode(self, row: usize, column: usize, scale: IntegerScale) -> __m256 {
        // SAFETY: inside the row, says the caller.
        unsafe { weights::<BITS>(self.weights.as_ptr().add(self.start(row, column)), scale) }
    }

    #[inline(always)]
    unsafe fn decode_tail(self, row: usize, column: usize, count: usize, scale: IntegerScale) -> __m256 {
        let codes = padded(self.weights, self.start(row, column), (count * BITS).div_ceil(8));
        // SAFETY: the padded copy holds eight codes.
        unsafe { weights::<BITS>(codes.as_ptr(), scale) }
    }
}

/// Eight weights.
///
/// # Safety
/// AVX2 and FMA; `BITS` readable bytes.
#[inline(always)]
unsafe fn weights<const BITS: usize>(codes: *const u8, scale: IntegerScale) -> __m256 {
    // SAFETY: the caller has the features; each width reads its eight codes and no more.
    unsafe {
        let codes = match BITS {
            4 => {
                let all = _mm256_set1_epi32(codes.cast::<i32>().read_unaligned());
                let codes = _mm256_srlv_epi32(all, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
                _mm256_and_si256(codes, _mm256_set1_epi32(0xF))
            }
            6 => {
                // The first five codes are in bytes 0 to 3, the others in bytes 2 to 5.
                let first = _mm256_set1_epi32(codes.cast::<i32>().read_unaligned());
                let last = _mm256_set1_epi32(codes.add(2).cast::<i32>().read_unaligned());
                let both = _mm256_blend_epi32::<0b1110_0000>(first, last);
                let codes = _mm256_srlv_epi32(both, _mm256_setr_epi32(0, 6, 12, 18, 24, 14, 20, 26));
                _mm256_and_si256(codes, _mm256_set1_epi32(0x3F))
            }
            _ => _mm256_cvtepu8_epi32(_mm_loadl_epi64(codes.cast())),
        };
        _mm256_fmsub_ps(_mm256_cvtepi32_ps(codes), scale.scale, scale.offset)
    }
}
