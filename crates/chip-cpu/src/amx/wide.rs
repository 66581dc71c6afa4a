//! Many activation columns: weights are decoded once into panels that stay in the second-level cache, and multiplied
//! by all activations there.
//!
//! A panel is up to 256 rows of 256 columns (128 KB). Two tiles of rows by two of activations make four sums, so that
//! each load of a tile (8 cycles) serves two multiplications (16 cycles each). 32 rows of a panel (16 KB) stay in the
//! first-level cache while they meet all activations; sums that are not finished wait in memory. Meanwhile the vector
//! ports decode the same rows of the next panel, and the codes of the panel after it are fetched.

use std::arch::x86_64::*;

use super::{
    activations::{Packing, TILE_WIDTH},
    results::store_sums,
    tile::{self, ROW_BYTE_COUNT, ROW_COUNT},
    weights::{CHUNK_TILE_COUNT, PAIR_ROW_COUNT, Rows, TILE_BYTE_COUNT, Weights},
};
use crate::product::Product;

/// Pairs of tiles of weight rows of a panel at most.
const PAIR_COUNT_MAX: usize = 8;
/// Tiles of columns of a panel at most.
const PANEL_DEPTH: usize = 8;
/// Chunks of columns of a panel at most.
const PANEL_CHUNK_COUNT: usize = PANEL_DEPTH / CHUNK_TILE_COUNT;
/// Bytes of 32 rows of a panel.
const PAIR_BYTE_COUNT: usize = 2 * PANEL_DEPTH * TILE_BYTE_COUNT;
/// Bytes of a panel.
const PANEL_BYTE_COUNT: usize = PAIR_COUNT_MAX * PAIR_BYTE_COUNT;
/// Tiles of activation columns that a panel is multiplied by before the next one is decoded: 512 columns.
const GROUP_TILE_COUNT: usize = 32;
/// Bytes of the sums of 32 rows and a tile of activation columns.
const SUMS_BYTE_COUNT: usize = 2 * ROW_COUNT * TILE_WIDTH * 4;

/// Bytes of scratch memory of a thread: two panels and the sums.
pub(super) const SCRATCH_BYTE_COUNT: usize = 2 * PANEL_BYTE_COUNT + PAIR_COUNT_MAX * GROUP_TILE_COUNT * SUMS_BYTE_COUNT;

/// Rows of a panel: as many as leave every thread some panels.
pub(super) fn block_row_count(row_count: usize, thread_count: usize) -> usize {
    let mut count = PAIR_COUNT_MAX * PAIR_ROW_COUNT;
    while count > PAIR_ROW_COUNT && row_count < 4 * thread_count * count {
        count /= 2;
    }
    count
}

/// Rows `first .. first + count` of a product, `count` up to [`block_row_count`].
///
/// # Safety
/// AVX-512; the tiles of this thread have the shapes of 16 activation columns; `activations` are packed as `packing`
/// says; the rows are inside the product; `scratch` has [`SCRATCH_BYTE_COUNT`] bytes aligned to 64.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bf16")]
pub(super) unsafe fn multiply<W: Weights>(
    weights: W,
    product: &Product<'_>,
    [first, count]: [usize; 2],
    packing: &Packing,
    activations: *const u8,
    scratch: *mut u8,
) {
    let pair_count = count.div_ceil(PAIR_ROW_COUNT);
    let column_byte_count = packing.depth * packing.tile_byte_count();
    let panel_count = packing.depth.div_ceil(PANEL_DEPTH);
    for first_tile in (0..packing.tile_count).step_by(GROUP_TILE_COUNT) {
        let tile_count = GROUP_TILE_COUNT.min(packing.tile_count - first_tile);
        // SAFETY: as the caller promises.
        unsafe {
            let sums = scratch.add(2 * PANEL_BYTE_COUNT);
            for index in 0..=panel_count {
                let place = |index: usize| scratch.add(index % 2 * PANEL_BYTE_COUNT);
                // One round decodes the first panel only, the last one multiplies only.
                let panel = (index > 0).then(|| Panel {
                    depth: PANEL_DEPTH.min(packing.depth - (index - 1) * PANEL_DEPTH),
                    is_first: index == 1,
                    weights: place(index - 1),
                });
                for pair in 0..pair_count {
                    let row = pair * PAIR_ROW_COUNT;
                    let mut decoder = Decoder {
                        weights,
                        rows: Rows {
                            first: product.first_row + first + row,
                            count: (count - row).min(PAIR_ROW_COUNT),
                        },
                        first_chunk: index * PANEL_CHUNK_COUNT,
                        chunk_count: packing.depth / CHUNK_TILE_COUNT,
                        row: 0,
                        row_count: if index < panel_count {
                            PANEL_CHUNK_COUNT.min(packing.depth / CHUNK_TILE_COUNT - index * PANEL_CHUNK_COUNT)
                                * PAIR_ROW_COUNT
                        } else {
                            0
                        },
                        out: place(index).add(pair * PAIR_BYTE_COUNT),
                    };
                    if let Some(panel) = &panel {
                        let activations = activations.add(
                            first_tile * column_byte_count + (index - 1) * PANEL_DEPTH * packing.tile_byte_count(),
                        );
                        let sums = sums.add(pair * GROUP_TILE_COUNT * SUMS_BYTE_COUNT);
                        panel.multiply(pair, activations, column_byte_count, tile_count, sums, &mut decoder);
                    }
                    decoder.step(usize::MAX);
                }
            }
            for tile in 0..tile_count {
                for row in (0..count).step_by(ROW_COUNT) {
                    let (pair, half) = (row / PAIR_ROW_COUNT, row % PAIR_ROW_COUNT / ROW_COUNT);
                    let sums =
                        sums.add((pair * GROUP_TILE_COUNT + tile) * SUMS_BYTE_COUNT + half * SUMS_BYTE_COUNT / 2);
                    let rows = [first + row, (count - row).min(ROW_COUNT)];
                    store_sums(sums.cast(), product, packing, first_tile + tile, rows);
                }
            }
        }
    }
}

