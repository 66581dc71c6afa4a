//! Many activation columns: weights are decoded once into a panel that stays in the second-level cache, and multiplied
//! by all activations there.
//!
//! A panel is up to 128 rows of 512 columns (128 KB). Two tiles of rows by two of activations make four sums, so that
//! each load of a tile (8 cycles) serves two multiplications (16 cycles each). Sums that are not finished wait in memory.

use super::{
    activations::{Packing, TILE_WIDTH},
    results::store_sums,
    tile::{self, ROW_BYTE_COUNT, ROW_COUNT},
    weights::{CHUNK_TILE_COUNT, PAIR_ROW_COUNT, Rows, TILE_BYTE_COUNT, Weights},
};
use crate::product::Product;

/// Weight rows of a panel at most.
const PANEL_ROW_COUNT_MAX: usize = 4 * PAIR_ROW_COUNT;
/// Tiles of columns of a panel at most.
const PANEL_DEPTH: usize = 16;
/// Bytes of 32 rows of a panel.
const PAIR_BYTE_COUNT: usize = 2 * PANEL_DEPTH * TILE_BYTE_COUNT;
/// Tiles of activation columns that a panel is multiplied by before the next one is decoded: 512 columns.
const GROUP_TILE_COUNT: usize = 32;
/// Bytes of the sums of 32 rows and a tile of activation columns.
const SUMS_BYTE_COUNT: usize = 2 * ROW_COUNT * TILE_WIDTH * 4;

/// Bytes of scratch memory of a thread: a panel and its sums.
pub(super) const SCRATCH_BYTE_COUNT: usize =
    PANEL_ROW_COUNT_MAX / PAIR_ROW_COUNT * (PAIR_BYTE_COUNT + GROUP_TILE_COUNT * SUMS_BYTE_COUNT);

/// Rows of a panel: as many as leave every thread some panels.
pub(super) fn block_row_count(row_count: usize, thread_count: usize) -> usize {
    let mut count = PANEL_ROW_COUNT_MAX;
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
    for first_tile in (0..packing.tile_count).step_by(GROUP_TILE_COUNT) {
        let tile_count = GROUP_TILE_COUNT.min(packing.tile_count - first_tile);
        // SAFETY: as the caller promises.
        unsafe {
            let sums = scratch.add(PANEL_ROW_COUNT_MAX / PAIR_ROW_COUNT * PAIR_BYTE_COUNT);
            for first_depth in (0..packing.depth).step_by(PANEL_DEPTH) {
                let panel = Panel {
                    depth: PANEL_DEPTH.min(packing.depth - first_depth),
                    pair_count,
                    is_first: first_depth == 0,
                    weights: scratch,
                };
                for pair in 0..pair_count {
                    let row = pair * PAIR_ROW_COUNT;
                    let rows = Rows {
                        first: product.first_row + first + row,
                        count: (count - row).min(PAIR_ROW_COUNT),
                    };
                    for chunk in 0..panel.depth / CHUNK_TILE_COUNT {
                        let out = scratch.add(pair * PAIR_BYTE_COUNT + 2 * CHUNK_TILE_COUNT * chunk * TILE_BYTE_COUNT);
                        weights.decode(rows, 0..PAIR_ROW_COUNT, first_depth / CHUNK_TILE_COUNT + chunk, out);
                    }
                }
                let activations =
                    activations.add(first_tile * column_byte_count + first_depth * packing.tile_byte_count());
                panel.multiply(activations, column_byte_count, tile_count, sums);
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

/// Decoded weights, each pair of tiles of rows for itself.
struct Panel {
    depth: usize,
    pair_count: usize,
    is_first: bool,
    weights: *const u8,
}

impl Panel {
    /// Multiplies by `tile_count` tiles of activation columns.
    ///
    /// # Safety
    /// As [`multiply`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn multiply(&self, activations: *const u8, stride: usize, tile_count: usize, sums: *mut u8) {
        for tile in (0..tile_count).step_by(2) {
            for pair in 0..self.pair_count {
                // SAFETY: as the caller promises.
                unsafe {
                    let activations = activations.add(tile * stride);
                    let sums = sums.add((pair * GROUP_TILE_COUNT + tile) * SUMS_BYTE_COUNT);
                    if tile + 1 < tile_count {
                        self.multiply_pair::<2>(pair, activations, stride, sums);
                    } else {
                        self.multiply_pair::<1>(pair, activations, stride, sums);
                    }
                }
            }
        }
    }

    /// 32 rows by `X` tiles of activation columns.
    ///
    /// # Safety
    /// As [`multiply`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn multiply_pair<const X: usize>(&self, pair: usize, activations: *const u8, stride: usize, sums: *mut u8) {
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
            let mut weights = self.weights.add(pair * PAIR_BYTE_COUNT);
            let mut activations = activations;
            for _ in 0..self.depth {
                tile::load::<4>(weights, ROW_BYTE_COUNT);
                tile::load::<6>(activations, ROW_BYTE_COUNT);
                tile::multiply_add::<0, 4, 6>();
                tile::load::<5>(weights.add(TILE_BYTE_COUNT), ROW_BYTE_COUNT);
                tile::multiply_add::<1, 5, 6>();
                if X == 2 {
                    tile::load::<7>(activations.add(stride), ROW_BYTE_COUNT);
                    tile::multiply_add::<2, 4, 7>();
                    tile::multiply_add::<3, 5, 7>();
                }
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
