//! Operators on rows of one axis: sums, orders, norms, softmax, quantisation.

use crate::elements::{BF16, F16, F32, I8, I32, I64, Tensor};
use crate::signature::{Arguments, Planned, expect, kernel, operators};

const FLOATS: &[i32] = &[F32, F16, BF16];

/// The view with `axis` moved to the end.
fn last(mut tensor: Tensor, axis: usize) -> Tensor {
    let (dim, stride) = (tensor.dims.remove(axis), tensor.strides.remove(axis));
    tensor.dims.push(dim);
    tensor.strides.push(stride);
    tensor
}

/// Rows of `x` along an axis, each mapped to a row of each output.
fn by_row<const N: usize>(
    x: Tensor,
    axis: usize,
    outputs: [Tensor; N],
    map: impl Fn(&[f64]) -> [Vec<f64>; N] + Send + Sync + 'static,
) -> Planned {
    for output in &outputs {
        let mut dims = output.dims.clone();
        expect(dims.len() == x.dims.len(), "outputs must have the rank of self")?;
        dims[axis] = x.dims[axis];
        expect(dims == x.dims, "outputs must have the shape of self but for the axis")?;
    }
    let (x, outputs) = (last(x, axis), outputs.map(|output| last(output, axis)));
    kernel(move |memory| {
        let values = x.load(memory)?;
        let mut results = [const { Vec::new() }; N];
        for row in values.chunks_exact(x.width().max(1)) {
            for (result, part) in results.iter_mut().zip(map(row)) {
                result.extend(part);
            }
        }
        outputs
            .iter()
            .zip(&results)
            .try_for_each(|(output, result)| output.store(memory, result))
    })
}

/// Index of each place in order; equal values keep theirs, NaN comes last.
fn order(row: &[f64], descending: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| {
        if descending {
            row[b].total_cmp(&row[a])
        } else {
            row[a].total_cmp(&row[b])
        }
    });
    order
}

fn sorted(arguments: &Arguments, axis: usize, descending: bool, count: Option<usize>, first_output: usize) -> Planned {
    let x = arguments.tensor(0)?;
    let axis = arguments.axis(axis, x.dims.len())?;
    let (values, indices) = (arguments.tensor(first_output)?, arguments.tensor(first_output + 1)?);
    let count = count.unwrap_or(x.dims[axis]);
    expect(count <= x.dims[axis], "k is larger than the axis")?;
    expect(
        values.dims[axis] == count && indices.dims[axis] == count,
        "outputs must be k long",
    )?;
    expect(
        values.dtype == x.dtype && indices.dtype == I64,
        "values have the type of self, indices are int64",
    )?;
    by_row(x, axis, [values, indices], move |row| {
        let order = order(row, descending);
        let chosen = &order[..count];
        [
            chosen.iter().map(|&place| row[place]).collect(),
            chosen.iter().map(|&place| place as f64).collect(),
        ]
    })
}

fn arg_max(arguments: &Arguments) -> Planned {
    let (x, mut y) = (arguments.tensor(0)?, arguments.tensor(3)?);
    let axis = arguments.axis(1, x.dims.len())?;
    if arguments.integer(2) == 0 && y.dims.len() + 1 == x.dims.len() {
        y.dims.insert(axis, 1);
        y.strides.insert(axis, 1);
    }
    expect(y.dtype == I64 || y.dtype == I32, "out must be int32 or int64")?;
    by_row(x, axis, [y], |row| [vec![order(row, true)[0] as f64]])
}