/// Decodes 32 rows of a panel little by little.
struct Decoder<W> {
    weights: W,
    rows: Rows,
    first_chunk: usize,
    /// Chunks of the whole rows.
    chunk_count: usize,
    /// Rows that were decoded: all of a chunk, then all of the next.
    row: usize,
    /// Rows to decode.
    row_count: usize,
    out: *mut u8,
}

impl<W: Weights> Decoder<W> {
    /// Decodes up to `count` rows.
    ///
    /// # Safety
    /// As [`multiply`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bf16")]
    unsafe fn step(&mut self, count: usize) {
        let end = self.row_count.min(self.row.saturating_add(count));
        while self.row < end {
            let chunk = self.row / PAIR_ROW_COUNT;
            let start = self.row % PAIR_ROW_COUNT;
            let part = start..PAIR_ROW_COUNT.min(start + end - self.row);
            self.row += part.len();
            for row in part.clone() {
                let ahead = self.first_chunk + chunk + PANEL_CHUNK_COUNT;
                if ahead < self.chunk_count {
                    self.weights.prefetch(self.rows.first + row, ahead);
                }
            }
            // SAFETY: as the caller promises.
            unsafe {
                let out = self.out.add(2 * CHUNK_TILE_COUNT * chunk * TILE_BYTE_COUNT);
                self.weights.decode(self.rows, part, self.first_chunk + chunk, out);
            }
        }
    }
}

/// Decoded weights, each pair of tiles of rows for itself.
struct Panel {
    depth: usize,
    is_first: bool,
    weights: *const u8,
}

impl Panel {
    /// Multiplies 32 rows by `tile_count` tiles of activation columns.
    ///
    /// # Safety
    /// As [`multiply`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bf16")]
    unsafe fn multiply<W: Weights>(
        &self,
        pair: usize,
        activations: *const u8,
        stride: usize,
        tile_count: usize,
        sums: *mut u8,
        decoder: &mut Decoder<W>,
    ) {
        let weights = self.weights.wrapping_add(pair * PAIR_BYTE_COUNT);
        let row_count = decoder.row_count.div_ceil(tile_count.div_ceil(2) * self.depth);
        for tile in (0..tile_count).step_by(2) {
            // SAFETY: as the caller promises.
            unsafe {
                let activations = activations.add(tile * stride);
                let sums = sums.add(tile * SUMS_BYTE_COUNT);
                if tile + 1 < tile_count {
                    self.multiply_pair::<W, 2>(weights, activations, stride, sums, decoder, row_count);
                } else {
                    self.multiply_pair::<W, 1>(weights, activations, stride, sums, decoder, row_count);
                }
            }
        }
    }

    /// 32 rows by `X` tiles of activation columns, while `row_count` rows are decoded for each tile of weight columns.
    ///
    /// # Safety
    /// As [`multiply`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bf16")]
    unsafe fn multiply_pair<W: Weights, const X: usize>(
        &self,
        mut weights: *const u8,
        mut activations: *const u8,
        stride: usize,
        sums: *mut u8,
        decoder: &mut Decoder<W>,
        row_count: usize,
    ) {
        const HALF: usize = SUMS_BYTE_COUNT / 2;
        // SAFETY: as the caller promises.
        unsafe {
            if self.is_first {
                tile::zero::<0>();
                tile::zero::<1>();
                tile::zero::<2>();
                tile::zero::<3>();
            } else {
                tile::load::<0>(sums, ROW_BYTE_COUNT);
                tile::load::<1>(sums.add(HALF), ROW_BYTE_COUNT);
                if X == 2 {
                    tile::load::<2>(sums.add(2 * HALF), ROW_BYTE_COUNT);
                    tile::load::<3>(sums.add(3 * HALF), ROW_BYTE_COUNT);
                }
            }
            // The sums that come next.
            let mut ahead: *const u8 = sums.wrapping_add(2 * SUMS_BYTE_COUNT);
            for _ in 0..self.depth {
                tile::load::<4>(weights, ROW_BYTE_COUNT);
                tile::load::<6>(activations, ROW_BYTE_COUNT);
                tile::multiply_add::<0, 4, 6>();
                tile::load::<5>(weights.add(TILE_BYTE_COUNT), ROW_BYTE_COUNT);
                tile::multiply_add::<1, 5, 6>();
                for _ in 0..2 * SUMS_BYTE_COUNT / PANEL_DEPTH / 64 {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                    ahead = ahead.wrapping_add(64);
                }
                if X == 2 {
                    tile::load::<7>(activations.add(stride), ROW_BYTE_COUNT);
                    tile::multiply_add::<2, 4, 7>();
                    tile::multiply_add::<3, 5, 7>();
                }
                decoder.step(row_count);
                weights = weights.add(2 * TILE_BYTE_COUNT);
                activations = activations.add(TILE_BYTE_COUNT);
            }
            tile::store::<0>(sums, ROW_BYTE_COUNT);
            tile::store::<1>(sums.add(HALF), ROW_BYTE_COUNT);
            if X == 2 {
                tile::store::<2>(sums.add(2 * HALF), ROW_BYTE_COUNT);
                tile::store::<3>(sums.add(3 * HALF), ROW_BYTE_COUNT);
            }
        }
    }
}
