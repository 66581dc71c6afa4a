//! Scores of index keys on the tile unit: `keys × queries`, then the weighted sum over the heads.
//!
//! Queries are rounded to bf16, keys are exact, sums are `f32`. A score depends on its query and key only.

use std::arch::x86_64::*;

use cachalot_chip::RowFormat;

use super::{
    Amx,
    attend::{load_queries, multiply},
    keys::{BLOCK_KEY_COUNT, ROWS, STEP, Tile, load_bf16, transpose},
    tile::{TileShapes, Tiles},
};
use crate::operators::{EntryReader, Packing};

/// Memory that a thread keeps between calls.
#[derive(Default)]
pub(crate) struct Scratch {
    /// `[rows][heads / 16][steps]`: tiles of 16 pairs of channels by 16 heads.
    queries: Vec<Tile>,
    /// `[2][steps]`: tiles of 16 keys by 32 channels.
    keys: Vec<Tile>,
    /// `[heads / 16][2]`: tiles of 16 keys by 16 heads.
    products: Vec<Tile>,
    /// `[rows][heads / 16 * 16]`.
    weights: Vec<f32>,
}

/// Indexer queries of some rows of one sequence.
pub(crate) struct Queries<'a> {
    /// `[rows][heads][width]`.
    pub queries: &'a [f32],
    /// `[rows][heads]`.
    pub weights: &'a [f32],
    /// Factor of the weights.
    pub scale: f32,
    /// Heads of a row.
    pub head_count: usize,
}

/// Whether keys of this format are exact in bf16, and in whole steps.
pub(super) fn can_score(packing: &Packing) -> bool {
    matches!(
        packing.format,
        RowFormat::Bf16 | RowFormat::Fp4Hadamard | RowFormat::Fp4
    ) && packing.width.is_multiple_of(STEP)
}

/// Writes the scores of keys `first ..` of every row to `scores`, one slice for each row, all of one length.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(super) fn score(
    amx: Amx,
    queries: &Queries<'_>,
    keys: &EntryReader<'_>,
    first: usize,
    scores: &mut [&mut [f32]],
    scratch: &mut Scratch,
) {
    let (width, head_count) = (keys.packing.width, queries.head_count);
    let steps = width / STEP;
    let groups = head_count.div_ceil(ROWS).next_multiple_of(2);
    scratch.queries.resize(scores.len() * groups * steps, Tile::ZERO);
    scratch.keys.resize(2 * steps, Tile::ZERO);
    scratch.products.resize(2 * groups, Tile::ZERO);
    scratch.weights.clear();
    scratch.weights.resize(scores.len() * groups * ROWS, 0.0);
    for row in 0..scores.len() {
        let tiles = &mut scratch.queries[row * groups * steps..][..groups * steps];
        load_queries(
            &queries.queries[row * head_count * width..][..head_count * width],
            width,
            steps,
            tiles,
        );
        let weights = &queries.weights[row * head_count..][..head_count];
        let out = &mut scratch.weights[row * groups * ROWS..];
        out.iter_mut()
            .zip(weights)
            .for_each(|(out, weight)| *out = weight * queries.scale);
    }
    let _tiles = Tiles::new(amx, &TileShapes::full());
    let key_count = scores.first().map_or(0, |scores| scores.len());
    for block in (0..key_count).step_by(BLOCK_KEY_COUNT) {
        let count = BLOCK_KEY_COUNT.min(key_count - block);
        for key in 0..count {
            load_key(&keys.packing, keys.row(first + block + key), key, &mut scratch.keys);
        }
        for (row, scores) in scores.iter_mut().enumerate() {
            score_block(row, groups, scratch, &mut scores[block..][..count]);
        }
    }
}

