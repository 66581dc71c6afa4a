//! Stored weights, 32 at a time, as `f32`.

use std::arch::x86_64::*;

use cachalot_numerics::{IntegerWidth, MatrixFormat, ScaleDtype, e2m1, integer};

use crate::memory::CpuMatrix;

/// Columns that are decoded at once.
pub(super) const STEP: usize = 32;

/// Which of 32 columns are in the two vectors.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The first 16, the last 16.
    Straight,
    /// The even ones, the odd ones: formats that store two weights in the bits of a lane need no shuffle for it.
    EvenOdd,
}

/// A matrix in one storage format, whose columns and columns of a scale are whole steps.
///
/// The functions are inlined into callers that have the target features, so that their instructions are available.
pub(super) trait Stored: Copy {
    /// Where columns go.
    const ORDER: Order;

    /// A scale, in the form in which decoding needs it.
    type Scale: Copy;

    /// Columns that share a scale.
    fn scale_columns(self) -> usize;

    /// The scale of scale block `block` of a row.
    ///
    /// # Safety
    /// AVX-512; `row` and `block` inside the matrix.
    unsafe fn scale(self, row: usize, block: usize) -> Self::Scale;

    /// Weights `column .. column + 32` of a row.
    ///
    /// # Safety
    /// AVX-512; `column` a multiple of [`STEP`] inside the row.
    unsafe fn decode(self, row: usize, column: usize, scale: Self::Scale) -> [__m512; 2];
}

