//! Matrix products: sums in f32 (int32 for integers), results rounded once.

use crate::elements::{BF16, E4M3, F16, F32, I8, Tensor};
use crate::memory::Memory;
use crate::signature::{Arguments, Planned, expect, kernel, operators};

const FLOATS: &[i32] = &[F32, F16, BF16];

/// The last two axes exchanged.
fn transposed(mut tensor: Tensor) -> Tensor {
    let rank = tensor.dims.len();
    tensor.dims.swap(rank - 2, rank - 1);
    tensor.strides.swap(rank - 2, rank - 1);
    tensor
}

fn sums(memory: &mut Memory, left: &Tensor, right: &Tensor) -> Result<Vec<f64>, String> {
    let (a, b) = (left.load(memory)?, right.load(memory)?);
    let rank = left.dims.len();
    let (m, k, n) = (left.dims[rank - 2], left.dims[rank - 1], right.width());
    let exact = left.dtype == I8;
    // Hardware promises no order: a client must bear the other one too.
    let backwards = std::env::var("CACHALOT_ASCEND_EMULATOR_SUMS").is_ok_and(|order| order == "backwards");
    let mut out = Vec::with_capacity(a.len() / k.max(1) * n);
    for matrix in 0..left.dims[..rank - 2].iter().product() {
        for row in 0..m {
            let row = &a[(matrix * m + row) * k..][..k];
            let mut line = vec![0_f64; n];
            for step in 0..k {
                let inner = if backwards { k - 1 - step } else { step };
                let factor = row[inner];
                let weights = &b[(matrix * k + inner) * n..][..n];
                for (sum, &weight) in line.iter_mut().zip(weights) {
                    let next = *sum + factor * weight;
                    *sum = if exact { next } else { f64::from(next as f32) };
                }
            }
            out.extend(line);
        }
    }
    Ok(out)
}

fn multiply(arguments: &Arguments, rank: Option<usize>, weight_layout: bool) -> Planned {
    arguments.types(0, FLOATS)?;
    let (left, right, out) = (arguments.tensor(0)?, arguments.tensor(1)?, arguments.tensor(2)?);
    let ranks = [left.dims.len(), right.dims.len(), out.dims.len()];
    expect(
        ranks == [rank.unwrap_or(ranks[0]); 3] && ranks[0] >= 2,
        "ranks must be equal, 2 or more, and the operator's",
    )?;
    expect(
        right.is_weight_layout() == weight_layout,
        "mat2 must have the format of this operator",
    )?;
    let rank = ranks[0];
    let batch = &left.dims[..rank - 2];
    expect(
        batch == &right.dims[..rank - 2] && left.width() == right.dims[rank - 2],
        "self and mat2 do not fit each other",
    )?;
    expect(
        out.dims == [batch, &[left.dims[rank - 2], right.width()]].concat(),
        "out must be [.., m, n]",
    )?;
    expect(
        left.dtype == right.dtype && left.dtype == out.dtype,
        "types must be equal",
    )?;
    kernel(move |memory| {
        let values = sums(memory, &left, &right)?;
        out.store(memory, &values)
    })
}

/// y[m, n] = Σ x1[m, k] · x2[k, n] · x1Scale[m] · x2Scale[n] for int8.
fn quant_matmul(arguments: &Arguments, row_scale: usize, column_scale: usize, flags: usize, out: usize) -> Planned {
    let (mut left, mut right, y) = (arguments.tensor(0)?, arguments.tensor(1)?, arguments.tensor(out)?);
    arguments.types(0, &[I8])?;
    arguments.types(1, &[I8])?;
    arguments.types(out, &[F16, BF16])?;
    arguments.types(row_scale, &[F32])?;
    arguments.types(column_scale, &[F32, BF16])?;
    expect(
        left.dims.len() == 2 && right.dims.len() == 2,
        "x1 and x2 must be matrices",
    )?;
    if arguments.integer(flags) != 0 {
        left = transposed(left);
    }
    if arguments.integer(flags + 1) != 0 {
        right = transposed(right);
    }
    let (m, n) = (left.dims[0], right.dims[1]);
    expect(
        left.dims[1] == right.dims[0] && y.dims == [m, n],
        "shapes must be [m, k], [k, n], [m, n]",
    )?;
    let (rows, columns) = (arguments.optional(row_scale), arguments.tensor(column_scale)?);
    expect(
        rows.as_ref().is_none_or(|rows| rows.count() == m),
        "the scale of x1 must have m numbers",
    )?;
    expect(
        columns.count() == n || columns.count() == 1,
        "the scale of x2 must have n numbers",
    )?;
    kernel(move |memory| {
        let mut values = sums(memory, &left, &right)?;
        let columns = columns.load(memory)?;
        let rows = rows.as_ref().map_or(Ok(vec![1.0; m]), |rows| rows.load(memory))?;
        for (row, &row_scale) in values.chunks_exact_mut(n.max(1)).zip(&rows) {
            for (column, value) in row.iter_mut().enumerate() {
                let scaled = *value as f32 * columns[column % columns.len()] as f32;
                *value = f64::from(scaled * row_scale as f32);
            }
        }
        y.store(memory, &values)
    })
}

