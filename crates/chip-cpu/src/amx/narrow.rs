//! Up to 32 activation columns: weights stream from memory once, and sums stay in tiles from the first column to the last.
//!
//! A block is 32 weight rows. While the tile unit multiplies four tiles of columns, the vector ports decode the
//! next four into the other half of a buffer in the first-level cache, and the block after this one is fetched from
//! memory into the second-level cache line by line: rows lie behind each other, so that is the order that memory likes.

use std::arch::x86_64::*;

use super::{
    activations::Packing,
    results::store_sums,
    tile::{self, ROW_BYTE_COUNT, ROW_COUNT, TileShapes},
    weights::{CHUNK_TILE_COUNT, PAIR_ROW_COUNT, Rows, TILE_BYTE_COUNT, Weights},
};
use crate::product::Product;

/// Weight rows of a block at most.
pub(super) const BLOCK_ROW_COUNT: usize = PAIR_ROW_COUNT;
/// Tiles of activation columns at most.
pub(super) const TILE_COUNT_MAX: usize = 2;
/// Bytes that are decoded together.
const CHUNK_BYTE_COUNT: usize = 2 * CHUNK_TILE_COUNT * TILE_BYTE_COUNT;

/// Decoded weights: the chunk that is multiplied and the one that is decoded; then the sums.
#[repr(align(64))]
pub(super) struct Scratch([u8; 2 * CHUNK_BYTE_COUNT]);

impl Default for Scratch {
    fn default() -> Self {
        Scratch([0; 2 * CHUNK_BYTE_COUNT])
    }
}

/// Sums in tiles 0 to 3 (row tile by row tile), weights in 4 and 5, activations in 6 and 7.
pub(super) fn shapes(width: usize) -> TileShapes {
    let [sums, weights, activations] = [
        [ROW_COUNT, 4 * width],
        [ROW_COUNT, ROW_BYTE_COUNT],
        [ROW_COUNT, 4 * width],
    ];
    TileShapes::new([sums, sums, sums, sums, weights, weights, activations, activations])
}

/// Codes to fetch while a block is computed.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    next: *const u8,
    step_byte_count: usize,
}

impl Ahead {
    /// `codes` in `step_count` steps.
    pub fn new(codes: &[u8], step_count: usize) -> Self {
        Ahead {
            next: codes.as_ptr(),
            step_byte_count: codes.len().div_ceil(step_count.max(1)),
        }
    }

    #[inline(always)]
    fn step(&mut self) {
        let end = self.next.wrapping_add(self.step_byte_count);
        while self.next < end {
            // SAFETY: a hint that may name any address.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(self.next.cast()) };
            self.next = self.next.wrapping_add(64);
        }
    }
}

/// Rows `first .. first + count` of a product, `count` up to [`BLOCK_ROW_COUNT`], while `ahead` is fetched.
///
/// # Safety
/// AVX-512; the tiles of this thread have [`shapes`] of the packing's width; `activations` are packed as `packing` says;
/// the rows are inside the product.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bf16")]
pub(super) unsafe fn multiply<W: Weights>(
    weights: W,
    product: &Product<'_>,
    [first, count]: [usize; 2],
    packing: &Packing,
    activations: *const u8,
    ahead: &[u8],
    scratch: &mut Scratch,
) {
    let ahead = Ahead::new(ahead, packing.depth);
    // SAFETY: as the caller promises.
    unsafe {
        if packing.tile_count > 1 {
            block::<W, 2>(weights, product, [first, count], packing, activations, ahead, scratch);
        } else {
            block::<W, 1>(weights, product, [first, count], packing, activations, ahead, scratch);
        }
    }
}

