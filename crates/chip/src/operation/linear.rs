use super::{OperationKind, check::Check};
use crate::{Error, Matrix, Tensor};

/// What [`Mode::Official`](crate::Mode::Official) rounds around a matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinearRounding {
    /// The input is rounded to FP8 for each row and group of 128 channels (UE8M0 scale), the output to bf16.
    QuantisedInput,
    /// As [`LinearRounding::QuantisedInput`], in groups of 32 channels (V4.1).
    FineQuantisedInput,
    /// The output is rounded to bf16.
    Bf16,
    /// Nothing is rounded.
    F32,
}

/// `out[t] = weight * x[t]`.
///
/// Official: as [`LinearRounding`] says.
#[derive(Clone, Copy, Debug)]
pub struct Linear<'a> {
    /// `F32 [T, columns]`.
    pub x: &'a Tensor,
    /// `[rows, columns]`.
    pub weight: &'a Matrix,
    /// Rounding in official mode.
    pub rounding: LinearRounding,
    /// Output, `F32 [T, rows]`.
    pub out: &'a Tensor,
}

impl Linear<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::Linear,
        };
        check.rank("x", self.x, 2)?;
        let row_count = self.x.shape()[0];
        check.f32("x", self.x, &[row_count, self.weight.columns()])?;
        check.f32("out", self.out, &[row_count, self.weight.rows()])?;
        check.disjoint(("out", self.out), &[("x", self.x)])
    }
}

/// `out[t][g] = weight[g * rows / groups .. (g + 1) * rows / groups] * x[t][g]` for every group `g`.
///
/// Official: the output is rounded to bf16, the input is not (the output projection `wo_a`).
#[derive(Clone, Copy, Debug)]
pub struct GroupedLinear<'a> {
    /// `F32 [T, groups, columns]`.
    pub x: &'a Tensor,
    /// `[rows, columns]`, `rows` a multiple of `groups`.
    pub weight: &'a Matrix,
    /// Output, `F32 [T, rows]`.
    pub out: &'a Tensor,
}

impl GroupedLinear<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::GroupedLinear,
        };
        check.rank("x", self.x, 3)?;
        let [row_count, group_count] = [self.x.shape()[0], self.x.shape()[1]];
        check.f32("x", self.x, &[row_count, group_count, self.weight.columns()])?;
        check.require(
            group_count > 0 && self.weight.rows().is_multiple_of(group_count),
            || format!("{} rows do not divide into {group_count} groups", self.weight.rows()),
        )?;
        check.f32("out", self.out, &[row_count, self.weight.rows()])?;
        check.disjoint(("out", self.out), &[("x", self.x)])
    }
}
