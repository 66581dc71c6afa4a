//! Root-mean-square normalisation.

use cachalot_chip::{Error, Mode, RmsNorm};
use cachalot_numerics::bf16;

use super::Context;
use crate::vector::{scale, scale_each, square_sum};

/// Values of a task.
const BLOCK_VALUE_COUNT: usize = 4096;

pub(super) fn rms_norm(context: &Context<'_>, operation: &RmsNorm<'_>) -> Result<(), Error> {
    let width = operation.x.shape()[1];
    let out = context.access.f32_mut("out", operation.out)?;
    let x = (!operation.x.overlaps(operation.out))
        .then(|| context.access.f32("x", operation.x))
        .transpose()?;
    let weight = operation
        .weight
        .map(|weight| context.access.floats("weight", weight))
        .transpose()?;
    let official = context.mode == Mode::Official;
    // Rows may be as narrow as a head.
    let block_row_count = BLOCK_VALUE_COUNT.div_ceil(width.max(1));
    let block = block_row_count * width;
    context.pool.for_each_chunk(out, block, 4 * block, |index, rows| {
        if let Some(x) = x {
            rows.copy_from_slice(&x[index * block..][..rows.len()]);
        }
        for row in rows.chunks_exact_mut(width) {
            match &weight {
                Some(weight) => {
                    normalise(row, weight, operation.epsilon);
                    context.round(row);
                }
                None if official => normalise_in_bf16(row, operation.epsilon),
                None => {
                    let factor = (square_sum(row) / width as f32 + operation.epsilon).sqrt().recip();
                    scale(row, factor);
                }
            }
        }
    });
    Ok(())
}

/// `row = weight * row / sqrt(mean(row^2) + epsilon)`.
pub(super) fn normalise(row: &mut [f32], weight: &[f32], epsilon: f32) {
    let factor = (square_sum(row) / row.len() as f32 + epsilon).sqrt().recip();
    scale_each(row, factor, weight);
}

/// `row = weight * (row - mean) / sqrt(variance + epsilon) + bias`.
pub(super) fn layer_normalise(row: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
    let mean = row.iter().sum::<f32>() / row.len() as f32;
    row.iter_mut().for_each(|value| *value -= mean);
    normalise(row, weight, epsilon);
    row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
}

/// The per-head query norm as DeepSeek's inference code does it: each step rounded to bf16.
fn normalise_in_bf16(row: &mut [f32], epsilon: f32) {
    let squares: f32 = row.iter().map(|value| bf16::round(value * value)).sum();
    let mean = bf16::round(squares / row.len() as f32);
    let factor = bf16::round(bf16::round(mean + epsilon).sqrt().recip());
    row.iter_mut().for_each(|value| *value = bf16::round(*value * factor));
}
