//! Hyper-connections (V4 architecture, section 2).

use cachalot_chip::{Error, HyperCollapse, HyperHead, HyperMix, HyperPost, HyperWeights};

use super::Context;
use crate::{
    pool::Chunks,
    product::Out,
    vector::{Vectors, add_scaled, cross_dots, mix_four, set_scaled, sigmoid, square_sum},
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
    let mixes = mixes(context, streams, function, n * d, mix_count);
    context.pool.for_each_chunk(input, d, 4 * n * d, |row, input| {
        // SAFETY: `for_each_chunk` calls with every row once.
        let (post, comb) = unsafe { (post.get(row), comb.get(row)) };
        let streams = &streams[row * n * d..][..n * d];
        let inverse_norm = inverse_norm(streams, operation.norm_epsilon);
        let mixed = |index: usize| mixes[row * mix_count + index] * inverse_norm;
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

pub(super) fn weights(context: &Context<'_>, operation: &HyperWeights<'_>) -> Result<(), Error> {
    let [_, n, d] = [0, 1, 2].map(|i| operation.streams.shape()[i]);
    let streams = context.access.f32("streams", operation.streams)?;
    let function = context.access.f32("function", operation.function)?;
    let scale = context.access.f32("scale", operation.scale)?;
    let base = context.access.f32("base", operation.base)?;
    let pre = context.access.f32_mut("pre", operation.pre)?;
    let post = Chunks::new(context.access.f32_mut("post", operation.post)?, n);
    let comb = Chunks::new(context.access.f32_mut("comb", operation.comb)?, n * n);
    let mix_count = (2 + n) * n;
    let mixes = mixes(context, streams, function, n * d, mix_count);
    context.pool.for_each_chunk(pre, n, 2 * n * d, |row, pre| {
        // SAFETY: `for_each_chunk` calls with every row once.
        let (post, comb) = unsafe { (post.get(row), comb.get(row)) };
        let inverse_norm = inverse_norm(&streams[row * n * d..][..n * d], operation.norm_epsilon);
        let mixed = |index: usize| mixes[row * mix_count + index] * inverse_norm;
        for i in 0..n {
            pre[i] = sigmoid(mixed(i) * scale[0] + base[i]) + operation.epsilon;
            post[i] = 2.0 * sigmoid(mixed(n + i) * scale[1] + base[n + i]);
        }
        for (index, value) in comb.iter_mut().enumerate() {
            *value = mixed(2 * n + index) * scale[2] + base[2 * n + index];
        }
        sinkhorn(comb, n, operation.sinkhorn_iterations, operation.epsilon);
    });
    Ok(())
}

pub(super) fn collapse(context: &Context<'_>, operation: &HyperCollapse<'_>) -> Result<(), Error> {
    let [_, n, d] = [0, 1, 2].map(|i| operation.streams.shape()[i]);
    let streams = context.access.f32("streams", operation.streams)?;
    let pre = context.access.f32("pre", operation.pre)?;
    let out = context.access.f32_mut("out", operation.out)?;
    context.pool.for_each_chunk(out, d, n * d, |row, out| {
        out.fill(0.0);
        let streams = streams[row * n * d..][..n * d].chunks_exact(d);
        for (pre, stream) in pre[row * n..][..n].iter().zip(streams) {
            add_scaled(out, *pre, stream);
        }
        context.round(out);
    });
    Ok(())
}

/// `function * f` of every row: `mix_count` values each.
///
/// A region of its own, cut along the function's rows, because decoding has few rows and the function is large.
fn mixes(context: &Context<'_>, streams: &[f32], function: &[f32], width: usize, mix_count: usize) -> Vec<f32> {
    const BLOCK_MIX_COUNT: usize = 4;
    const BLOCK_ROW_COUNT: usize = 12;
    let row_count = streams.len() / width.max(1);
    let blocks = mix_count.div_ceil(BLOCK_MIX_COUNT);
    let mut mixes = vec![0.0; row_count * mix_count];
    let out = Out::new(&mut mixes, mix_count);
    let work_count = BLOCK_MIX_COUNT * width * BLOCK_ROW_COUNT.min(row_count);
    context
        .pool
        .run(blocks * row_count.div_ceil(BLOCK_ROW_COUNT), work_count, &|task| {
            let (first_row, first_mix) = (task / blocks * BLOCK_ROW_COUNT, task % blocks * BLOCK_MIX_COUNT);
            let rows = Vectors {
                values: &streams[first_row * width..],
                stride: width,
                count: BLOCK_ROW_COUNT.min(row_count - first_row),
            };
            let functions = Vectors {
                values: &function[first_mix * width..],
                stride: width,
                count: BLOCK_MIX_COUNT.min(mix_count - first_mix),
            };
            let mut products = [0.0; BLOCK_MIX_COUNT * BLOCK_ROW_COUNT];
            cross_dots(context.chosen(), functions, rows, width, &mut products, BLOCK_ROW_COUNT);
            for mix in 0..functions.count {
                for row in 0..rows.count {
                    out.set(first_row + row, first_mix + mix, products[mix * BLOCK_ROW_COUNT + row]);
                }
            }
        });
    mixes
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
    // A channel depends on the same channel of the streams only, so few rows are cut along the channels.
    const BLOCK_CHANNEL_COUNT: usize = 512;
    let blocks = d.div_ceil(BLOCK_CHANNEL_COUNT);
    let row_count = streams.len() / (n * d).max(1);
    let pieces = Chunks::new(streams, d);
    let work_count = n * (n + 1) * d.min(BLOCK_CHANNEL_COUNT);
    context.pool.run(row_count * blocks, work_count, &|task| {
        let (row, first) = (task / blocks, task % blocks * BLOCK_CHANNEL_COUNT);
        let count = BLOCK_CHANNEL_COUNT.min(d - first);
        let (y, comb) = (&y[row * d + first..][..count], &comb[row * n * n..][..n * n]);
        let post = &post[row * n..][..n];
        // SAFETY: every (row, block of channels) belongs to one task.
        let part = |i: usize| unsafe { pieces.part(row * n + i, first, count) };
        if n == 4 {
            let mut parts: [&mut [f32]; 4] = std::array::from_fn(part);
            mix_four(&mut parts, comb, post, y);
            parts.into_iter().for_each(|part| context.round(part));
            return;
        }
        let mut parts: Vec<&mut [f32]> = (0..n).map(part).collect();
        let old: Vec<f32> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        for (j, stream) in parts.iter_mut().enumerate() {
            set_scaled(stream, post[j], y);
            for (i, source) in old.chunks_exact(count).enumerate() {
                add_scaled(stream, comb[i * n + j], source);
            }
            context.round(stream);
        }
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
    let mixes = mixes(context, streams, function, n * d, n);
    context.pool.for_each_chunk(out, d, n * d, |row, out| {
        let streams = &streams[row * n * d..][..n * d];
        let inverse_norm = inverse_norm(streams, operation.norm_epsilon);
        out.fill(0.0);
        for (i, stream) in streams.chunks_exact(d).enumerate() {
            let mixed = mixes[row * n + i] * inverse_norm;
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
