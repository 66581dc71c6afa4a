//! Stored weights, eight at a time, as `f32`.

use std::arch::x86_64::*;

use cachalot_numerics::{IntegerWidth, MatrixFormat, ScaleDtype, e2m1};

use super::stored_integer::StoredInteger;
use crate::memory::CpuMatrix;

/// Columns that are decoded at once.
pub(super) const LANES: usize = 8;

/// A matrix in one storage format.
///
/// The functions are inlined into callers that have the target features, so that their instructions are available.
pub(super) trait Stored: Copy {
    /// A scale, in the form in which decoding needs it.
    type Scale: Copy;

    /// Columns that share a scale: a multiple of [`LANES`].
    fn scale_columns(self) -> usize;

    /// The scale of scale block `block` of a row.
    ///
    /// # Safety
    /// AVX2, FMA and F16C; `row` and `block` inside the matrix.
    unsafe fn scale(self, row: usize, block: usize) -> Self::Scale;

    /// Weights `column .. column + 8` of a row.
    ///
    /// # Safety
    /// AVX2, FMA and F16C; `column` a multiple of [`LANES`] and all eight inside the row.
    unsafe fn decode(self, row: usize, column: usize, scale: Self::Scale) -> __m256;

    /// Weights `column .. column + count` of a row, then anything finite.
    ///
    /// # Safety
    /// As [`Stored::decode`] for `count < 8` columns.
    unsafe fn decode_tail(self, row: usize, column: usize, count: usize, scale: Self::Scale) -> __m256;
}

#[derive(Clone, Copy)]
pub(super) struct StoredF32<'a> {
    weights: &'a [u8],
    columns: usize,
}

#[derive(Clone, Copy)]
pub(super) struct StoredBf16<'a> {
    weights: &'a [u8],
    columns: usize,
}

#[derive(Clone, Copy)]
pub(super) struct StoredFp8<'a> {
    weights: &'a [u8],
    scales: &'a [u8],
    scale: ScaleDtype,
    columns: usize,
    block_rows: usize,
    block_columns: usize,
    row_block_count: usize,
}

#[derive(Clone, Copy)]
pub(super) struct StoredFp4<'a> {
    weights: &'a [u8],
    scales: &'a [u8],
    row_byte_count: usize,
    group: usize,
    row_group_count: usize,
}

