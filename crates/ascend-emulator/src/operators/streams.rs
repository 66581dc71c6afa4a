//! Manifold hyper-connections: mixing the residual streams before a block and after it.

use crate::elements::{BF16, F16, F32};
use crate::signature::{Arguments, Planned, expect, kernel, operators};

const STREAMS: usize = 4;
const ITERATIONS: i64 = 20;

fn sigmoid(value: f64) -> f64 {
    1.0 / (1.0 + (-value).exp())
}

/// Softmax of each row, then columns and rows divided by their sums in turn; ends with columns.
fn sinkhorn(mixes: &[f64], epsilon: f64) -> [[f64; STREAMS]; STREAMS] {
    let mut matrix = [[0.0; STREAMS]; STREAMS];
    for (row, from) in matrix.iter_mut().zip(mixes.chunks_exact(STREAMS)) {
        let most = from.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = from.iter().map(|value| (value - most).exp()).sum();
        row.iter_mut()
            .zip(from)
            .for_each(|(to, value)| *to = (value - most).exp() / sum + epsilon);
    }
    for iteration in 0..ITERATIONS {
        if iteration > 0 {
            for row in &mut matrix {
                let sum = row.iter().sum::<f64>() + epsilon;
                row.iter_mut().for_each(|value| *value /= sum);
            }
        }
        for column in 0..STREAMS {
            let sum = matrix.iter().map(|row| row[column]).sum::<f64>() + epsilon;
            matrix.iter_mut().for_each(|row| row[column] /= sum);
        }
    }
    matrix
}

fn mainline_pre(arguments: &Arguments) -> Planned {
    arguments.absent(&[12, 13, 14, 15, 16])?;
    expect(arguments.integer(8) == 0, "needBackward is not emulated")?;
    pre(arguments, 9)
}

fn pre(arguments: &Arguments, outputs: usize) -> Planned {
    arguments.types(0, &[BF16, F16])?;
    for index in [1, 2, 3, outputs + 1, outputs + 2] {
        arguments.types(index, &[F32])?;
    }
    let [x, phi, alpha, bias] = [
        arguments.tensor(0)?,
        arguments.tensor(1)?,
        arguments.tensor(2)?,
        arguments.tensor(3)?,
    ];
    let [hin, post, residual] = [
        arguments.tensor(outputs)?,
        arguments.tensor(outputs + 1)?,
        arguments.tensor(outputs + 2)?,
    ];
    expect(
        arguments.integer(4) == 4 && arguments.integer(5) == ITERATIONS,
        "hcMult must be 4 and numIters 20",
    )?;
    let rank = x.dims.len();
    expect(rank >= 3 && x.dims[rank - 2] == STREAMS, "x must be [.., 4, d]")?;
    let (width, tokens) = (x.width(), x.count() / (STREAMS * x.width()).max(1));
    expect(
        phi.dims == [24, STREAMS * width] && alpha.dims == [3] && bias.dims == [24],
        "phi is [24, 4 d], alpha [3], bias [24]",
    )?;
    let fits = hin.count() == tokens * width && hin.dtype == x.dtype;
    expect(
        fits && post.count() == tokens * STREAMS && residual.count() == tokens * 16,
        "outputs must be [.., d], [.., 4], [.., 16]",
    )?;
    let (epsilon, norm_epsilon) = (arguments.real(6), arguments.real(7));
    kernel(move |memory| {
        let (values, phi) = (x.load(memory)?, phi.load(memory)?);
        let (alpha, bias) = (alpha.load(memory)?, bias.load(memory)?);
        let (mut inputs, mut posts, mut residuals) = (Vec::new(), Vec::new(), Vec::new());
        for token in values.chunks_exact(STREAMS * width) {
            let mean = token.iter().map(|value| value * value).sum::<f64>() / token.len() as f64;
            let factor = 1.0 / (mean + norm_epsilon).sqrt();
            let mixes: Vec<f64> = phi
                .chunks_exact(token.len())
                .enumerate()
                .map(|(row, weights)| {
                    let sum: f64 = weights.iter().zip(token).map(|(weight, value)| weight * value).sum();
                    sum * factor * alpha[(row / STREAMS).min(2)] + bias[row]
                })
                .collect();
            let shares: Vec<f64> = mixes[..STREAMS].iter().map(|&mix| sigmoid(mix) + epsilon).collect();
            inputs.extend((0..width).map(|column| {
                shares
                    .iter()
                    .enumerate()
                    .map(|(stream, share)| share * token[stream * width + column])
                    .sum::<f64>()
            }));
            posts.extend(mixes[STREAMS..2 * STREAMS].iter().map(|&mix| 2.0 * sigmoid(mix)));
            residuals.extend(sinkhorn(&mixes[2 * STREAMS..], epsilon).into_iter().flatten());
        }
        hin.store(memory, &inputs)?;
        post.store(memory, &posts)?;
        residual.store(memory, &residuals)
    })
}

