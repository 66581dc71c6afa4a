//! Operators that treat every element alike, with broadcasting, and those that move elements.

use crate::elements::{BF16, F16, F32, I32, I64, Tensor};
use crate::signature::{Arguments, Planned, expect, kernel, operators};

const FLOATS: &[i32] = &[F32, F16, BF16];
const NUMBERS: &[i32] = &[F32, F16, BF16, I32, I64];

/// The tensor as a view of shape `dims`, repeated along missing axes and those of length 1.
fn broadcast(tensor: &Tensor, dims: &[usize]) -> Option<Tensor> {
    let lead = dims.len().checked_sub(tensor.dims.len())?;
    let mut strides = vec![0; dims.len()];
    for (axis, (&dim, &stride)) in tensor.dims.iter().zip(&tensor.strides).enumerate() {
        match dim {
            _ if dim == dims[lead + axis] => strides[lead + axis] = stride,
            1 => {}
            _ => return None,
        }
    }
    Some(Tensor {
        dims: dims.to_vec(),
        strides,
        ..tensor.clone()
    })
}

fn unary(arguments: &Arguments, out: usize, map: impl Fn(f64) -> f64 + Send + Sync + 'static) -> Planned {
    arguments.types(0, FLOATS)?;
    let (x, y) = (arguments.tensor(0)?, arguments.tensor(out)?);
    expect(
        x.dims == y.dims && x.dtype == y.dtype,
        "out must have the shape and type of self",
    )?;
    kernel(move |memory| {
        let values: Vec<f64> = x.load(memory)?.into_iter().map(&map).collect();
        y.store(memory, &values)
    })
}

fn binary(arguments: &Arguments, out: usize, map: impl Fn(f64, f64) -> f64 + Send + Sync + 'static) -> Planned {
    arguments.types(0, NUMBERS)?;
    let (left, right, y) = (arguments.tensor(0)?, arguments.tensor(1)?, arguments.tensor(out)?);
    expect(
        left.dtype == right.dtype && left.dtype == y.dtype,
        "types must be equal",
    )?;
    let (Some(left), Some(right)) = (broadcast(&left, &y.dims), broadcast(&right, &y.dims)) else {
        return Err("the shapes cannot be broadcast to out".into());
    };
    kernel(move |memory| {
        let (a, b) = (left.load(memory)?, right.load(memory)?);
        let values: Vec<f64> = a.into_iter().zip(b).map(|(a, b)| map(a, b)).collect();
        y.store(memory, &values)
    })
}

fn cast(arguments: &Arguments) -> Planned {
    let (x, y) = (arguments.tensor(0)?, arguments.tensor(2)?);
    expect(
        x.dims == y.dims && arguments.integer(1) == i64::from(y.dtype),
        "out must have the shape of self and type dtype",
    )?;
    kernel(move |memory| {
        let values = x.load(memory)?;
        y.store(memory, &values)
    })
}

fn copy(arguments: &Arguments) -> Planned {
    let (to, from) = (arguments.tensor(0)?, arguments.tensor(1)?);
    let Some(from) = broadcast(&from, &to.dims) else {
        return Err("src cannot be broadcast to self".into());
    };
    kernel(move |memory| {
        let values = from.load(memory)?;
        to.store(memory, &values)
    })
}

fn fill(arguments: &Arguments, value: f64) -> Planned {
    let to = arguments.tensor(0)?;
    kernel(move |memory| to.store(memory, &vec![value; to.count()]))
}

fn permute(arguments: &Arguments) -> Planned {
    let (mut x, axes, y) = (arguments.tensor(0)?, arguments.array(1), arguments.tensor(2)?);
    let rank = x.dims.len();
    let mut sorted = axes.clone();
    sorted.sort_unstable();
    expect(
        sorted.iter().copied().eq(0..rank as i64),
        "dims must name each axis once",
    )?;
    (x.dims, x.strides) = axes
        .iter()
        .map(|&axis| (x.dims[axis as usize], x.strides[axis as usize]))
        .unzip();
    expect(
        x.dims == y.dims && x.dtype == y.dtype,
        "out must have the permuted shape and the type",
    )?;
    kernel(move |memory| {
        let values = x.load(memory)?;
        y.store(memory, &values)
    })
}