/// A matrix in the type of its format, or nothing if no kernel can read it.
pub(super) enum AnyStored<'a> {
    F32(StoredF32<'a>),
    Bf16(StoredBf16<'a>),
    Fp8(StoredFp8<'a>),
    Fp4(StoredNibbles<'a, Fp4Table>),
    Int4(StoredNibbles<'a, Int4Table>),
    Int6(StoredInteger<'a, 6>),
    Int8(StoredInteger<'a, 8>),
}

impl<'a> AnyStored<'a> {
    pub fn new(matrix: &'a CpuMatrix) -> Option<Self> {
        let (weights, scales, columns): (&[u8], &[u8], _) = (&matrix.weights, &matrix.scales, matrix.columns);
        if !columns.is_multiple_of(STEP) {
            return None;
        }
        match matrix.format {
            MatrixFormat::F32 => Some(AnyStored::F32(StoredF32 { weights, columns })),
            MatrixFormat::Bf16 => Some(AnyStored::Bf16(StoredBf16 { weights, columns })),
            MatrixFormat::Fp8Block {
                rows,
                columns: block_columns,
                scale,
            } if block_columns.is_multiple_of(STEP) => Some(AnyStored::Fp8(StoredFp8 {
                weights,
                scales,
                scale,
                columns,
                block_rows: rows,
                block_columns,
                row_block_count: columns.div_ceil(block_columns),
            })),
            MatrixFormat::Fp4Group { group } if group.is_multiple_of(STEP) => {
                Some(AnyStored::Fp4(StoredNibbles::new(matrix, group)))
            }
            MatrixFormat::Integer(width) => Some(match width {
                IntegerWidth::Int4 => AnyStored::Int4(StoredNibbles::new(matrix, integer::GROUP)),
                IntegerWidth::Int6 => AnyStored::Int6(StoredInteger {
                    weights,
                    scales,
                    columns,
                }),
                IntegerWidth::Int8 => AnyStored::Int8(StoredInteger {
                    weights,
                    scales,
                    columns,
                }),
            }),
            _ => None,
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct StoredF32<'a> {
    weights: &'a [u8],
    columns: usize,
}

impl Stored for StoredF32<'_> {
    const ORDER: Order = Order::Straight;
    type Scale = ();

    #[inline(always)]
    fn scale_columns(self) -> usize {
        usize::MAX / STEP * STEP
    }

    #[inline(always)]
    unsafe fn scale(self, _row: usize, _block: usize) {}

    #[inline(always)]
    unsafe fn decode(self, row: usize, column: usize, (): ()) -> [__m512; 2] {
        // SAFETY: 32 values inside the row, says the caller.
        unsafe {
            let weights: *const f32 = self.weights.as_ptr().add(4 * (row * self.columns + column)).cast();
            [_mm512_loadu_ps(weights), _mm512_loadu_ps(weights.add(16))]
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct StoredBf16<'a> {
    weights: &'a [u8],
    columns: usize,
}

impl Stored for StoredBf16<'_> {
    const ORDER: Order = Order::EvenOdd;
    type Scale = ();

    #[inline(always)]
    fn scale_columns(self) -> usize {
        usize::MAX / STEP * STEP
    }

    #[inline(always)]
    unsafe fn scale(self, _row: usize, _block: usize) {}

    #[inline(always)]
    unsafe fn decode(self, row: usize, column: usize, (): ()) -> [__m512; 2] {
        // SAFETY: 64 bytes inside the row, says the caller.
        unsafe {
            let codes = _mm512_loadu_si512(self.weights.as_ptr().add(2 * (row * self.columns + column)).cast());
            let odd = _mm512_and_si512(codes, _mm512_set1_epi32(0xFFFF_0000_u32 as i32));
            [
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(codes)),
                _mm512_castsi512_ps(odd),
            ]
        }
    }
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

impl Stored for StoredFp8<'_> {
    const ORDER: Order = Order::Straight;
    /// 256 times the scale, for codes 2^-8 times their value.
    type Scale = __m512;

    #[inline(always)]
    fn scale_columns(self) -> usize {
        self.block_columns
    }

    #[inline(always)]
    unsafe fn scale(self, row: usize, block: usize) -> __m512 {
        let index = row / self.block_rows * self.row_block_count + block;
        let scale = self.scale.decode(self.scales, index);
        // SAFETY: the caller has AVX-512. Scales up to 2^119 stay finite; larger ones would overflow in use.
        unsafe { _mm512_set1_ps(scale * 256.0) }
    }

    /// An e4m3 code moved into the bits of an f16 is the same number with the exponent's bias off by 8, subnormal or
    /// not. The two NaN codes would become numbers; a matrix that holds one is refused when it is first used.
    #[inline(always)]
    unsafe fn decode(self, row: usize, column: usize, scale: __m512) -> [__m512; 2] {
        // SAFETY: 32 bytes inside the row, says the caller.
        unsafe {
            let codes = _mm256_loadu_si256(self.weights.as_ptr().add(row * self.columns + column).cast());
            let halves = _mm512_slli_epi16::<7>(_mm512_cvtepi8_epi16(codes));
            // Extension copied the sign over bit 8 and up: bit 14 has it too and loses it here.
            let halves = _mm512_and_si512(halves, _mm512_set1_epi16(0xBFFF_u16 as i16));
            let [low, high] = [_mm512_castsi512_si256(halves), _mm512_extracti64x4_epi64::<1>(halves)];
            [
                _mm512_mul_ps(_mm512_cvtph_ps(low), scale),
                _mm512_mul_ps(_mm512_cvtph_ps(high), scale),
            ]
        }
    }
}

/// The 16 values of codes of four bits with a scale.
pub(super) trait Table: Copy {
    /// # Safety
    /// AVX-512.
    unsafe fn values(scale_code: u8) -> __m512;
}

#[derive(Clone, Copy)]
pub(super) struct Fp4Table;

/// The values of e2m1 codes.
static FP4_VALUES: [f32; 16] = {
    let mut values = [0.0; 16];
    let mut code = 0;
    while code < 8 {
        values[code] = e2m1::VALUES[code];
        values[code + 8] = -e2m1::VALUES[code];
        code += 1;
    }
    values
};

impl Table for Fp4Table {
    #[inline(always)]
    unsafe fn values(scale_code: u8) -> __m512 {
        // SAFETY: the table has 16 values.
        unsafe {
            let exponent = _mm512_slli_epi32::<23>(_mm512_set1_epi32(i32::from(scale_code)));
            // Code 0 is the subnormal 2^-127, whose bits are larger than those of any smaller exponent field.
            let scale = _mm512_castsi512_ps(_mm512_max_epi32(exponent, _mm512_set1_epi32(1 << 22)));
            _mm512_mul_ps(_mm512_loadu_ps(FP4_VALUES.as_ptr()), scale)
        }
    }
}

/// The values of all scale bytes of integers: a load instead of four operations.
static INTEGER_SCALES: [f32; 256] = {
    let mut scales = [0.0; 256];
    let mut code = 0;
    while code < scales.len() {
        scales[code] = integer::decode_scale(code as u8);
        code += 1;
    }
    scales
};

#[derive(Clone, Copy)]
pub(super) struct Int4Table;

impl Table for Int4Table {
    #[inline(always)]
    unsafe fn values(scale_code: u8) -> __m512 {
        // SAFETY: the caller has AVX-512. Products are exact.
        unsafe {
            let codes = _mm512_setr_ps(
                -8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0,
            );
            _mm512_mul_ps(codes, _mm512_set1_ps(INTEGER_SCALES[usize::from(scale_code)]))
        }
    }
}

/// Codes of four bits, two a byte, the lower bits first.
#[derive(Clone, Copy)]
pub(super) struct StoredNibbles<'a, T> {
    weights: &'a [u8],
    scales: &'a [u8],
    columns: usize,
    group: usize,
    row_group_count: usize,
    table: std::marker::PhantomData<T>,
}

impl<'a, T> StoredNibbles<'a, T> {
    fn new(matrix: &'a CpuMatrix, group: usize) -> Self {
        StoredNibbles {
            weights: &matrix.weights,
            scales: &matrix.scales,
            columns: matrix.columns,
            group,
            row_group_count: matrix.columns.div_ceil(group),
            table: std::marker::PhantomData,
        }
    }
}

impl<T: Table> Stored for StoredNibbles<'_, T> {
    const ORDER: Order = Order::EvenOdd;
    /// The values of all codes.
    type Scale = __m512;

    #[inline(always)]
    fn scale_columns(self) -> usize {
        self.group
    }

    #[inline(always)]
    unsafe fn scale(self, row: usize, block: usize) -> __m512 {
        // SAFETY: inside the matrix, says the caller.
        unsafe { T::values(*self.scales.as_ptr().add(row * self.row_group_count + block)) }
    }

    #[inline(always)]
    unsafe fn decode(self, row: usize, column: usize, values: __m512) -> [__m512; 2] {
        // SAFETY: 16 bytes inside the row, says the caller.
        unsafe {
            let codes = self.weights.as_ptr().add((row * self.columns + column) / 2);
            let codes = _mm512_cvtepu8_epi32(_mm_loadu_si128(codes.cast()));
            // The permutation looks at the low four bits of a lane.
            [
                _mm512_permutexvar_ps(codes, values),
                _mm512_permutexvar_ps(_mm512_srli_epi32::<4>(codes), values),
            ]
        }
    }
}

/// Codes of 6 or 8 bits.
#[derive(Clone, Copy)]
pub(super) struct StoredInteger<'a, const BITS: usize> {
    weights: &'a [u8],
    scales: &'a [u8],
    columns: usize,
}

/// `(code - offset) * scale` is `code * scale - offset * scale`: one exact operation.
#[derive(Clone, Copy)]
pub(super) struct IntegerScale {
    scale: __m512,
    offset: __m512,
}

impl<const BITS: usize> Stored for StoredInteger<'_, BITS> {
    const ORDER: Order = Order::Straight;
    type Scale = IntegerScale;

    #[inline(always)]
    fn scale_columns(self) -> usize {
        integer::GROUP
    }

    #[inline(always)]
    unsafe fn scale(self, row: usize, block: usize) -> IntegerScale {
        // SAFETY: the caller has AVX-512, and the block is inside the matrix; any byte is an index of the table.
        unsafe {
            let code = *self.scales.as_ptr().add(row * (self.columns / integer::GROUP) + block);
            let scale = *INTEGER_SCALES.as_ptr().add(usize::from(code));
            IntegerScale {
                scale: _mm512_set1_ps(scale),
                offset: _mm512_set1_ps(scale * (1 << (BITS - 1)) as f32),
            }
        }
    }

    #[inline(always)]
    unsafe fn decode(self, row: usize, column: usize, scale: IntegerScale) -> [__m512; 2] {
        // SAFETY: the bytes of 32 codes are inside the row, says the caller; masked lanes are not read.
        unsafe {
            let codes = self.weights.as_ptr().add((row * self.columns + column) / 8 * BITS);
            let [low, high] = if BITS == 6 {
                six_bits(_mm256_maskz_loadu_epi32(0b11_1111, codes.cast()))
            } else {
                let codes: *const __m128i = codes.cast();
                [
                    _mm512_cvtepu8_epi32(_mm_loadu_si128(codes)),
                    _mm512_cvtepu8_epi32(_mm_loadu_si128(codes.add(1))),
                ]
            };
            [
                _mm512_fmsub_ps(_mm512_cvtepi32_ps(low), scale.scale, scale.offset),
                _mm512_fmsub_ps(_mm512_cvtepi32_ps(high), scale.scale, scale.offset),
            ]
        }
    }
}

/// For each of 16 lanes the two 16-bit words that hold its six bits, from word `6 * first / 16` on.
static SIX_BIT_WORDS: [[u16; 32]; 2] = [six_bit_words(0), six_bit_words(16)];

const fn six_bit_words(first: usize) -> [u16; 32] {
    let mut words = [0; 32];
    let mut lane = 0;
    while lane < 16 {
        let word = (6 * (first + lane) / 16) as u16;
        words[2 * lane] = word;
        words[2 * lane + 1] = word + 1;
        lane += 1;
    }
    words
}

/// 32 codes of six bits in 24 bytes, one a lane.
///
/// # Safety
/// AVX-512.
#[inline(always)]
unsafe fn six_bits(codes: __m256i) -> [__m512i; 2] {
    // SAFETY: the caller has AVX-512; the tables are whole vectors.
    unsafe {
        let codes = _mm512_castsi256_si512(codes);
        // Both halves start at whole words, so their codes have the same places within words.
        let shifts = _mm512_setr_epi32(0, 6, 12, 2, 8, 14, 4, 10, 0, 6, 12, 2, 8, 14, 4, 10);
        let mask = _mm512_set1_epi32(0x3F);
        let words = SIX_BIT_WORDS.as_ptr();
        let [low, high] = [
            _mm512_permutexvar_epi16(_mm512_loadu_si512(words.cast()), codes),
            _mm512_permutexvar_epi16(_mm512_loadu_si512(words.add(1).cast()), codes),
        ];
        [
            _mm512_and_si512(_mm512_srlv_epi32(low, shifts), mask),
            _mm512_and_si512(_mm512_srlv_epi32(high, shifts), mask),
        ]
    }
}
