//! Stored weights as bf16 tiles: 16 weight rows of 32 columns, the left operand of the tile unit in its natural layout.
//!
//! Decoding is exact: e2m1 and e4m3 have fewer bits than bf16, scales are powers of two, and matrices whose scales
//! could leave the range of bf16 take other kernels. What it costs in cycles for 32 weights, estimated from the number of
//! instructions and two vector ports (measured: docs/performance.md):
//!
//! | format | instructions | cycles, estimated | memory's cycles at 13 GB/s and 3 GHz |
//! | --- | --- | --- | --- |
//! | FP4 | shift (of three in four), permute, subtract | 1.5 | 3.9 |
//! | FP8 | widen, shift, and, add, test, permute, or | 3.5 | 7.3 |
//! | BF16 | copy | 0 | 14.7 |

#![expect(
    clippy::needless_range_loop,
    reason = "closures of adaptors are not reliably inlined with target features"
)]

use std::{arch::x86_64::*, ops::Range};

use cachalot_numerics::{MatrixFormat, ScaleDtype};

use super::tile::{ROW_BYTE_COUNT, ROW_COUNT};
use crate::memory::CpuMatrix;

/// Columns of a tile.
pub(super) const TILE_COLUMN_COUNT: usize = 32;
/// Bytes of a tile of weights.
pub(super) const TILE_BYTE_COUNT: usize = ROW_COUNT * ROW_BYTE_COUNT;
/// Tiles of columns that are decoded together.
pub(super) const CHUNK_TILE_COUNT: usize = 4;
/// Columns that are decoded together.
pub(super) const CHUNK_COLUMN_COUNT: usize = CHUNK_TILE_COUNT * TILE_COLUMN_COUNT;
/// Rows that are decoded together into tiles of two times 16 rows.
pub(super) const PAIR_ROW_COUNT: usize = 2 * ROW_COUNT;

/// Which columns of a chunk make a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Columns `32 i .. 32 i + 32` make tile `i`.
    Straight,
    /// Columns `4 j + i` make tile `i`: the nibbles at one place of all 16-bit words.
    Planes,
}

/// Rows of a matrix that fill a pair of tiles. Behind the last one it repeats: nobody reads those sums.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub first: usize,
    pub count: usize,
}

impl Rows {
    /// Row `index` of the pair.
    #[inline(always)]
    fn get(self, index: usize) -> usize {
        self.first + index.min(self.count - 1)
    }
}

/// Decodes stored rows into tiles.
pub(super) trait Weights: Copy {
    /// The order of columns in the tiles.
    const ORDER: Order;

    /// Decodes the columns of a chunk, zeros behind the last, of some of the 32 rows of a pair: tile by tile, each 32
    /// rows of 64 bytes.
    ///
    /// # Safety
    /// AVX-512; the rows and the start of the chunk are inside the matrix; `out` is aligned to 64 bytes and has room for
    /// four times two tiles.
    unsafe fn decode(self, rows: Rows, part: Range<usize>, chunk: usize, out: *mut u8);

    /// Where the codes of the first row of `rows` start, and the distance of rows, if they are tiles as they are stored.
    fn stored_tiles(self, _rows: Rows) -> Option<(*const u8, usize)> {
        None
    }

    /// Asks for the codes of a chunk of a row, which may be any address.
    fn prefetch(self, row: usize, chunk: usize);
}

/// Asks for the lines of `byte_count` bytes at a place, for the second-level cache.
#[inline(always)]
fn prefetch_lines(codes: &[u8], start: usize, byte_count: usize) {
    for offset in (0..byte_count).step_by(64) {
        // SAFETY: a hint that may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(codes.as_ptr().wrapping_add(start + offset).cast()) };
    }
}