fn slice(arguments: &Arguments) -> Planned {
    let (mut x, y) = (arguments.tensor(0)?, arguments.tensor(5)?);
    let axis = arguments.axis(1, x.dims.len())?;
    let clamp = |value: i64| {
        (if value < 0 { value + x.dims[axis] as i64 } else { value }).clamp(0, x.dims[axis] as i64) as usize
    };
    let (start, end, step) = (
        clamp(arguments.integer(2)),
        clamp(arguments.integer(3)),
        arguments.integer(4),
    );
    expect(step > 0, "step must be positive")?;
    x.offset += start * x.strides[axis];
    x.dims[axis] = end.saturating_sub(start).div_ceil(step as usize);
    x.strides[axis] *= step as usize;
    expect(
        x.dims == y.dims && x.dtype == y.dtype,
        "out must have the sliced shape and the type",
    )?;
    kernel(move |memory| {
        let values = x.load(memory)?;
        y.store(memory, &values)
    })
}

/// Rows of `table` along an axis, chosen by an index tensor of any shape.
fn gather(table: Tensor, axis: usize, index: Tensor, y: Tensor) -> Planned {
    expect([I32, I64].contains(&index.dtype), "indices must be int32 or int64")?;
    let shape = [&table.dims[..axis], &index.dims[..], &table.dims[axis + 1..]].concat();
    expect(
        y.dims == shape && y.dtype == table.dtype,
        "out must have the gathered shape and the type of self",
    )?;
    kernel(move |memory| {
        let (values, indices) = (table.load(memory)?, index.load(memory)?);
        let (rows, inner) = (table.dims[axis], table.dims[axis + 1..].iter().product::<usize>());
        let mut out = Vec::with_capacity(y.count());
        for outer in 0..table.dims[..axis].iter().product() {
            for &row in &indices {
                let row = if row < 0.0 { row + rows as f64 } else { row };
                if !(0.0..rows as f64).contains(&row) {
                    return Err(format!("index {row} of {rows}"));
                }
                out.extend_from_slice(&values[(outer * rows + row as usize) * inner..][..inner]);
            }
        }
        y.store(memory, &out)
    })
}

fn cat(arguments: &Arguments) -> Planned {
    let (parts, y) = (arguments.list(0), arguments.tensor(2)?);
    let axis = arguments.axis(1, y.dims.len())?;
    let fits = |part: &Tensor| {
        let mut dims = part.dims.clone();
        dims.len() == y.dims.len() && part.dtype == y.dtype && {
            dims[axis] = y.dims[axis];
            dims == y.dims
        }
    };
    let total: usize = parts.iter().map(|part| part.dims.get(axis).copied().unwrap_or(0)).sum();
    expect(
        parts.iter().all(fits) && total == y.dims[axis],
        "the tensors do not make up out",
    )?;
    kernel(move |memory| {
        let mut place = y.clone();
        for part in &parts {
            let values = part.load(memory)?;
            place.dims = part.dims.clone();
            place.store(memory, &values)?;
            place.offset += part.dims[axis] * place.strides[axis];
        }
        Ok(())
    })
}

fn scaled(arguments: &Arguments, sign: f64) -> Planned {
    let alpha = arguments.real(2) * sign;
    binary(arguments, 3, move |a, b| a + alpha * b)
}

fn clamp(arguments: &Arguments) -> Planned {
    let (low, high) = (arguments.real(1), arguments.real(2));
    expect(low <= high, "the lower bound is above the upper")?;
    unary(arguments, 3, move |value| value.max(low).min(high))
}

fn softplus(arguments: &Arguments) -> Planned {
    arguments.only_arch(2201)?;
    let (beta, threshold) = (arguments.real(1), arguments.real(2));
    unary(arguments, 3, move |x| {
        if x * beta > threshold {
            x
        } else {
            (x * beta).exp().ln_1p() / beta
        }
    })
}

fn arange(arguments: &Arguments) -> Planned {
    let (start, end, step, y) = (
        arguments.real(0),
        arguments.real(1),
        arguments.real(2),
        arguments.tensor(3)?,
    );
    expect(
        y.count() as f64 == ((end - start) / step).ceil(),
        "out must have ceil((end - start) / step) elements",
    )?;
    kernel(move |memory| {
        y.store(
            memory,
            &(0..y.count())
                .map(|index| start + index as f64 * step)
                .collect::<Vec<_>>(),
        )
    })
}

fn adds(arguments: &Arguments, sign: f64) -> Planned {
    let addend = sign * arguments.real(1) * arguments.real(2);
    unary(arguments, 3, move |x| x + addend)
}

fn divs(arguments: &Arguments) -> Planned {
    let divisor = arguments.real(1);
    unary(arguments, 2, move |x| x / divisor)
}

