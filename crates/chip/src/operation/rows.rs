use cachalot_numerics::Dtype;

use super::{OperationKind, check::Check};
use crate::{Error, Matrix, RowFormat, Rows, Tensor};

/// `streams[t][i] = table[tokens[t]]` for every stream `i`.
#[derive(Clone, Copy, Debug)]
pub struct Embed<'a> {
    /// `[V, d]`.
    pub table: &'a Matrix,
    /// `I32 [T]`, each below `V`.
    pub tokens: &'a Tensor,
    /// Output, `F32 [T, n, d]`.
    pub streams: &'a Tensor,
}

impl Embed<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::Embed,
        };
        check.rank("streams", self.streams, 3)?;
        let shape = self.streams.shape();
        check.f32("streams", self.streams, shape)?;
        check.matrix("table", self.table, self.table.rows(), shape[2])?;
        check.i32("tokens", self.tokens, &[shape[0]])?;
        check.disjoint(("streams", self.streams), &[("tokens", self.tokens)])
    }
}

/// `out = weight * x / sqrt(mean(x^2) + epsilon)` over the innermost dimension.
///
/// Official: the result is rounded to bf16. Without a weight (the per-head query norm) the square, the mean, the
/// reciprocal root and the product are each rounded to bf16.
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm<'a> {
    /// `F32 [T, w]`.
    pub x: &'a Tensor,
    /// `F32 [w]` or `BF16 [w]`, or none for a norm without weight.
    pub weight: Option<&'a Tensor>,
    /// Added to the mean square.
    pub epsilon: f32,
    /// Output, `F32 [T, w]`; may be `x` itself.
    pub out: &'a Tensor,
}

impl RmsNorm<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::RmsNorm,
        };
        check.rank("x", self.x, 2)?;
        let shape = self.x.shape();
        check.f32("x", self.x, shape)?;
        check.f32("out", self.out, shape)?;
        if let Some(weight) = self.weight {
            check.vector("weight", weight, shape[1])?;
            check.disjoint(("out", self.out), &[("weight", weight)])?;
        }
        check_in_place(&check, self.x, self.out)
    }
}

/// `out[t][i] = (cos, sin)` of `positions[t] * frequencies[i]`.
///
/// The angle is the `f32` product of the `f32` position and the `f32` frequency, as in the reference; its cosine
/// and sine are exact to `f32`.
#[derive(Clone, Copy, Debug)]
pub struct RopeAngles<'a> {
    /// `I32 [T]`.
    pub positions: &'a Tensor,
    /// `F32 [R / 2]`.
    pub frequencies: &'a Tensor,
    /// Output, `F32 [T, R / 2, 2]`.
    pub out: &'a Tensor,
}

impl RopeAngles<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::RopeAngles,
        };
        let (row_count, pair_count) = (self.positions.element_count(), self.frequencies.element_count());
        check.i32("positions", self.positions, &[row_count])?;
        check.f32("frequencies", self.frequencies, &[pair_count])?;
        check.f32("out", self.out, &[row_count, pair_count, 2])?;
        check.disjoint(
            ("out", self.out),
            &[("positions", self.positions), ("frequencies", self.frequencies)],
        )
    }
}

/// Which way [`Rope`] turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeDirection {
    /// Queries and keys.
    Forward,
    /// The attention output: its values are rotated keys.
    Inverse,
}

/// Rotates adjacent pairs of the last `R` channels of every head in place:
/// `(a, b) -> (a cos - b sin, a sin + b cos)`, with the sine negated for the inverse.
///
/// Official: the rotated channels are rounded to bf16.
#[derive(Clone, Copy, Debug)]
pub struct Rope<'a> {
    /// `F32 [T, H, D]`, changed in place.
    pub x: &'a Tensor,
    /// `F32 [T, R / 2, 2]` from [`RopeAngles`].
    pub angles: &'a Tensor,
    /// Which way.
    pub direction: RopeDirection,
}

impl Rope<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::Rope,
        };
        check_rotated(&check, self.x, self.angles)
    }
}

/// Rotates the pairs `(c, c + R / 2)` of the first `R` channels of every head in place, forward, with the sums of
/// [`Rope`].
///
/// Official: the rotated channels are rounded to bf16.
#[derive(Clone, Copy, Debug)]
pub struct RopeHalves<'a> {
    /// `F32 [T, H, D]`, changed in place.
    pub x: &'a Tensor,
    /// `F32 [T, R / 2, 2]` from [`RopeAngles`].
    pub angles: &'a Tensor,
}

impl RopeHalves<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::RopeHalves,
        };
        check_rotated(&check, self.x, self.angles)
    }
}

/// Packs rows as `format` says.
#[derive(Clone, Copy, Debug)]
pub struct PackRows<'a> {
    /// `F32 [T, width]`.
    pub x: &'a Tensor,
    /// Rotary channels at the end of a row.
    pub tail: usize,
    /// How to pack.
    pub format: RowFormat,
    /// Output, `U8 [T, row bytes]`.
    pub out: &'a Tensor,
}