/// A matrix in the type of its format, or nothing if the tile unit cannot take it.
pub(super) enum AnyWeights<'a> {
    Bf16(Bf16<'a>),
    Fp8(Fp8<'a>),
    Fp4(Fp4<'a>),
}

impl<'a> AnyWeights<'a> {
    pub fn new(matrix: &'a CpuMatrix) -> Option<Self> {
        let columns = matrix.columns;
        let (codes, scales): (&[u8], &[u8]) = (&matrix.weights, &matrix.scales);
        match matrix.format {
            MatrixFormat::Bf16 => Some(AnyWeights::Bf16(Bf16 { codes, columns })),
            MatrixFormat::Fp8Block {
                rows: block_rows,
                columns: block_columns,
                scale: ScaleDtype::E8m0,
            } if block_columns.is_multiple_of(TILE_COLUMN_COUNT) && matrix.has_moderate_scales() => {
                Some(AnyWeights::Fp8(Fp8 {
                    codes,
                    scales,
                    columns,
                    block_rows,
                    block_tiles: block_columns / TILE_COLUMN_COUNT,
                    row_block_count: columns.div_ceil(block_columns),
                }))
            }
            MatrixFormat::Fp4Group {
                group: TILE_COLUMN_COUNT,
            } if matrix.has_moderate_scales() => Some(AnyWeights::Fp4(Fp4 {
                codes,
                scales,
                columns,
                row_byte_count: columns.div_ceil(2),
                row_group_count: columns.div_ceil(TILE_COLUMN_COUNT),
            })),
            _ => None,
        }
    }

    /// The order of columns in the tiles.
    pub fn order(&self) -> Order {
        match self {
            AnyWeights::Bf16(_) => Bf16::ORDER,
            AnyWeights::Fp8(_) => Fp8::ORDER,
            AnyWeights::Fp4(_) => Fp4::ORDER,
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Bf16<'a> {
    codes: &'a [u8],
    columns: usize,
}

impl Weights for Bf16<'_> {
    const ORDER: Order = Order::Straight;

    #[inline(always)]
    fn stored_tiles(self, rows: Rows) -> Option<(*const u8, usize)> {
        let stride = 2 * self.columns;
        let is_whole = rows.count == PAIR_ROW_COUNT && self.columns.is_multiple_of(CHUNK_COLUMN_COUNT);
        is_whole.then(|| (self.codes[rows.first * stride..].as_ptr(), stride))
    }

    #[inline(always)]
    fn prefetch(self, row: usize, chunk: usize) {
        let start = 2 * (row * self.columns + chunk * CHUNK_COLUMN_COUNT);
        prefetch_lines(self.codes, start, 2 * CHUNK_COLUMN_COUNT);
    }

    #[inline(always)]
    unsafe fn decode(self, rows: Rows, part: Range<usize>, chunk: usize, out: *mut u8) {
        let column = chunk * CHUNK_COLUMN_COUNT;
        let left = self.columns - column;
        for index in part {
            // SAFETY: inside the row and `out`, says the caller; masked lanes are not read.
            unsafe {
                let codes = self.codes.as_ptr().add(2 * (rows.get(index) * self.columns + column));
                let out = out.add(ROW_BYTE_COUNT * index);
                for i in 0..CHUNK_TILE_COUNT {
                    let codes: *const i16 = codes.wrapping_add(ROW_BYTE_COUNT * i).cast();
                    let weights = if left >= CHUNK_COLUMN_COUNT {
                        _mm512_loadu_si512(codes.cast())
                    } else {
                        _mm512_maskz_loadu_epi16(first_lanes(left.saturating_sub(TILE_COLUMN_COUNT * i)), codes)
                    };
                    _mm512_store_si512(out.add(2 * TILE_BYTE_COUNT * i).cast(), weights);
                }
            }
        }
    }
}

/// A mask of the first `count` of 32 lanes.
#[inline(always)]
fn first_lanes(count: usize) -> u32 {
    if count >= 32 { u32::MAX } else { (1 << count) - 1 }
}

#[derive(Clone, Copy)]
pub(super) struct Fp8<'a> {
    codes: &'a [u8],
    scales: &'a [u8],
    columns: usize,
    block_rows: usize,
    block_tiles: usize,
    row_block_count: usize,
}

/// The e4m3 codes 0 to 7, multiples of 2^-9, as bf16.
const SUBNORMAL_CODES: [i16; 8] = [0, 0x3B00, 0x3B80, 0x3BC0, 0x3C00, 0x3C20, 0x3C40, 0x3C60];

/// What a scale adds to bf16 codes, and the eight smallest magnitudes times the scale.
#[derive(Clone, Copy)]
struct Fp8Scale {
    exponent: __m512i,
    subnormal: __m512i,
}

impl Fp8<'_> {
    /// # Safety
    /// AVX-512.
    #[inline(always)]
    unsafe fn scale(self, block_row: usize, block: usize) -> Fp8Scale {
        let code = i16::from(self.scales[block_row * self.row_block_count + block]);
        // SAFETY: the caller has AVX-512.
        unsafe {
            let magnitudes = _mm512_broadcast_i32x4(_mm_loadu_si128(SUBNORMAL_CODES.as_ptr().cast()));
            Fp8Scale {
                // e4m3 counts its exponent from 7, bf16 from 127, as the scale does.
                exponent: _mm512_set1_epi16((code - 7) << 7),
                // Zero has no exponent to raise.
                subnormal: _mm512_mask_add_epi16(
                    magnitudes,
                    _mm512_test_epi16_mask(magnitudes, magnitudes),
                    magnitudes,
                    _mm512_set1_epi16((code - 127) << 7),
                ),
            }
        }
    }

    /// 32 codes as bf16.
    ///
    /// # Safety
    /// AVX-512.
    #[inline(always)]
    unsafe fn bf16(codes: __m256i, scale: Fp8Scale) -> __m512i {
        // SAFETY: the caller has AVX-512.
        unsafe {
            let codes = _mm512_cvtepi8_epi16(codes);
            let magnitudes = _mm512_and_si512(_mm512_slli_epi16::<4>(codes), _mm512_set1_epi16(0x7F0));
            let normal = _mm512_add_epi16(magnitudes, scale.exponent);
            let is_subnormal = _mm512_testn_epi16_mask(codes, _mm512_set1_epi16(0x78));
            // The permutation looks at the low five bits, of which subnormal codes have three.
            let magnitudes = _mm512_mask_permutexvar_epi16(normal, is_subnormal, codes, scale.subnormal);
            _mm512_ternarylogic_epi32::<0xF8>(magnitudes, codes, _mm512_set1_epi16(i16::MIN))
        }
    }

    /// Rows of one block row; `scales` are those of the four tiles.
    ///
    /// # Safety
    /// As [`Weights::decode`].
    #[inline(always)]
    unsafe fn decode_rows(self, rows: Rows, part: Range<usize>, chunk: usize, scales: [Fp8Scale; 4], out: *mut u8) {
        let column = chunk * CHUNK_COLUMN_COUNT;
        let left = self.columns - column;
        for index in part {
            // SAFETY: inside the row and `out`, says the caller; masked lanes are not read.
            unsafe {
                let codes = self.codes.as_ptr().add(rows.get(index) * self.columns + column);
                let out = out.add(ROW_BYTE_COUNT * index);
                for i in 0..CHUNK_TILE_COUNT {
                    let codes = codes.wrapping_add(TILE_COLUMN_COUNT * i);
                    let codes = if left >= CHUNK_COLUMN_COUNT {
                        _mm256_loadu_si256(codes.cast())
                    } else {
                        _mm256_maskz_loadu_epi8(first_lanes(left.saturating_sub(TILE_COLUMN_COUNT * i)), codes.cast())
                    };
                    _mm512_store_si512(out.add(2 * TILE_BYTE_COUNT * i).cast(), Self::bf16(codes, scales[i]));
                }
            }
        }
    }
}

impl Weights for Fp8<'_> {
    const ORDER: Order = Order::Straight;

    #[inline(always)]
    fn prefetch(self, row: usize, chunk: usize) {
        let start = row * self.columns + chunk * CHUNK_COLUMN_COUNT;
        prefetch_lines(self.codes, start, CHUNK_COLUMN_COUNT);
    }

    #[inline(always)]
    unsafe fn decode(self, rows: Rows, part: Range<usize>, chunk: usize, out: *mut u8) {
        let tile = chunk * CHUNK_TILE_COUNT;
        let first_block = tile / self.block_tiles;
        let last_block = ((tile + CHUNK_TILE_COUNT - 1) / self.block_tiles).min(self.row_block_count - 1);
        let mut start = part.start;
        while start < part.end {
            let block_row = rows.get(start) / self.block_rows;
            let left = (block_row + 1) * self.block_rows - rows.get(start);
            let mut end = part.end.min(start + left);
            if rows.get(part.end - 1) / self.block_rows == block_row {
                end = part.end;
            }
            // SAFETY: as the caller promises.
            unsafe {
                let mut scales = [self.scale(block_row, first_block); CHUNK_TILE_COUNT];
                if last_block == first_block {
                    self.decode_rows(rows, start..end, chunk, scales, out);
                } else {
                    for (i, scale) in scales.iter_mut().enumerate() {
                        *scale = self.scale(block_row, ((tile + i) / self.block_tiles).min(last_block));
                    }
                    self.decode_rows(rows, start..end, chunk, scales, out);
                }
            }
            start = end;
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Fp4<'a> {
    codes: &'a [u8],
    scales: &'a [u8],
    columns: usize,
    row_byte_count: usize,
    row_group_count: usize,
}

/// Scale of [`LARGEST_FP4`]; no moderate scale is larger.
const LARGEST_SCALE_CODE: i16 = 127 + 64;

/// The 16 values of e2m1 times the largest scale as bf16, twice. Minus zero is zero here: a subtraction that stops at zero
/// lowers the exponents of all others and leaves it as it is.
static LARGEST_FP4: [u16; 32] = {
    // 0.5, 1, 1.5, 2, 3, 4, 6 as exponents and leading bits.
    const MAGNITUDES: [u16; 8] = [0, 0x3F00, 0x3F80, 0x3FC0, 0x4000, 0x4040, 0x4080, 0x40C0];
    let mut values = [0; 32];
    let mut code = 0;
    while code < 32 {
        let magnitude = MAGNITUDES[code % 8];
        if magnitude > 0 {
            let sign = if code % 16 >= 8 { 0x8000 } else { 0 };
            values[code] = sign | (magnitude + (64 << 7));
        }
        code += 1;
    }
    values
};

impl Fp4<'_> {
    /// 64 bytes of codes and the scales of their four groups.
    ///
    /// # Safety
    /// AVX-512.
    #[inline(always)]
    unsafe fn bf16(codes: __m512i, scales: u32) -> [__m512i; CHUNK_TILE_COUNT] {
        // SAFETY: the caller has AVX-512; the table has 32 entries.
        unsafe {
            let values = _mm512_loadu_si512(LARGEST_FP4.as_ptr().cast());
            // Four columns a word, so a group is eight words: byte i of the scales into the words of group i.
            let spread = _mm512_inserti64x4::<1>(
                _mm512_castsi256_si512(_mm256_setr_m128i(_mm_setzero_si128(), _mm_set1_epi16(1))),
                _mm256_setr_m128i(_mm_set1_epi16(2), _mm_set1_epi16(3)),
            );
            let low_bytes = 0x5555_5555_5555_5555;
            let scales = _mm512_maskz_permutexvar_epi8(low_bytes, spread, _mm512_set1_epi32(scales as i32));
            let lower = _mm512_slli_epi16::<7>(_mm512_sub_epi16(_mm512_set1_epi16(LARGEST_SCALE_CODE), scales));
            // The permutation looks at the low five bits of a word, and entries repeat after 16.
            [
                _mm512_subs_epu16(_mm512_permutexvar_epi16(codes, values), lower),
                _mm512_subs_epu16(_mm512_permutexvar_epi16(_mm512_srli_epi16::<4>(codes), values), lower),
                _mm512_subs_epu16(_mm512_permutexvar_epi16(_mm512_srli_epi16::<8>(codes), values), lower),
                _mm512_subs_epu16(_mm512_permutexvar_epi16(_mm512_srli_epi16::<12>(codes), values), lower),
            ]
        }
    }
}

impl Weights for Fp4<'_> {
    const ORDER: Order = Order::Planes;

    #[inline(always)]
    fn prefetch(self, row: usize, chunk: usize) {
        let start = row * self.row_byte_count + chunk * CHUNK_COLUMN_COUNT / 2;
        prefetch_lines(self.codes, start, CHUNK_COLUMN_COUNT / 2);
    }

    #[inline(always)]
    unsafe fn decode(self, rows: Rows, part: Range<usize>, chunk: usize, out: *mut u8) {
        let left = self.columns - chunk * CHUNK_COLUMN_COUNT;
        for index in part {
            let row = rows.get(index);
            // SAFETY: inside the row and `out`, says the caller; masked lanes are not read.
            unsafe {
                let codes = self
                    .codes
                    .as_ptr()
                    .add(row * self.row_byte_count + chunk * CHUNK_COLUMN_COUNT / 2);
                let scales = self
                    .scales
                    .as_ptr()
                    .add(row * self.row_group_count + chunk * CHUNK_TILE_COUNT);
                let tiles = if left >= CHUNK_COLUMN_COUNT {
                    Self::bf16(_mm512_loadu_si512(codes.cast()), scales.cast::<u32>().read_unaligned())
                } else {
                    let mut some = [LARGEST_SCALE_CODE as u8; 4];
                    for (i, scale) in some.iter_mut().enumerate().take(left.div_ceil(TILE_COLUMN_COUNT)) {
                        *scale = *scales.add(i);
                    }
                    // 127 columns take all 64 bytes.
                    let mask = u64::MAX >> (64 - left.div_ceil(2));
                    Self::bf16(_mm512_maskz_loadu_epi8(mask, codes.cast()), u32::from_le_bytes(some))
                };
                let out = out.add(ROW_BYTE_COUNT * index);
                for i in 0..CHUNK_TILE_COUNT {
                    _mm512_store_si512(out.add(2 * TILE_BYTE_COUNT * i).cast(), tiles[i]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cachalot_numerics::{bf16, e2m1, e4m3};

    #[test]
    fn tables_equal_the_codecs() {
        for code in 0..32u8 {
            let value = e2m1::decode(code % 16) * 2f32.powi(64);
            assert_eq!(bf16::decode(LARGEST_FP4[usize::from(code)]), value, "e2m1 code {code}");
        }
        for (code, found) in SUBNORMAL_CODES.into_iter().enumerate() {
            assert_eq!(bf16::decode(found as u16), e4m3::decode(code as u8), "e4m3 code {code}");
        }
    }
}