/// Scores of the loaded keys, at most 32, for one row.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn score_block(row: usize, groups: usize, scratch: &mut Scratch, scores: &mut [f32]) {
    let steps = scratch.keys.len() / 2;
    let keys = [0, 1].map(|i| scratch.keys[i * steps..][..steps].as_ptr());
    let queries = &scratch.queries[row * groups * steps..][..groups * steps];
    for (group, products) in scratch.products.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let queries = [0, 1].map(|i| queries[(2 * group + i) * steps..][..steps].as_ptr());
        let [a, b, c, d] = products.each_mut().map(Tile::as_mut_ptr);
        // SAFETY: tiles are configured; each operand has a tile for every step.
        unsafe { multiply(steps, [keys, queries], [1, 1], [[a, c], [b, d]], false) };
    }
    let weights = scratch.weights[row * groups * ROWS..][..groups * ROWS]
        .as_chunks::<ROWS>()
        .0;
    for (half, scores) in scores.chunks_mut(ROWS).enumerate() {
        let mut sums = [_mm512_setzero_si512(); ROWS];
        for (key, sum) in sums.iter_mut().enumerate() {
            let mut lanes = _mm512_setzero_ps();
            for (group, weights) in weights.iter().enumerate() {
                let products = _mm512_castsi512_ps(scratch.products[2 * group + half].row(key));
                // The second operand is what becomes of NaN.
                let positive = _mm512_max_ps(_mm512_setzero_ps(), products);
                // SAFETY: sixteen weights.
                lanes = _mm512_fmadd_ps(positive, unsafe { _mm512_loadu_ps(weights.as_ptr()) }, lanes);
            }
            *sum = _mm512_castps_si512(lanes);
        }
        let mut lanes = transpose(sums).map(|lanes| _mm512_castsi512_ps(lanes));
        for distance in [8, 4, 2, 1] {
            for i in 0..distance {
                lanes[i] = _mm512_add_ps(lanes[i], lanes[i + distance]);
            }
        }
        // SAFETY: masked lanes are not written.
        unsafe { _mm512_mask_storeu_ps(scores.as_mut_ptr(), ((1u32 << scores.len()) - 1) as u16, lanes[0]) };
    }
}

/// Decodes key `key` of a block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_key(packing: &Packing, row: &[u8], key: usize, tiles: &mut [Tile]) {
    let steps = tiles.len() / 2;
    let tiles = &mut tiles[key / ROWS * steps..][..steps];
    if packing.format == RowFormat::Bf16 {
        for (step, tile) in tiles.iter_mut().enumerate() {
            tile.set_row(key % ROWS, load_bf16(&row[2 * STEP * step..]));
        }
        return;
    }
    let (codes, scales) = row.split_at(packing.width / 2);
    let groups = codes.as_chunks::<{ RowFormat::FP4_GROUP / 2 }>().0.iter().zip(scales);
    for (tile, (codes, scale)) in tiles.iter_mut().zip(groups) {
        tile.set_row(key % ROWS, decode_fp4(codes, *scale));
    }
}

/// The values of 32 packed e2m1 codes with an E8M0 scale, exact for scales from 2^-125 to 2^125; the tile unit knows no
/// subnormal values, and keys beyond the others do not occur.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn decode_fp4(codes: &[u8; RowFormat::FP4_GROUP / 2], scale: u8) -> __m512i {
    /// bf16 of the codes, twice: a look-up takes five bits.
    static VALUES: [u16; 32] = {
        let magnitudes = [0u16, 0x3F00, 0x3F80, 0x3FC0, 0x4000, 0x4040, 0x4080, 0x40C0];
        let mut values = [0; 32];
        let mut code = 0;
        while code < 32 {
            values[code] = magnitudes[code % 8] | (code as u16 % 16 / 8) << 15;
            code += 1;
        }
        values
    };
    const NOT_ZERO: u32 = 0xFEFE_FEFE;
    let shift = _mm512_set1_epi16((i16::from(scale.clamp(2, 252)) - 127) << 7);
    // SAFETY: the table has 64 bytes, the codes 16.
    unsafe {
        let table = _mm512_maskz_add_epi16(NOT_ZERO, _mm512_loadu_si512(VALUES.as_ptr().cast()), shift);
        let codes = _mm512_cvtepu8_epi32(_mm_loadu_si128(codes.as_ptr().cast()));
        // The low code in the lower word, whose fifth bit does not matter, the high code in the upper one.
        let indices = _mm512_or_si512(codes, _mm512_slli_epi32::<12>(codes));
        _mm512_permutexvar_epi16(indices, table)
    }
}