/// out[j] = Σᵢ hRes[i][j] · x[i] + hPost[j] · hOut.
fn post(arguments: &Arguments, order: [usize; 4]) -> Planned {
    let [x, residual, block, post] = order;
    arguments.types(x, &[BF16, F16, F32])?;
    arguments.types(residual, &[F32])?;
    arguments.types(post, &[F32])?;
    let [x, residual, block] = [
        arguments.tensor(x)?,
        arguments.tensor(residual)?,
        arguments.tensor(block)?,
    ];
    let (post, y) = (arguments.tensor(post)?, arguments.tensor(4)?);
    let rank = x.dims.len();
    expect(
        rank >= 3 && x.dims[rank - 2] == STREAMS && y.dims == x.dims && y.dtype == x.dtype,
        "x and out must be [.., 4, d]",
    )?;
    let (width, tokens) = (x.width(), x.count() / (STREAMS * x.width()).max(1));
    let fits = residual.count() == tokens * 16 && block.count() == tokens * width && post.count() == tokens * STREAMS;
    expect(fits, "hRes is [.., 4, 4], hOut [.., d], hPost [.., 4]")?;
    kernel(move |memory| {
        let (values, matrix) = (x.load(memory)?, residual.load(memory)?);
        let (block, post) = (block.load(memory)?, post.load(memory)?);
        let mut out = Vec::with_capacity(values.len());
        for token in 0..tokens {
            for to in 0..STREAMS {
                for column in 0..width {
                    let mixed: f64 = (0..STREAMS)
                        .map(|from| {
                            matrix[token * 16 + from * STREAMS + to] * values[(token * STREAMS + from) * width + column]
                        })
                        .sum();
                    out.push(mixed + post[token * STREAMS + to] * block[token * width + column]);
                }
            }
        }
        y.store(memory, &out)
    })
}

operators! {
    aclnnMhcPreSinkhorn aclnnMhcPreSinkhornGetWorkspaceSize(
        x: input, phi: input, alpha: input, bias: input, streams: int64, iterations: int64, epsilon: real,
        norm_epsilon: real, backward: flag, hin: output, post_out: output, residual: output, pre_out: optional_output,
        before: optional_output, rms: optional_output, sums: optional_output, norms: optional_output
    ) => mainline_pre;
    aclnnMhcPost aclnnMhcPostGetWorkspaceSize(x: input, residual: input, block: input, post_in: input, out: output)
        => |a| post(a, [0, 1, 2, 3]);
    custom_aclnnHcPre custom_aclnnHcPreGetWorkspaceSize(
        x: input, phi: input, alpha: input, bias: input, streams: int64, iterations: int64, epsilon: real,
        norm_epsilon: real, hin: output, post_out: output, residual: output
    ) => |a| pre(a, 8);
    custom_aclnnHcPost custom_aclnnHcPostGetWorkspaceSize(
        block: input, x: input, post_in: input, residual: input, out: output
    ) => |a| post(a, [1, 3, 0, 2]);
}
