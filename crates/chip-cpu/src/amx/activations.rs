//! Activations as bf16 pairs: the right operand of the tile unit.
//!
//! An activation becomes one column (rounded to bf16) or two (rounded, and what rounding left, which makes 16 bits). The
//! unit takes 16 columns in the time of one, so the second is free as long as there are few rows.

#![expect(
    clippy::needless_range_loop,
    reason = "closures of adaptors are not reliably inlined with target features"
)]

use std::arch::x86_64::*;

use super::{
    tile::ROW_COUNT,
    transpose::transpose,
    weights::{CHUNK_COLUMN_COUNT, CHUNK_TILE_COUNT, Order, TILE_COLUMN_COUNT},
};
use crate::product::Product;

/// Columns of a tile at most.
pub(super) const TILE_WIDTH: usize = 16;

/// Where the packed activations of a product are: tiles of 32 weight columns (16 pairs) by `width` activation columns,
/// those of the same activation columns behind each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packing {
    /// First byte in the buffer.
    pub offset: usize,
    /// Activation columns of a tile: all there are up to 16, else 16, zeros at the end.
    pub width: usize,
    /// Tiles of activation columns.
    pub tile_count: usize,
    /// Tiles of weight columns, whole chunks of them: zeros behind the last column.
    pub depth: usize,
    /// The order of columns in the tiles.
    pub order: Order,
    /// Columns that an activation takes, 1 or 2.
    pub term_count: usize,
}

impl Packing {
    /// The packing of a product's activations at `offset`.
    pub fn new(product: &Product<'_>, order: Order, offset: usize) -> Self {
        let term_count = product.term_count;
        let column_count = product.x_count * term_count;
        Packing {
            offset,
            width: column_count.min(TILE_WIDTH),
            tile_count: column_count.div_ceil(TILE_WIDTH),
            depth: product.matrix.columns.div_ceil(CHUNK_COLUMN_COUNT) * CHUNK_TILE_COUNT,
            order,
            term_count,
        }
    }

    /// Bytes of one tile.
    pub fn tile_byte_count(&self) -> usize {
        ROW_COUNT * self.width * 4
    }

    /// Bytes of all tiles.
    pub fn byte_count(&self) -> usize {
        self.tile_count * self.depth * self.tile_byte_count()
    }

    /// Packs the activations of tile column `tile` into `out`, which holds the tiles of this column.
    ///
    /// # Safety
    /// AVX-512 with BF16; the activations are in range; `out` is aligned to 64 bytes and has room.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bf16")]
    pub unsafe fn pack(&self, product: &Product<'_>, tile: usize, out: *mut u8) {
        let columns = product.matrix.columns;
        let first = tile * (TILE_WIDTH / self.term_count);
        let count = (self.width / self.term_count).min(product.x_count - first);
        for chunk in 0..self.depth / CHUNK_TILE_COUNT {
            let column = chunk * CHUNK_COLUMN_COUNT;
            let left = (columns - column).min(CHUNK_COLUMN_COUNT);
            let mut rows = [[_mm512_setzero_si512(); TILE_WIDTH]; CHUNK_TILE_COUNT];
            // SAFETY: activations `first .. first + count` exist, `left` values from `column` on; four tiles of `out`.
            unsafe {
                for i in 0..count {
                    let x = product.x.as_ptr().add((first + i) * product.x_stride + column);
                    let mut terms = [[_mm512_setzero_si512(); CHUNK_TILE_COUNT]; 2];
                    for j in 0..CHUNK_TILE_COUNT {
                        let left = left.saturating_sub(j * TILE_COLUMN_COUNT).min(TILE_COLUMN_COUNT);
                        [terms[0][j], terms[1][j]] =
                            split(x.wrapping_add(j * TILE_COLUMN_COUNT), left, self.term_count);
                    }
                    for term in 0..self.term_count {
                        let ordered = match self.order {
                            Order::Straight => terms[term],
                            Order::Planes => planes(terms[term]),
                        };
                        for j in 0..CHUNK_TILE_COUNT {
                            rows[j][i * self.term_count + term] = ordered[j];
                        }
                    }
                }
                for j in 0..CHUNK_TILE_COUNT {
                    let tile = chunk * CHUNK_TILE_COUNT + j;
                    self.store(&rows[j], out.add(tile * self.tile_byte_count()));
                }
            }
        }
    }

    /// Writes a tile with `columns` for its columns.
    ///
    /// # Safety
    /// As [`Packing::pack`], for one tile.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bf16")]
    unsafe fn store(&self, columns: &[__m512i; TILE_WIDTH], out: *mut u8) {
        // SAFETY: room for a tile; masked lanes are not written.
        unsafe {
            match self.width {
                1 => _mm512_store_si512(out.cast(), columns[0]),
                2 => {
                    let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
                    let high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
                    let [first, second] = [columns[0], columns[1]];
                    _mm512_store_si512(out.cast(), _mm512_permutex2var_epi32(first, low, second));
                    _mm512_store_si512(out.add(64).cast(), _mm512_permutex2var_epi32(first, high, second));
                }
                width => {
                    let mask = ((1u32 << width) - 1) as u16;
                    for (i, pairs) in transpose(*columns).into_iter().enumerate() {
                        _mm512_mask_storeu_epi32(out.add(4 * width * i).cast(), mask, pairs);
                    }
                }
            }
        }
    }
}

/// Words `4 j + i` of 128, for every `i`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn planes(words: [__m512i; CHUNK_TILE_COUNT]) -> [__m512i; CHUNK_TILE_COUNT] {
    let mut out = words;
    // Word j of the lower and of the upper half: 4 j of the first two vectors, then of the others.
    let ascending = _mm512_cvtepu8_epi16(_mm256_setr_epi8(
        0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48,
        52, 56, 60,
    ));
    for (i, out) in out.iter_mut().enumerate() {
        let index = _mm512_add_epi16(ascending, _mm512_set1_epi16(i as i16));
        let low = _mm512_permutex2var_epi16(words[0], index, words[1]);
        let high = _mm512_permutex2var_epi16(words[2], index, words[3]);
        *out = _mm512_mask_blend_epi64(0xF0, low, high);
    }
    out
}

/// Up to 32 values as bf16 and, for two terms, what rounding left as bf16; then zeros.
///
/// # Safety
/// AVX-512 with BF16; `count` readable values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn split(x: *const f32, count: usize, term_count: usize) -> [__m512i; 2] {
    // SAFETY: masked lanes are not read.
    unsafe {
        let mask = ((1u64 << count) - 1) as u32;
        let low = _mm512_maskz_loadu_ps(mask as u16, x);
        let high = _mm512_maskz_loadu_ps((mask >> 16) as u16, x.wrapping_add(16));
        let first: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
        if term_count == 1 {
            return [first, _mm512_setzero_si512()];
        }
        let [low, high] = [
            remainder(low, _mm512_castsi512_si256(first)),
            remainder(high, _mm512_extracti64x4_epi64::<1>(first)),
        ];
        let second: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
        [first, second]
    }
}

/// `x` minus its rounded value; zero where that is infinite or NaN, which the rounded value alone stands for.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn remainder(x: __m512, rounded: __m256i) -> __m512 {
    const INFINITE_OR_NAN: i32 = 0x99;
    let rounded = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(rounded)));
    let is_special = _mm512_fpclass_ps_mask::<INFINITE_OR_NAN>(rounded);
    _mm512_maskz_sub_ps(!is_special, x, rounded)
}