fn reduce_sum(arguments: &Arguments) -> Planned {
    let (mut x, axes, mut y) = (arguments.tensor(0)?, arguments.array(1), arguments.tensor(4)?);
    expect(arguments.integer(3) == i64::from(y.dtype), "out must be of type dtype")?;
    let rank = x.dims.len() as i64;
    let mut axes: Vec<usize> = axes
        .iter()
        .map(|&axis| (axis + rank).rem_euclid(rank) as usize)
        .collect();
    axes.sort_unstable();
    axes.dedup();
    let keeps = arguments.integer(2) != 0;
    for &axis in axes.iter().rev() {
        x = last(x, axis);
        if keeps {
            expect(
                y.dims.get(axis) == Some(&1),
                "out must keep the summed axes with length 1",
            )?;
            y.dims.remove(axis);
            y.strides.remove(axis);
        }
    }
    let kept = x.dims.len() - axes.len();
    expect(
        y.dims == x.dims[..kept],
        "out must have the shape of the axes that stay",
    )?;
    let width = x.dims[kept..].iter().product::<usize>();
    kernel(move |memory| {
        let values = x.load(memory)?;
        let sums: Vec<f64> = values
            .chunks(width.max(1))
            .map(|row| f64::from(row.iter().fold(0_f32, |sum, &value| sum + value as f32)))
            .collect();
        y.store(memory, &sums)
    })
}

fn softmax(arguments: &Arguments, logarithm: bool) -> Planned {
    arguments.types(0, FLOATS)?;
    let (x, y) = (arguments.tensor(0)?, arguments.tensor(2)?);
    let axis = arguments.axis(1, x.dims.len())?;
    expect(y.dims == x.dims, "out must have the shape of self")?;
    by_row(x, axis, [y], move |row| {
        let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|value| (value - most).exp()).sum();
        [row.iter()
            .map(|value| {
                if logarithm {
                    value - most - sum.ln()
                } else {
                    (value - most).exp() / sum
                }
            })
            .collect()]
    })
}

fn cumsum(arguments: &Arguments) -> Planned {
    let (x, y) = (arguments.tensor(0)?, arguments.tensor(3)?);
    let axis = arguments.axis(1, x.dims.len())?;
    expect(
        y.dims == x.dims && arguments.integer(2) == i64::from(y.dtype),
        "out must have self's shape and type dtype",
    )?;
    by_row(x, axis, [y], |row| {
        let running = row.iter().scan(0.0, |sum, value| {
            *sum += value;
            Some(*sum)
        });
        [running.collect()]
    })
}

/// y = x / sqrt(mean(x²) + epsilon) · gamma over the last axis; rstd is the f32 factor of each row.
fn rms_norm(arguments: &Arguments) -> Planned {
    arguments.types(0, FLOATS)?;
    let [x, gamma, y, rstd] = [
        arguments.tensor(0)?,
        arguments.tensor(1)?,
        arguments.tensor(3)?,
        arguments.tensor(4)?,
    ];
    let (width, epsilon) = (x.width(), arguments.real(2) as f32);
    expect(
        width > 0 && gamma.dims == [width],
        "gamma must be as long as the last axis of x",
    )?;
    expect(
        gamma.dtype == x.dtype || gamma.dtype == F32,
        "gamma must be of the type of x, or float",
    )?;
    expect(
        y.dims == x.dims && y.dtype == x.dtype,
        "y must have the shape and type of x",
    )?;
    expect(
        rstd.dtype == F32 && rstd.count() * width == x.count(),
        "rstd must be float, one number a row",
    )?;
    kernel(move |memory| {
        let (values, scales) = (x.load(memory)?, gamma.load(memory)?);
        let (mut factors, mut out) = (Vec::new(), Vec::with_capacity(values.len()));
        for row in values.chunks_exact(width) {
            let squares: f32 = row.iter().map(|&value| value as f32 * value as f32).sum();
            let factor = 1.0 / (squares / width as f32 + epsilon).sqrt();
            out.extend(
                row.iter()
                    .zip(&scales)
                    .map(|(&value, &scale)| f64::from(value as f32 * factor * scale as f32)),
            );
            factors.push(f64::from(factor));
        }
        y.store(memory, &out)?;
        rstd.store(memory, &factors)
    })
}