/// Adds to the sums of two tiles of rows that need no decoding, by `X` tiles of activation columns.
///
/// The processor's own prefetching follows the 32 rows better than hints for the next block do, even where rows do not
/// start at cache lines.
///
/// # Safety
/// As [`multiply`]; whole rows of `packing.depth` tiles at `codes`, `stride` bytes apart.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn multiply_stored<const X: usize>(codes: *const u8, stride: usize, packing: &Packing, activations: *const u8) {
    let tile_byte_count = packing.tile_byte_count();
    for tile in 0..packing.depth {
        // SAFETY: as the caller promises.
        unsafe {
            let codes = codes.add(tile * ROW_BYTE_COUNT);
            let activations = activations.add(tile * tile_byte_count);
            tile::load::<6>(activations, 4 * packing.width);
            tile::load::<4>(codes, stride);
            tile::multiply_add::<0, 4, 6>();
            tile::load::<5>(codes.add(ROW_COUNT * stride), stride);
            tile::multiply_add::<1, 5, 6>();
            if X == 2 {
                tile::load::<7>(activations.add(packing.depth * tile_byte_count), 4 * packing.width);
                tile::multiply_add::<2, 4, 7>();
                tile::multiply_add::<3, 5, 7>();
            }
        }
    }
}

/// Two tiles of rows by `X` tiles of activation columns.
///
/// # Safety
/// As [`multiply`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bf16")]
unsafe fn block<W: Weights, const X: usize>(
    weights: W,
    product: &Product<'_>,
    [first, count]: [usize; 2],
    packing: &Packing,
    activations: *const u8,
    mut ahead: Ahead,
    scratch: &mut Scratch,
) {
    let rows = Rows {
        first: product.first_row + first,
        count,
    };
    let chunk_count = packing.depth / CHUNK_TILE_COUNT;
    let buffers = scratch.0.as_mut_ptr();
    let activation_tile_byte_count = packing.tile_byte_count();
    let activation_column_byte_count = packing.depth * activation_tile_byte_count;
    // SAFETY: rows, columns and activations are in range; a buffer holds a chunk of two tiles of rows.
    unsafe {
        tile::zero::<0>();
        tile::zero::<1>();
        if X == 2 {
            tile::zero::<2>();
            tile::zero::<3>();
        }
        let stored = weights.stored_tiles(rows);
        if let Some((codes, stride)) = stored {
            multiply_stored::<X>(codes, stride, packing, activations);
        } else {
            weights.decode(rows, 0..PAIR_ROW_COUNT, 0, buffers);
        }
        for chunk in 0..if stored.is_some() { 0 } else { chunk_count } {
            let now = buffers.add(chunk % 2 * CHUNK_BYTE_COUNT);
            let next = buffers.add((chunk + 1) % 2 * CHUNK_BYTE_COUNT);
            for part in 0..CHUNK_TILE_COUNT {
                let activations = activations.add((chunk * CHUNK_TILE_COUNT + part) * activation_tile_byte_count);
                tile::load::<6>(activations, 4 * packing.width);
                tile::load::<4>(now.add(2 * part * TILE_BYTE_COUNT), ROW_BYTE_COUNT);
                tile::multiply_add::<0, 4, 6>();
                tile::load::<5>(now.add((2 * part + 1) * TILE_BYTE_COUNT), ROW_BYTE_COUNT);
                tile::multiply_add::<1, 5, 6>();
                if X == 2 {
                    tile::load::<7>(activations.add(activation_column_byte_count), 4 * packing.width);
                    tile::multiply_add::<2, 4, 7>();
                    tile::multiply_add::<3, 5, 7>();
                }
                ahead.step();
                if chunk + 1 < chunk_count {
                    weights.decode(rows, 8 * part..8 * (part + 1), chunk + 1, next);
                }
            }
        }
        let sums = buffers.cast::<f32>();
        let sums_count = ROW_COUNT * packing.width;
        tile::store::<0>(sums.cast(), 4 * packing.width);
        tile::store::<1>(sums.add(sums_count).cast(), 4 * packing.width);
        if X == 2 {
            tile::store::<2>(sums.add(2 * sums_count).cast(), 4 * packing.width);
            tile::store::<3>(sums.add(3 * sums_count).cast(), 4 * packing.width);
        }
        for x in 0..X {
            for row in 0..count.div_ceil(ROW_COUNT) {
                let rows = [first + row * ROW_COUNT, (count - row * ROW_COUNT).min(ROW_COUNT)];
                store_sums(sums.add((2 * x + row) * sums_count), product, packing, x, rows);
            }
        }
    }
}