impl PackRows<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::PackRows,
        };
        check.rank("x", self.x, 2)?;
        let [row_count, width] = [self.x.shape()[0], self.x.shape()[1]];
        check.f32("x", self.x, &[row_count, width])?;
        check.require(self.tail <= width, || {
            format!("a tail of {} in {width} channels", self.tail)
        })?;
        check.hadamard(self.format, width)?;
        check.tensor(
            "out",
            self.out,
            Dtype::U8,
            &[row_count, self.format.byte_count(width, self.tail)],
        )?;
        check.disjoint(("out", self.out), &[("x", self.x)])
    }
}

/// Writes the rows of each sequence into its ring: position `p` goes to ring row `p mod (rows of a ring)`.
///
/// If a sequence has more rows in this step than its ring holds, only the last ones are written.
#[derive(Clone, Copy, Debug)]
pub struct WriteTail<'a> {
    /// Where the rows belong.
    pub rows: Rows<'a>,
    /// `[T, w]` of any dtype.
    pub x: &'a Tensor,
    /// `[slots, rows of a ring, w]` of the same dtype, changed in place.
    pub ring: &'a Tensor,
}

impl WriteTail<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::WriteTail,
        };
        check.rows(&self.rows)?;
        check.rank("x", self.x, 2)?;
        let width = self.x.shape()[1];
        check.tensor("x", self.x, self.x.dtype(), &[self.rows.row_count(), width])?;
        check.tail("ring", self.ring, self.x.dtype(), width)?;
        check.disjoint(("ring", self.ring), &[("x", self.x)])?;
        check.disjoint(("ring", self.ring), &self.rows.tensors())
    }
}

/// `out = a + b`.
///
/// Official: the sum is rounded to bf16.
#[derive(Clone, Copy, Debug)]
pub struct Add<'a> {
    /// `F32`, any shape.
    pub a: &'a Tensor,
    /// `F32`, the same shape.
    pub b: &'a Tensor,
    /// Output, the same shape; may be `a` itself.
    pub out: &'a Tensor,
}

impl Add<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::Add,
        };
        let shape = self.a.shape();
        check.f32("a", self.a, shape)?;
        check.f32("b", self.b, shape)?;
        check.f32("out", self.out, shape)?;
        check.disjoint(("out", self.out), &[("b", self.b)])?;
        check_in_place(&check, self.a, self.out)
    }
}

/// `out[i] = x[rows[i]]` over the outermost dimension.
#[derive(Clone, Copy, Debug)]
pub struct GatherRows<'a> {
    /// `[T, ...]` of any dtype.
    pub x: &'a Tensor,
    /// `I32 [N]`, each below `T`.
    pub rows: &'a Tensor,
    /// Output, `[N, ...]`.
    pub out: &'a Tensor,
}

impl GatherRows<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::GatherRows,
        };
        check.i32("rows", self.rows, &[self.rows.element_count()])?;
        let mut shape = self.x.shape().to_vec();
        check.require(!shape.is_empty(), || "'x' has no rows".to_owned())?;
        shape[0] = self.rows.element_count();
        check.tensor("out", self.out, self.x.dtype(), &shape)?;
        check.disjoint(("out", self.out), &[("x", self.x), ("rows", self.rows)])
    }
}

/// Copies a tensor of any dtype.
#[derive(Clone, Copy, Debug)]
pub struct CopyTensor<'a> {
    /// Source.
    pub x: &'a Tensor,
    /// Output, the same dtype and shape.
    pub out: &'a Tensor,
}

impl CopyTensor<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::CopyTensor,
        };
        check.tensor("out", self.out, self.x.dtype(), self.x.shape())?;
        check.disjoint(("out", self.out), &[("x", self.x)])
    }
}

/// An output may be exactly its input, but may not overlap it otherwise.
fn check_in_place(check: &Check, x: &Tensor, out: &Tensor) -> Result<(), Error> {
    let same = x.overlaps(out) && x.byte_offset() == out.byte_offset();
    if same {
        Ok(())
    } else {
        check.disjoint(("out", out), &[("x", x)])
    }
}

/// Heads and the angles that turn some of their channels.
fn check_rotated(check: &Check, x: &Tensor, angles: &Tensor) -> Result<(), Error> {
    check.rank("x", x, 3)?;
    check.rank("angles", angles, 3)?;
    let (shape, pair_count) = (x.shape(), angles.shape()[1]);
    check.f32("x", x, shape)?;
    check.f32("angles", angles, &[shape[0], pair_count, 2])?;
    check.require(2 * pair_count <= shape[2], || {
        format!("{} rotary channels in heads of {}", 2 * pair_count, shape[2])
    })?;
    check.disjoint(("x", x), &[("angles", angles)])
}