fn muls(arguments: &Arguments) -> Planned {
    let factor = arguments.real(1);
    unary(arguments, 2, move |x| x * factor)
}

operators! {
    aclnnCast aclnnCastGetWorkspaceSize(x: input, dtype: int32, out: output) => cast;
    aclnnAdd aclnnAddGetWorkspaceSize(x: input, other: input, alpha: scalar, out: output) => |a| scaled(a, 1.0);
    aclnnSub aclnnSubGetWorkspaceSize(x: input, other: input, alpha: scalar, out: output) => |a| scaled(a, -1.0);
    aclnnAdds aclnnAddsGetWorkspaceSize(x: input, other: scalar, alpha: scalar, out: output) => |a| adds(a, 1.0);
    aclnnSubs aclnnSubsGetWorkspaceSize(x: input, other: scalar, alpha: scalar, out: output) => |a| adds(a, -1.0);
    aclnnDivs aclnnDivsGetWorkspaceSize(x: input, other: scalar, out: output) => divs;
    aclnnMul aclnnMulGetWorkspaceSize(x: input, other: input, out: output) => |a| binary(a, 2, |x, y| x * y);
    aclnnMuls aclnnMulsGetWorkspaceSize(x: input, other: scalar, out: output) => muls;
    aclnnDiv aclnnDivGetWorkspaceSize(x: input, other: input, out: output) => |a| binary(a, 2, |x, y| x / y);
    aclnnExp aclnnExpGetWorkspaceSize(x: input, out: output) => |a| unary(a, 1, f64::exp);
    aclnnLog aclnnLogGetWorkspaceSize(x: input, out: output) => |a| unary(a, 1, f64::ln);
    aclnnSqrt aclnnSqrtGetWorkspaceSize(x: input, out: output) => |a| unary(a, 1, f64::sqrt);
    aclnnRsqrt aclnnRsqrtGetWorkspaceSize(x: input, out: output) => |a| unary(a, 1, |x| 1.0 / x.sqrt());
    aclnnRelu aclnnReluGetWorkspaceSize(x: input, out: output) => |a| unary(a, 1, |x| x.max(0.0));
    aclnnSigmoid aclnnSigmoidGetWorkspaceSize(x: input, out: output) => |a| unary(a, 1, |x| 1.0 / (1.0 + (-x).exp()));
    aclnnSilu aclnnSiluGetWorkspaceSize(x: input, out: output) => |a| unary(a, 1, |x| x / (1.0 + (-x).exp()));
    aclnnSoftplus aclnnSoftplusGetWorkspaceSize(x: input, beta: scalar, threshold: scalar, out: output) => softplus;
    aclnnClamp aclnnClampGetWorkspaceSize(x: input, low: scalar, high: scalar, out: output) => clamp;
    aclnnInplaceCopy aclnnInplaceCopyGetWorkspaceSize(x: in_place, source: input) => copy;
    aclnnInplaceZero aclnnInplaceZeroGetWorkspaceSize(x: in_place) => |a| fill(a, 0.0);
    aclnnInplaceFillScalar aclnnInplaceFillScalarGetWorkspaceSize(x: in_place, value: scalar) => |a| fill(a, a.real(1));
    aclnnPermute aclnnPermuteGetWorkspaceSize(x: input, axes: array, out: output) => permute;
    aclnnSlice aclnnSliceGetWorkspaceSize(x: input, axis: int64, start: int64, end: int64, step: int64, out: output) => slice;
    aclnnEmbedding aclnnEmbeddingGetWorkspaceSize(weight: input, indices: input, out: output)
        => |a| gather(a.tensor(0)?, 0, a.tensor(1)?, a.tensor(2)?);
    aclnnGatherV2 aclnnGatherV2GetWorkspaceSize(x: input, axis: int64, index: input, out: output)
        => |a| gather(a.tensor(0)?, a.axis(1, a.tensor(0)?.dims.len())?, a.tensor(2)?, a.tensor(3)?);
    aclnnIndexSelect aclnnIndexSelectGetWorkspaceSize(x: input, axis: int64, index: input, out: output)
        => |a| gather(a.tensor(0)?, a.axis(1, a.tensor(0)?.dims.len())?, a.tensor(2)?, a.tensor(3)?);
    aclnnCat aclnnCatGetWorkspaceSize(tensors: list, axis: int64, out: output) => cat;
    aclnnArange aclnnArangeGetWorkspaceSize(start: scalar, end: scalar, step: scalar, out: output) => arange;
}
