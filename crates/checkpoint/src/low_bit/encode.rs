//! Rows of a matrix from one format into another.

use std::ops::Range;

use cachalot_numerics::{IntegerWidth, MatrixFormat, e4m3, requantise};

use crate::StoredMatrix;

/// Rows that one thread converts at a time.
pub(crate) type RowBlock = Range<usize>;

/// Weights of a block: a decoded row stays in the first-level cache, and a block is long enough to spare hand-overs.
const BLOCK_WEIGHT_COUNT: usize = 1 << 18;

/// The rows of a matrix in blocks.
pub(crate) fn row_blocks(matrix: &StoredMatrix) -> Vec<RowBlock> {
    let row_count = (BLOCK_WEIGHT_COUNT / matrix.columns.max(1)).max(1);
    let starts = (0..matrix.rows).step_by(row_count);
    starts.map(|start| start..matrix.rows.min(start + row_count)).collect()
}

/// Each block with the bytes of its codes and scales. `weights` and `scales` are those of all blocks together.
pub(super) fn outputs<'a>(
    blocks: &'a [RowBlock],
    mut weights: &'a mut [u8],
    mut scales: &'a mut [u8],
) -> Vec<(&'a RowBlock, &'a mut [u8], &'a mut [u8])> {
    let row_count: usize = blocks.iter().map(RowBlock::len).sum();
    let [row_weights, row_scales] = [weights.len() / row_count.max(1), scales.len() / row_count.max(1)];
    let split = |block: &'a RowBlock| {
        let (block_weights, rest) = std::mem::take(&mut weights).split_at_mut(block.len() * row_weights);
        weights = rest;
        let (block_scales, rest) = std::mem::take(&mut scales).split_at_mut(block.len() * row_scales);
        scales = rest;
        (block, block_weights, block_scales)
    };
    blocks.iter().map(split).collect()
}

/// Converts rows of a matrix whose weights are in range.
pub(crate) fn encode_block(
    matrix: &StoredMatrix,
    width: IntegerWidth,
    block: &RowBlock,
    weights: &mut [u8],
    scales: &mut [u8],
) {
    let mut row_values = vec![0.0; matrix.columns];
    let codes = weights.chunks_exact_mut(weights.len() / block.len().max(1));
    let scale_count = scales.len() / block.len().max(1);
    for ((row, codes), scales) in block.clone().zip(codes).zip(scales.chunks_exact_mut(scale_count)) {
        decode_row(matrix, row, &mut row_values);
        let fits = requantise::encode_row(width, &row_values, codes, scales);
        debug_assert!(fits, "the range was checked");
    }
}

/// No smaller than the largest magnitude in a matrix of FP8 blocks, from its scales alone.
pub(super) fn largest_possible(matrix: &StoredMatrix) -> Option<f32> {
    let (MatrixFormat::Fp8Block { scale, .. }, Some(scales)) = (matrix.format, &matrix.scales) else {
        return None;
    };
    let scales = (0..scales.len() / scale.dtype().byte_count()).map(|index| scale.decode(scales, index));
    Some(scales.fold(0.0, f32::max) * e4m3::MAX)
}

/// The largest magnitude in some rows; infinity where it exceeds `f32`.
pub(super) fn largest(matrix: &StoredMatrix, block: &RowBlock) -> f32 {
    let mut row_values = vec![0.0; matrix.columns];
    let mut largest = 0.0f32;
    for row in block.clone() {
        decode_row(matrix, row, &mut row_values);
        largest = row_values.iter().fold(largest, |max, value| max.max(value.abs()));
    }
    largest
}

fn decode_row(matrix: &StoredMatrix, row: usize, out: &mut [f32]) {
    let scales = matrix.scales.as_deref().unwrap_or_default();
    matrix
        .format
        .decode_row(&matrix.weights, scales, matrix.columns, row, out);
}