fn quant_matmul_v5(arguments: &Arguments, weight_layout: bool) -> Planned {
    arguments.absent(&[4, 5, 6, 7, 8])?;
    expect(
        arguments.tensor(1)?.is_weight_layout() == weight_layout,
        "x2 must have the format of this operator",
    )?;
    match arguments.integer(11) {
        0 => {}
        BLOCK_GROUPS => return block_matmul(arguments),
        other => return Err(format!("groupSize must be 0 or {BLOCK_GROUPS}, not {other}").into()),
    }
    quant_matmul(arguments, 2, 3, 9, 12)
}

/// One scale for `BLOCK` numbers of a row of x1, and for `BLOCK` by `BLOCK` of x2.
const BLOCK: usize = 128;
/// Rows, columns and depth of a scale's block, packed into 16 bits each but the first.
const BLOCK_GROUPS: i64 = (1 << 32) | (128 << 16) | 128;

fn block_matmul(arguments: &Arguments) -> Planned {
    let eight_bits = if arguments.arch == 3510 { &[I8, E4M3][..] } else { &[I8] };
    arguments.types(0, eight_bits)?;
    arguments.types(1, eight_bits)?;
    arguments.types(2, &[F32])?;
    arguments.types(3, &[F32])?;
    arguments.types(12, &[BF16, F16, F32])?;
    let (left, mut right, y) = (arguments.tensor(0)?, arguments.tensor(1)?, arguments.tensor(12)?);
    let (rows, mut blocks) = (arguments.tensor(2)?, arguments.tensor(3)?);
    let plain = left.dims.len() == 2 && right.dims.len() == 2 && blocks.dims.len() == 2;
    expect(
        plain && arguments.integer(9) == 0 && left.dtype == right.dtype,
        "x1 and x2 must be matrices of one type, x1 as it is",
    )?;
    if arguments.integer(10) != 0 {
        (right, blocks) = (transposed(right), transposed(blocks));
    }
    let (m, k, n) = (left.dims[0], left.dims[1], right.dims[1]);
    expect(
        k.is_multiple_of(512) && n.is_multiple_of(256) || arguments.arch == 3510,
        "k must be a multiple of 512, n of 256 on this chip",
    )?;
    let (deep, wide) = (k.div_ceil(BLOCK), n.div_ceil(BLOCK));
    expect(
        right.dims[0] == k && y.dims == [m, n] && rows.dims == [m, deep] && blocks.dims == [deep, wide],
        "shapes must be [m, k], [k, n], [m, n], scales [m, k / 128] and [k / 128, n / 128]",
    )?;
    kernel(move |memory| {
        let (a, b) = (left.load(memory)?, right.load(memory)?);
        let (rows, blocks) = (rows.load(memory)?, blocks.load(memory)?);
        let mut out = vec![0_f32; m * n];
        for (place, sum) in out.iter_mut().enumerate() {
            let (row, column) = (place / n, place % n);
            for block in 0..deep {
                let inner = block * BLOCK..k.min((block + 1) * BLOCK);
                let part: f64 = inner.map(|at| a[row * k + at] * b[at * n + column]).sum();
                *sum += part as f32 * (rows[row * deep + block] * blocks[block * wide + column / BLOCK]) as f32;
            }
        }
        y.store(memory, &out.into_iter().map(f64::from).collect::<Vec<_>>())
    })
}

fn quant_matmul_v4(arguments: &Arguments) -> Planned {
    arguments.absent(&[3, 5])?;
    quant_matmul(arguments, 4, 2, 6, 8)
}