/// A matrix in the type of its format, or nothing if no kernel can read it.
pub(super) enum AnyStored<'a> {
    F32(StoredF32<'a>),
    Bf16(StoredBf16<'a>),
    Fp8(StoredFp8<'a>),
    Fp4(StoredFp4<'a>),
    Int4(StoredInteger<'a, 4>),
    Int6(StoredInteger<'a, 6>),
    Int8(StoredInteger<'a, 8>),
}

impl<'a> AnyStored<'a> {
    pub fn new(matrix: &'a CpuMatrix) -> Option<Self> {
        let (weights, scales, columns): (&[u8], &[u8], _) = (&matrix.weights, &matrix.scales, matrix.columns);
        match matrix.format {
            MatrixFormat::F32 => Some(AnyStored::F32(StoredF32 { weights, columns })),
            MatrixFormat::Bf16 => Some(AnyStored::Bf16(StoredBf16 { weights, columns })),
            MatrixFormat::Fp8Block {
                rows,
                columns: block_columns,
                scale,
            } if block_columns.is_multiple_of(LANES) => Some(AnyStored::Fp8(StoredFp8 {
                weights,
                scales,
                scale,
                columns,
                block_rows: rows,
                block_columns,
                row_block_count: columns.div_ceil(block_columns),
            })),
            MatrixFormat::Fp4Group { group } if group.is_multiple_of(LANES) => Some(AnyStored::Fp4(StoredFp4 {
                weights,
                scales,
                row_byte_count: columns.div_ceil(2),
                group,
                row_group_count: columns.div_ceil(group),
            })),
            MatrixFormat::Integer(width) => Some(match width {
                IntegerWidth::Int4 => AnyStored::Int4(StoredInteger::new(matrix)),
                IntegerWidth::Int6 => AnyStored::Int6(StoredInteger::new(matrix)),
                IntegerWidth::Int8 => AnyStored::Int8(StoredInteger::new(matrix)),
            }),
            _ => None,
        }
    }
}

impl Stored for StoredF32<'_> {
    type Scale = ();

    #[inline(always)]
    fn scale_columns(self) -> usize {
        usize::MAX / LANES * LANES
    }

    #[inline(always)]
    unsafe fn scale(self, _row: usize, _block: usize) {}

    #[inline(always)]
    unsafe fn decode(self, row: usize, column: usize, (): ()) -> __m256 {
        // SAFETY: inside the row, says the caller.
        unsafe { _mm256_loadu_ps(self.weights.as_ptr().add(4 * (row * self.columns + column)).cast()) }
    }

    #[inline(always)]
    unsafe fn decode_tail(self, row: usize, column: usize, count: usize, (): ()) -> __m256 {
        // SAFETY: masked lanes are not read; the others are inside the row.
        unsafe {
            load_partial(
                self.weights.as_ptr().add(4 * (row * self.columns + column)).cast(),
                count,
            )
        }
    }
}

impl Stored for StoredBf16<'_> {
    type Scale = ();

    #[inline(always)]
    fn scale_columns(self) -> usize {
        usize::MAX / LANES * LANES
    }

    #[inline(always)]
    unsafe fn scale(self, _row: usize, _block: usize) {}

    #[inline(always)]
    unsafe fn decode(self, row: usize, column: usize, (): ()) -> __m256 {
        // SAFETY: inside the row, says the caller.
        unsafe { decode_bf16(self.weights.as_ptr().add(2 * (row * self.columns + column))) }
    }

    #[inline(always)]
    unsafe fn decode_tail(self, row: usize, column: usize, count: usize, (): ()) -> __m256 {
        let codes = padded(self.weights, 2 * (row * self.columns + column), 2 * count);
        // SAFETY: the padded copy holds eight codes.
        unsafe { decode_bf16(codes.as_ptr()) }
    }
}

impl Stored for StoredFp8<'_> {
    type Scale = __m256;

    #[inline(always)]
    fn scale_columns(self) -> usize {
        self.block_columns
    }

    #[inline(always)]
    unsafe fn scale(self, row: usize, block: usize) -> __m256 {
        let scale = self
            .scale
            .decode(self.scales, row / self.block_rows * self.row_block_count + block);
        // SAFETY: the caller has the features.
        unsafe { fp8_factor(scale) }
    }

    #[inline(always)]
    unsafe fn decode(self, row: usize, column: usize, scale: __m256) -> __m256 {
        // SAFETY: inside the row, says the caller.
        unsafe {
            _mm256_mul_ps(
                decode_fp8(self.weights.as_ptr().add(row * self.columns + column)),
                scale,
            )
        }
    }

    #[inline(always)]
    unsafe fn decode_tail(self, row: usize, column: usize, count: usize, scale: __m256) -> __m256 {
        let codes = padded(self.weights, row * self.columns + column, count);
        // SAFETY: the padded copy holds eight codes.
        unsafe { _mm256_mul_ps(decode_fp8(codes.as_ptr()), scale) }
    }
}

impl Stored for StoredFp4<'_> {
    /// The magnitudes of the eight codes times the scale.
    type Scale = __m256;

    #[inline(always)]
    fn scale_columns(self) -> usize {
        self.group
    }

    #[inline(always)]
    unsafe fn scale(self, row: usize, block: usize) -> __m256 {
        // SAFETY: the caller has the features, and the block is inside the matrix.
        unsafe { fp4_magnitudes(*self.scales.as_ptr().add(row * self.row_group_count + block)) }
    }

    #[inline(always)]
    unsafe fn decode(self, row: usize, column: usize, scale: __m256) -> __m256 {
        // SAFETY: inside the row, says the caller.
        unsafe { decode_fp4(self.weights.as_ptr().add(row * self.row_byte_count + column / 2), scale) }
    }

    #[inline(always)]
    unsafe fn decode_tail(self, row: usize, column: usize, count: usize, scale: __m256) -> __m256 {
        let codes = padded(self.weights, row * self.row_byte_count + column / 2, count.div_ceil(2));
        // SAFETY: the padded copy holds eight codes.
        unsafe { decode_fp4(codes.as_ptr(), scale) }
    }
}

/// Up to 16 bytes from `start`, then zeros.
#[inline(always)]
pub(super) fn padded(bytes: &[u8], start: usize, count: usize) -> [u8; 16] {
    let mut out = [0; 16];
    out[..count].copy_from_slice(&bytes[start..start + count]);
    out
}

/// The first `count` of eight values, then zeros.
///
/// # Safety
/// AVX2; `count` readable values at `values`.
#[inline(always)]
pub(super) unsafe fn load_partial(values: *const f32, count: usize) -> __m256 {
    // SAFETY: masked lanes are not read.
    unsafe {
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_maskload_ps(values, _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), lanes))
    }
}

