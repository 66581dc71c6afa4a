//! Attention of all heads of a row on the tile unit: `scores = keys × queries`, softmax, `sums = weights × keys`.
//!
//! Queries and weights are rounded to bf16, as in DeepSeek's inference; keys are exact; sums are `f32`. Keys go through
//! in blocks of 32 slots and chunks of 24 blocks. Where a key lies depends on its row only, and tiles compute an element
//! from its own operands only, so a result does not depend on the heads or rows that are computed beside it.

use std::arch::x86_64::*;

use super::{
    Amx,
    keys::{BLOCK_KEY_COUNT, Block, ROWS, STEP, Tile, decode, round_bf16, transpose},
    softmax::Running,
    tile::{self, TileShapes, Tiles},
};
use crate::{
    kernels::Chosen,
    operators::{Heads, RowKeys},
};

/// Blocks whose scores, weights and decoded keys are held at a time: 1.2 MB of second-level cache for 64 heads of 512.
/// V4's 160 slots of window and 512 chosen entries fit.
const CHUNK_BLOCK_COUNT: usize = 24;

/// Memory that a thread keeps between rows.
#[derive(Default)]
pub(crate) struct Scratch {
    /// `[heads / 16][steps]`: tiles of 16 pairs of channels by 16 heads.
    queries: Vec<Tile>,
    /// `[2][steps]`: the keys of a block.
    keys: Vec<Tile>,
    /// `[blocks][steps][2]`: the keys of a chunk as values.
    values: Vec<Tile>,
    /// `[heads / 16][2 * blocks]`: tiles of 16 keys by 16 heads.
    scores: Vec<Tile>,
    /// `[heads / 16][blocks]`: tiles of 16 heads by 32 keys.
    weights: Vec<Tile>,
    /// `[heads / 16][2 * steps]`: tiles of 16 heads by 16 channels, in the order of values.
    sums: Vec<Tile>,
    running: Vec<Running>,
    plain: Vec<f32>,
}

/// Attention of `heads` over the keys of their row.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(super) fn attend(
    amx: Amx,
    kernels: Chosen,
    heads: &Heads<'_>,
    keys: &RowKeys<'_>,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let sizes = Sizes::new(heads, keys);
    scratch.prepare(&sizes);
    scratch.running.clear();
    scratch.running.extend(heads.sinks.chunks(ROWS).map(Running::new));
    scratch.running.resize(sizes.groups, Running::new(&[]));
    let queries = &mut scratch.queries[..sizes.groups * sizes.steps];
    load_queries(heads.queries, heads.width, sizes.steps, queries);
    let _tiles = Tiles::new(amx, &TileShapes::full());
    let block_count = keys.slot_count().div_ceil(BLOCK_KEY_COUNT);
    for first in (0..block_count).step_by(CHUNK_BLOCK_COUNT) {
        let blocks = CHUNK_BLOCK_COUNT.min(block_count - first);
        for block in 0..blocks {
            score_block(kernels, keys, first + block, [block, blocks], &sizes, scratch);
        }
        weigh_chunk(blocks, heads.scale, first > 0, &sizes, scratch);
        sum_chunk(blocks, first > 0, &sizes, scratch);
    }
    for (group, sinks) in heads.sinks.chunks(ROWS).enumerate() {
        let inverse = scratch.running[group].inverse_sums(sinks);
        let sums = &scratch.sums[group * 2 * sizes.steps..][..2 * sizes.steps];
        let out = &mut out[group * ROWS * heads.width..][..sinks.len() * heads.width];
        for (head, out) in out.chunks_exact_mut(heads.width).enumerate() {
            write_head(sums, head, inverse[head], out);
        }
    }
}

struct Sizes {
    /// Steps of 32 channels.
    steps: usize,
    /// Groups of 16 heads, an even number.
    groups: usize,
    /// Largest number of blocks of a chunk.
    blocks: usize,
}

impl Sizes {
    fn new(heads: &Heads<'_>, keys: &RowKeys<'_>) -> Self {
        Sizes {
            steps: heads.width.div_ceil(STEP),
            groups: heads.sinks.len().div_ceil(ROWS).next_multiple_of(2),
            blocks: keys.slot_count().div_ceil(BLOCK_KEY_COUNT).min(CHUNK_BLOCK_COUNT),
        }
    }
}