/// The tensor with its axes in the order that an array argument says.
fn permuted(mut tensor: Tensor, axes: &[i64]) -> Option<Tensor> {
    let mut sorted = axes.to_vec();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..tensor.dims.len() as i64) {
        return None;
    }
    (tensor.dims, tensor.strides) = axes
        .iter()
        .map(|&axis| (tensor.dims[axis as usize], tensor.strides[axis as usize]))
        .unzip();
    Some(tensor)
}

/// Batches first in both factors after their permutations; permY moves the result's axes.
fn transpose_batch_matmul(arguments: &Arguments) -> Planned {
    arguments.types(0, FLOATS)?;
    arguments.absent(&[2, 3])?;
    let (x1, x2, out) = (arguments.tensor(0)?, arguments.tensor(1)?, arguments.tensor(9)?);
    let order = |index: usize| {
        let axes = arguments.array(index);
        if axes.is_empty() { vec![0, 1, 2] } else { axes }
    };
    let (Some(left), Some(right)) = (permuted(x1, &order(4)), permuted(x2, &order(5))) else {
        return Err("permX1 and permX2 must name each axis once".into());
    };
    expect(
        left.dims.len() == 3 && right.dims.len() == 3 && out.dims.len() == 3,
        "three axes are needed",
    )?;
    expect(
        left.dims[0] == right.dims[0] && left.dims[2] == right.dims[1],
        "x1 and x2 do not fit each other",
    )?;
    expect(
        left.dtype == right.dtype && left.dtype == out.dtype,
        "types must be equal",
    )?;
    let permutation = order(6);
    let shape = [left.dims[0], left.dims[1], right.dims[2]];
    let mut place = out.clone();
    for (axis, &from) in permutation.iter().enumerate() {
        let from = usize::try_from(from)
            .ok()
            .filter(|&from| from < 3)
            .ok_or("permY must name each axis once")?;
        expect(out.dims[axis] == shape[from], "out must have the permuted shape")?;
        (place.dims[from], place.strides[from]) = (out.dims[axis], out.strides[axis]);
    }
    kernel(move |memory| {
        let values = sums(memory, &left, &right)?;
        place.store(memory, &values)
    })
}

operators! {
    aclnnMm aclnnMmGetWorkspaceSize(x: input, mat2: input, out: output, mode: int8) => |a| multiply(a, Some(2), false);
    aclnnMatmul aclnnMatmulGetWorkspaceSize(x: input, mat2: input, out: output, mode: int8) => |a| multiply(a, None, false);
    aclnnBatchMatMul aclnnBatchMatMulGetWorkspaceSize(x: input, mat2: input, out: output, mode: int8)
        => |a| multiply(a, Some(3), false);
    aclnnMatmulWeightNz aclnnMatmulWeightNzGetWorkspaceSize(x: input, mat2: input, out: output, mode: int8)
        => |a| multiply(a, Some(2), true);
    aclnnTransposeBatchMatMul aclnnTransposeBatchMatMulGetWorkspaceSize(
        x1: input, x2: input, bias: optional, scale: optional, perm1: array, perm2: array, perm_out: array,
        mode: int8, split: int32, out: output
    ) => transpose_batch_matmul;
    aclnnQuantMatmulV4 aclnnQuantMatmulV4GetWorkspaceSize(
        x1: input, x2: input, scale: input, offset: optional, token_scale: optional, bias: optional,
        transpose1: flag, transpose2: flag, out: output
    ) => quant_matmul_v4;
    aclnnQuantMatmulV5 aclnnQuantMatmulV5GetWorkspaceSize(
        x1: input, x2: input, scale1: optional, scale2: input, scale_out: optional, offset1: optional, offset2: optional,
        offset_out: optional, bias: optional, transpose1: flag, transpose2: flag, group: int64, out: output
    ) => |a| quant_matmul_v5(a, false);
    aclnnQuantMatmulWeightNz aclnnQuantMatmulWeightNzGetWorkspaceSize(
        x1: input, x2: input, scale1: optional, scale2: input, scale_out: optional, offset1: optional, offset2: optional,
        offset_out: optional, bias: optional, transpose1: flag, transpose2: flag, group: int64, out: output
    ) => |a| quant_matmul_v5(a, true);
}