/// # Safety
/// AVX2; 16 readable bytes.
#[inline(always)]
pub(super) unsafe fn decode_bf16(codes: *const u8) -> __m256 {
    // SAFETY: 16 bytes, says the caller.
    unsafe {
        let codes = _mm256_cvtepu16_epi32(_mm_loadu_si128(codes.cast()));
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(codes))
    }
}

/// What [`decode_fp8`] has to be multiplied by for codes with `scale`.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub(super) unsafe fn fp8_factor(scale: f32) -> __m256 {
    // SAFETY: the caller has the features. Scales up to 2^119 stay finite here; larger ones would overflow in use.
    unsafe { _mm256_set1_ps(scale * 256.0) }
}

/// Eight e4m3 codes times 2^-8.
///
/// An e4m3 code moved into the bits of an f16 is the same number with the exponent's bias off by 8, subnormal or not.
/// The two NaN codes would become ±480 before scaling; a matrix that holds one is refused when it is first used.
///
/// # Safety
/// AVX2 and F16C; 8 readable bytes.
#[inline(always)]
pub(super) unsafe fn decode_fp8(codes: *const u8) -> __m256 {
    // SAFETY: 8 bytes, says the caller.
    unsafe {
        let codes = _mm_cvtepi8_epi16(_mm_loadl_epi64(codes.cast()));
        // Extension copied the sign over bit 8 and up; the shift leaves it in bits 15 and 14, the second of which goes.
        let halves = _mm_and_si128(_mm_slli_epi16::<7>(codes), _mm_set1_epi16(0xBFFFu16 as i16));
        _mm256_cvtph_ps(halves)
    }
}

/// The magnitudes of the e2m1 codes 0 to 7 times the scale of an E8M0 code that is not NaN.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub(super) unsafe fn fp4_magnitudes(scale_code: u8) -> __m256 {
    // SAFETY: the table has eight values.
    unsafe {
        let exponent = _mm256_slli_epi32::<23>(_mm256_set1_epi32(i32::from(scale_code)));
        // Code 0 is the subnormal 2^-127, whose bits are larger than those of any smaller exponent field.
        let scale = _mm256_castsi256_ps(_mm256_max_epi32(exponent, _mm256_set1_epi32(1 << 22)));
        _mm256_mul_ps(_mm256_loadu_ps(e2m1::VALUES.as_ptr()), scale)
    }
}

/// Eight packed e2m1 codes as entries of `magnitudes` with their signs.
///
/// # Safety
/// AVX2; 4 readable bytes.
#[inline(always)]
pub(super) unsafe fn decode_fp4(codes: *const u8, magnitudes: __m256) -> __m256 {
    // SAFETY: 4 bytes, says the caller.
    unsafe {
        let codes = _mm256_set1_epi32(codes.cast::<i32>().read_unaligned());
        // Lane i holds nibble i: in its low bits for the look-up, in its high bits for the sign.
        let low = _mm256_srlv_epi32(codes, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
        let high = _mm256_sllv_epi32(codes, _mm256_setr_epi32(28, 24, 20, 16, 12, 8, 4, 0));
        let sign = _mm256_and_ps(_mm256_castsi256_ps(high), _mm256_set1_ps(-0.0));
        _mm256_xor_ps(_mm256_permutevar8x32_ps(magnitudes, low), sign)
    }
}