impl Scratch {
    fn prepare(&mut self, sizes: &Sizes) {
        let grow = |tiles: &mut Vec<Tile>, count: usize| {
            if tiles.len() < count {
                tiles.resize(count, Tile::ZERO);
            }
        };
        grow(&mut self.queries, sizes.groups * sizes.steps);
        grow(&mut self.keys, 2 * sizes.steps);
        grow(&mut self.values, sizes.blocks * 2 * sizes.steps);
        grow(&mut self.scores, sizes.groups * 2 * sizes.blocks);
        grow(&mut self.weights, sizes.groups * sizes.blocks);
        grow(&mut self.sums, sizes.groups * 2 * sizes.steps);
    }
}

/// Queries of heads of `width` channels, one after the other, as the second operand of scores: for each group of 16 heads
/// `steps` tiles of 16 pairs of channels by heads, the rest zero.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn load_queries(queries: &[f32], width: usize, steps: usize, tiles: &mut [Tile]) {
    for (index, tile) in tiles.iter_mut().enumerate() {
        let (group, channel) = (index / steps, index % steps * STEP);
        let mut rows = [_mm512_setzero_si512(); ROWS];
        let queries = queries.chunks_exact(width).skip(group * ROWS);
        for (row, query) in rows.iter_mut().zip(queries) {
            *row = round_bf16(&query[channel..], width - channel);
        }
        for (row, values) in transpose(rows).into_iter().enumerate() {
            tile.set_row(row, values);
        }
    }
}

/// Decodes block `index` of the row's keys into place `block` of the chunk's `blocks`, and scores it.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn score_block(
    kernels: Chosen,
    keys: &RowKeys<'_>,
    index: usize,
    [block, blocks]: [usize; 2],
    sizes: &Sizes,
    scratch: &mut Scratch,
) {
    let steps = sizes.steps;
    let rows: [Option<&[u8]>; BLOCK_KEY_COUNT] = std::array::from_fn(|slot| keys.slot(index * BLOCK_KEY_COUNT + slot));
    let mut decoded = Block {
        keys: &mut scratch.keys[..2 * steps],
        values: &mut scratch.values[block * 2 * steps..][..2 * steps],
    };
    decode(kernels, keys.packing(index), &rows, &mut decoded, &mut scratch.plain);
    for group in (0..sizes.groups).step_by(2) {
        let queries = [0, 1].map(|i| scratch.queries[(group + i) * steps..][..steps].as_ptr());
        let keys = [0, 1].map(|i| scratch.keys[i * steps..][..steps].as_ptr());
        let [low, high] = scores_of(&mut scratch.scores, group, blocks, block);
        let sums = [
            [low[0].as_mut_ptr(), high[0].as_mut_ptr()],
            [low[1].as_mut_ptr(), high[1].as_mut_ptr()],
        ];
        // SAFETY: tiles are configured; each operand has a tile for every step.
        unsafe { multiply(steps, [keys, queries], [1, 1], sums, false) };
        for (slot, _) in rows.iter().enumerate().filter(|(_, row)| row.is_none()) {
            for tiles in [&mut *low, &mut *high] {
                tiles[slot / ROWS].set_row(slot % ROWS, _mm512_castps_si512(_mm512_set1_ps(f32::NEG_INFINITY)));
            }
        }
    }
}

/// The two tiles of a block's scores, for two groups of heads.
fn scores_of(scores: &mut [Tile], group: usize, blocks: usize, block: usize) -> [&mut [Tile; 2]; 2] {
    let (low, high) = scores[group * 2 * blocks..].split_at_mut(2 * blocks);
    [low, high].map(|tiles| tiles[2 * block..].first_chunk_mut().expect("two tiles of a block"))
}

/// Scores of a chunk to weights; rescales the sums of earlier chunks.
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn weigh_chunk(blocks: usize, scale: f32, has_sums: bool, sizes: &Sizes, scratch: &mut Scratch) {
    for (group, running) in scratch.running.iter_mut().enumerate() {
        let scores = &scratch.scores[group * 2 * blocks..][..2 * blocks];
        let weights = &mut scratch.weights[group * blocks..][..blocks];
        let rescale = running.add(scores, scale * std::f32::consts::LOG2_E, weights);
        if has_sums && rescale != [1.0; ROWS] {
            for sums in &mut scratch.sums[group * 2 * sizes.steps..][..2 * sizes.steps] {
                for (head, factor) in rescale.iter().enumerate() {
                    let sum = _mm512_mul_ps(_mm512_castsi512_ps(sums.row(head)), _mm512_set1_ps(*factor));
                    sums.set_row(head, _mm512_castps_si512(sum));
                }
            }
        }
    }
}