/// out = silu(first half) · second half of an axis.
fn swi_glu(arguments: &Arguments) -> Planned {
    arguments.types(0, FLOATS)?;
    let (x, y) = (arguments.tensor(0)?, arguments.tensor(2)?);
    let axis = arguments.axis(1, x.dims.len())?;
    expect(
        x.dims[axis].is_multiple_of(2) && x.dims[axis] == 2 * y.dims[axis],
        "out must be half of x along dim",
    )?;
    expect(x.dtype == y.dtype, "out must be of the type of x")?;
    by_row(x, axis, [y], |row| {
        let (gate, up) = row.split_at(row.len() / 2);
        [gate
            .iter()
            .zip(up)
            .map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
            .collect()]
    })
}

/// Symmetric int8 rows: the scale is absmax / 127 in f32, values are rounded to nearest, ties to even.
pub fn quantise_row(row: &[f64]) -> (Vec<f64>, f64) {
    let most = row.iter().fold(0_f32, |most, &value| most.max((value as f32).abs()));
    let scale = most / 127.0;
    let quantised = |&value: &f64| {
        if scale == 0.0 {
            0.0
        } else {
            f64::from((value as f32 / scale).round_ties_even()).clamp(-128.0, 127.0)
        }
    };
    (row.iter().map(quantised).collect(), f64::from(scale))
}

fn dynamic_quant(arguments: &Arguments) -> Planned {
    arguments.types(0, &[F16, BF16])?;
    arguments.absent(&[1])?;
    let (x, y, scale) = (arguments.tensor(0)?, arguments.tensor(2)?, arguments.tensor(3)?);
    expect(y.dims == x.dims && y.dtype == I8, "y must be int8 of the shape of x")?;
    expect(
        scale.dtype == F32 && scale.dims[..] == x.dims[..x.dims.len() - 1],
        "scale must be float, one number a row",
    )?;
    kernel(move |memory| {
        let (mut out, mut scales) = (Vec::new(), Vec::new());
        for row in x.load(memory)?.chunks_exact(x.width()) {
            let (quantised, scale) = quantise_row(row);
            out.extend(quantised);
            scales.push(scale);
        }
        y.store(memory, &out)?;
        scale.store(memory, &scales)
    })
}

fn top_k(arguments: &Arguments) -> Planned {
    let count = usize::try_from(arguments.integer(1)).map_err(|_| "k is negative")?;
    sorted(arguments, 2, arguments.integer(3) != 0, Some(count), 5)
}

operators! {
    aclnnRmsNorm aclnnRmsNormGetWorkspaceSize(x: input, gamma: input, epsilon: real, y: output, rstd: output) => rms_norm;
    aclnnSwiGlu aclnnSwiGluGetWorkspaceSize(x: input, axis: int64, out: output) => swi_glu;
    aclnnDynamicQuant aclnnDynamicQuantGetWorkspaceSize(x: input, smooth: optional, y: output, scale: output) => dynamic_quant;
    aclnnSoftmax aclnnSoftmaxGetWorkspaceSize(x: input, axis: int64, out: output) => |a| softmax(a, false);
    aclnnLogSoftmax aclnnLogSoftmaxGetWorkspaceSize(x: input, axis: int64, out: output) => |a| softmax(a, true);
    aclnnCumsum aclnnCumsumGetWorkspaceSize(x: input, axis: int64, dtype: int32, out: output) => cumsum;
    aclnnReduceSum aclnnReduceSumGetWorkspaceSize(x: input, axes: array, keeps: flag, dtype: int32, out: output) => reduce_sum;
    aclnnTopk aclnnTopkGetWorkspaceSize(
        x: input, k: int64, axis: int64, largest: flag, sorted: flag, values: output, indices: output
    ) => top_k;
    aclnnSort aclnnSortGetWorkspaceSize(
        x: input, stable: flag, axis: int64, descending: flag, values: output, indices: output
    ) => |a| sorted(a, 2, a.integer(3) != 0, None, 4);
    aclnnArgMax aclnnArgMaxGetWorkspaceSize(x: input, axis: int64, keeps: flag, out: output) => arg_max;
}
