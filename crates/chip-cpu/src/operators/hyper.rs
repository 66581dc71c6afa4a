//! Hyper-connections (V4 architecture, section 2).

use cachalot_chip::{Error, HyperHead, HyperMix, HyperPost};

use super::Context;
use crate::{
    pool::Chunks,
    vector::{add_scaled, dot, sigmoid, square_sum},
};

pub(super) fn mix(context: &Context<'_>, operation: &HyperMix<'_>) -> Result<(), Error> {
    let [_, n, d] = [0, 1, 2].map(|i| operation.streams.shape()[i]);
    let streams = context.access.f32("streams", operation.streams)?;
    let function = context.access.f32("function", operation.function)?;
    let scale = context.access.f32("scale", operation.scale)?;
    let base = context.access.f32("base", operation.base)?;
    let input = context.access.f32_mut("input", operation.input)?;
    let post = Chunks::new(context.access.f32_mut("post", operation.post)?, n);
    let comb = Chunks::new(context.access.f32_mut("comb", operation.comb)?, n * n);
    let mix_count = (2 + n) * n;
    context.pool.for_each_chunk(input, d, mix_count * n * d, |row, input| {
        // SAFETY: `for_each_chunk` calls with every row once.
        let (post, comb) = unsafe { (post.get(row), comb.get(row)) };
        let streams = &streams[row * n * d..][..n * d];
        let inverse_norm = inverse_norm(streams, operation.norm_epsilon);
        let mixed = |index: usize| dot(&function[index * n * d..][..n * d], streams) * inverse_norm;
        input.fill(0.0);
        for (i, stream) in streams.chunks_exact(d).enumerate() {
            let pre = sigmoid(mixed(i) * scale[0] + base[i]) + operation.epsilon;
            add_scaled(input, pre, stream);
            post[i] = 2.0 * sigmoid(mixed(n + i) * scale[1] + base[n + i]);
        }
        for (index, value) in comb.iter_mut().enumerate() {
            *value = mixed(2 * n + index) * scale[2] + base[2 * n + index];
        }
        sinkhorn(comb, n, operation.sinkhorn_iterations, operation.epsilon);
        context.round(input);
    });
    Ok(())
}

/// Makes rows (sources) and columns (destinations) of the `n × n` matrix sum to one.
///
/// Starts with a softmax of each row and ends with a division of the columns.
fn sinkhorn(comb: &mut [f32], n: usize, iterations: usize, epsilon: f32) {
    for row in comb.chunks_exact_mut(n) {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.iter_mut().for_each(|value| *value = (*value - max).exp());
        let sum: f32 = row.iter().sum();
        row.iter_mut().for_each(|value| *value = *value / sum + epsilon);
    }
    divide_columns(comb, n, epsilon);
    for _ in 1..iterations {
        for row in comb.chunks_exact_mut(n) {
            let sum: f32 = row.iter().sum();
            row.iter_mut().for_each(|value| *value /= sum + epsilon);
        }
        divide_columns(comb, n, epsilon);
    }
}

fn divide_columns(comb: &mut [f32], n: usize, epsilon: f32) {
    for column in 0..n {
        let sum: f32 = comb.iter().skip(column).step_by(n).sum();
        comb.iter_mut()
            .skip(column)
            .step_by(n)
            .for_each(|value| *value /= sum + epsilon);
    }
}

pub(super) fn post(context: &Context<'_>, operation: &HyperPost<'_>) -> Result<(), Error> {
    let [_, n, d] = [0, 1, 2].map(|i| operation.streams.shape()[i]);
    let y = context.access.f32("y", operation.y)?;
    let post = context.access.f32("post", operation.post)?;
    let comb = context.access.f32("comb", operation.comb)?;
    let streams = context.access.f32_mut("streams", operation.streams)?;
    context.pool.for_each_chunk(streams, n * d, n * n * d, |row, streams| {
        let old = streams.to_vec();
        let (y, comb) = (&y[row * d..][..d], &comb[row * n * n..][..n * n]);
        for (j, stream) in streams.chunks_exact_mut(d).enumerate() {
            let factor = post[row * n + j];
            stream.iter_mut().zip(y).for_each(|(out, y)| *out = factor * y);
            for (i, source) in old.chunks_exact(d).enumerate() {
                add_scaled(stream, comb[i * n + j], source);
            }
        }
        context.round(streams);
    });
    Ok(())
}

pub(super) fn head(context: &Context<'_>, operation: &HyperHead<'_>) -> Result<(), Error> {
    let [_, n, d] = [0, 1, 2].map(|i| operation.streams.shape()[i]);
    let streams = context.access.f32("streams", operation.streams)?;
    let function = context.access.f32("function", operation.function)?;
    let scale = context.access.f32("scale", operation.scale)?;
    let base = context.access.f32("base", operation.base)?;
    let out = context.access.f32_mut("out", operation.out)?;
    context.pool.for_each_chunk(out, d, n * n * d, |row, out| {
        let streams = &streams[row * n * d..][..n * d];
        let inverse_norm = inverse_norm(streams, operation.norm_epsilon);
        out.fill(0.0);
        for (i, stream) in streams.chunks_exact(d).enumerate() {
            let mixed = dot(&function[i * n * d..][..n * d], streams) * inverse_norm;
            add_scaled(out, sigmoid(mixed * scale[0] + base[i]) + operation.epsilon, stream);
        }
        context.round(out);
    });
    Ok(())
}

/// `1 / sqrt(mean(f^2) + epsilon)` over all streams of a row.
fn inverse_norm(streams: &[f32], epsilon: f32) -> f32 {
    (square_sum(streams) / streams.len() as f32 + epsilon).sqrt().recip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinkhorn_ends_with_columns_that_sum_to_one() {
        let mut comb: Vec<f32> = (0..16).map(|i| (i * 7 % 5) as f32 - 2.0).collect();
        sinkhorn(&mut comb, 4, 20, 1e-6);
        for column in 0..4 {
            let sum: f32 = comb.iter().skip(column).step_by(4).sum();
            assert!((sum - 1.0).abs() < 1e-5);
        }
    }
}