/// Adds the weighted values of a chunk to the sums.
fn sum_chunk(blocks: usize, has_sums: bool, sizes: &Sizes, scratch: &mut Scratch) {
    let steps = sizes.steps;
    let values = scratch.values[..blocks * 2 * steps].as_ptr();
    for group in (0..sizes.groups).step_by(2) {
        let weights = [0, 1].map(|i| scratch.weights[(group + i) * blocks..][..blocks].as_ptr());
        let (low, high) = scratch.sums[group * 2 * steps..][..4 * steps].split_at_mut(2 * steps);
        for (step, (low, high)) in low
            .as_chunks_mut::<2>()
            .0
            .iter_mut()
            .zip(high.as_chunks_mut::<2>().0)
            .enumerate()
        {
            let sums = [low, high].map(|tiles| tiles.each_mut().map(Tile::as_mut_ptr));
            // SAFETY: tiles are configured; weights have a tile for every block, values two for every step of a block.
            unsafe {
                let values = [values.add(2 * step), values.add(2 * step + 1)];
                multiply(blocks, [weights, values], [1, 2 * steps], sums, has_sums);
            }
        }
    }
}

/// `sums[i][j] (+)= sum_k a_i[k] × b_j[k]`; tile `k` of an operand is `strides` tiles from tile `k - 1`.
///
/// # Safety
/// All tiles are configured as full ones; `count` tiles of each operand are readable, all sums writable.
#[inline(always)]
pub(super) unsafe fn multiply(
    count: usize,
    [a, b]: [[*const Tile; 2]; 2],
    [a_stride, b_stride]: [usize; 2],
    sums: [[*mut u8; 2]; 2],
    has_sums: bool,
) {
    const STRIDE: usize = tile::ROW_BYTE_COUNT;
    // SAFETY: as the caller promises.
    unsafe {
        if has_sums {
            tile::load::<0>(sums[0][0], STRIDE);
            tile::load::<1>(sums[0][1], STRIDE);
            tile::load::<2>(sums[1][0], STRIDE);
            tile::load::<3>(sums[1][1], STRIDE);
        } else {
            tile::zero::<0>();
            tile::zero::<1>();
            tile::zero::<2>();
            tile::zero::<3>();
        }
        for k in 0..count {
            tile::load::<4>(a[0].add(k * a_stride).cast(), STRIDE);
            tile::load::<6>(b[0].add(k * b_stride).cast(), STRIDE);
            tile::multiply_add::<0, 4, 6>();
            tile::load::<7>(b[1].add(k * b_stride).cast(), STRIDE);
            tile::multiply_add::<1, 4, 7>();
            tile::load::<5>(a[1].add(k * a_stride).cast(), STRIDE);
            tile::multiply_add::<2, 5, 6>();
            tile::multiply_add::<3, 5, 7>();
        }
        tile::store::<0>(sums[0][0], STRIDE);
        tile::store::<1>(sums[0][1], STRIDE);
        tile::store::<2>(sums[1][0], STRIDE);
        tile::store::<3>(sums[1][1], STRIDE);
    }
}

/// The channels of a head in their order, times `factor`.
#[target_feature(enable = "avx512f")]
fn write_head(sums: &[Tile], head: usize, factor: f32, out: &mut [f32]) {
    let factor = _mm512_set1_ps(factor);
    let first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    let second = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    for (tiles, out) in sums.as_chunks::<2>().0.iter().zip(out.chunks_mut(STEP)) {
        let [low, high] = [0, 1].map(|i| _mm512_mul_ps(_mm512_castsi512_ps(tiles[i].row(head)), factor));
        let values = [first, second].map(|order| _mm512_permutex2var_ps(low, order, high));
        for (values, out) in values.into_iter().zip(out.chunks_mut(ROWS)) {
            // SAFETY: masked lanes are not written.
            unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), ((1u32 << out.len()) - 1) as u16, values) };
        }
    }
}
