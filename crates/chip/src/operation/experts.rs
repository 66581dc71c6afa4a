use cachalot_numerics::Dtype;

use super::{OperationKind, check::Check};
use crate::{Error, Matrix, Tensor};

/// How [`Route`] picks experts.
#[derive(Clone, Copy, Debug)]
pub enum RouteChoice<'a> {
    /// The `k` largest of `score + bias`; the bias counts for the choice only.
    Biased {
        /// `F32 [E]`.
        bias: &'a Tensor,
    },
    /// V3: scores are sigmoids. Experts stand in groups of equal size, a group counts as the sum of its two largest
    /// `score + bias`, and the `k` largest of `score + bias` are taken from the `kept_group_count` best groups. Ties go to
    /// the lower group and the lower expert.
    Grouped {
        /// `F32 [E]`.
        bias: &'a Tensor,
        /// Groups of experts; 1 for no groups.
        group_count: usize,
        /// Groups that experts are taken from.
        kept_group_count: usize,
    },
    /// A fixed choice for each token id.
    Hash {
        /// `I64 [V, k]`, each below `E`.
        table: &'a Tensor,
        /// `I32 [T]`, each below `V`.
        tokens: &'a Tensor,
    },
}

/// Chooses `k` experts for each row and weighs them (V4 architecture, section 6).
///
/// `score = sqrt(softplus(logits))`, or the sigmoid for [`RouteChoice::Grouped`]; `weights = score[experts] / sum(score[experts]) * scale` (without the division if
/// `normalise` is off). The experts of a row are written in ascending order.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    /// `F32 [T, E]`.
    pub logits: &'a Tensor,
    /// How to choose.
    pub choice: RouteChoice<'a>,
    /// Whether the chosen scores are divided by their sum.
    pub normalise: bool,
    /// `routed_scaling_factor`.
    pub scale: f32,
    /// Output, `I32 [T, k]`.
    pub experts: &'a Tensor,
    /// Output, `F32 [T, k]`.
    pub weights: &'a Tensor,
}

impl Route<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::Route,
        };
        check.rank("logits", self.logits, 2)?;
        check.rank("experts", self.experts, 2)?;
        let [row_count, expert_count] = [self.logits.shape()[0], self.logits.shape()[1]];
        let choice_count = self.experts.shape()[1];
        check.f32("logits", self.logits, &[row_count, expert_count])?;
        check.i32("experts", self.experts, &[row_count, choice_count])?;
        check.f32("weights", self.weights, &[row_count, choice_count])?;
        check.require((1..=expert_count).contains(&choice_count), || {
            format!("{choice_count} of {expert_count} experts")
        })?;
        let outputs = [("experts", self.experts), ("weights", self.weights)];
        check.disjoint(outputs[0], &outputs[1..])?;
        for output in outputs {
            check.disjoint(output, &[("logits", self.logits)])?;
        }
        match self.choice {
            RouteChoice::Biased { bias } => {
                check.f32("bias", bias, &[expert_count])?;
                outputs
                    .into_iter()
                    .try_for_each(|output| check.disjoint(output, &[("bias", bias)]))
            }
            RouteChoice::Grouped {
                bias,
                group_count,
                kept_group_count,
            } => {
                check.f32("bias", bias, &[expert_count])?;
                let is_divided = group_count == 1 || expert_count >= 2 * group_count;
                check.require(
                    group_count > 0 && expert_count.is_multiple_of(group_count) && is_divided,
                    || format!("{expert_count} experts do not divide into {group_count} groups of at least 2"),
                )?;
                let kept = (1..=group_count).contains(&kept_group_count);
                check.require(
                    kept && choice_count <= expert_count / group_count * kept_group_count,
                    || format!("{choice_count} experts from {kept_group_count} of {group_count} groups"),
                )?;
                outputs
                    .into_iter()
                    .try_for_each(|output| check.disjoint(output, &[("bias", bias)]))
            }
            RouteChoice::Hash { table, tokens } => {
                check.rank("table", table, 2)?;
                check.tensor("table", table, Dtype::I64, &[table.shape()[0], choice_count])?;
                check.i32("tokens", tokens, &[row_count])?;
                outputs
                    .into_iter()
                    .try_for_each(|output| check.disjoint(output, &[("table", table), ("tokens", tokens)]))
            }
        }
    }
}

/// The three matrices of one expert.
#[derive(Clone, Debug)]
pub struct ExpertMatrices {
    /// Gate, `[I, d]`.
    pub w1: Matrix,
    /// Down, `[d, I]`.
    pub w2: Matrix,
    /// Up, `[I, d]`.
    pub w3: Matrix,
}

/// `out[t] = sum_e weight_e * w2_e ( silu(min(w1_e x, limit)) * clamp(w3_e x, -limit, limit) )` over the row's experts,
/// in ascending expert order.
///
/// Official: the input is rounded to FP8 in groups of `input_group`; `w1 x` and `w3 x` to bf16; the routing weight is multiplied
/// into the SwiGLU product, which is rounded to bf16 and then to FP8 in such groups; each expert's output is rounded
/// to bf16; the sum stays `f32`.
#[derive(Clone, Copy, Debug)]
pub struct Experts<'a> {
    /// `F32 [T, d]`.
    pub x: &'a Tensor,
    /// `I32 [T, k]`, ascending in each row, each below the number of experts.
    pub chosen: &'a Tensor,
    /// `F32 [T, k]`.
    pub weights: &'a Tensor,
    /// All experts of the layer, of equal shapes.
    pub experts: &'a [ExpertMatrices],
    /// `swiglu_limit`.
    pub limit: f32,
    /// Channels that share a scale of rounded inputs, above zero: 128, in V4.1 32.
    pub input_group: usize,
    /// Output, `F32 [T, d]`.
    pub out: &'a Tensor,
}

impl Experts<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::Experts,
        };
        check.rank("x", self.x, 2)?;
        check.rank("chosen", self.chosen, 2)?;
        let [row_count, width] = [self.x.shape()[0], self.x.shape()[1]];
        let choices = [row_count, self.chosen.shape()[1]];
        check.f32("x", self.x, &[row_count, width])?;
        check.i32("chosen", self.chosen, &choices)?;
        check.f32("weights", self.weights, &choices)?;
        check.f32("out", self.out, &[row_count, width])?;
        check.require(self.input_group > 0, || "input groups of no channels".to_owned())?;
        let Some(first) = self.experts.first() else {
            return Err(check.argument("no experts".to_owned()));
        };
        let inner = first.w1.rows();
        for expert in self.experts {
            check.matrix("w1", &expert.w1, inner, width)?;
            check.matrix("w3", &expert.w3, inner, width)?;
            check.matrix("w2", &expert.w2, width, inner)?;
        }
        check.disjoint(
            ("out", self.out),
            &[("x", self.x), ("chosen", self.chosen), ("weights", self.weights)],
        )
    }
}

/// `out = silu(min(gate, limit)) * clamp(up, -limit, limit)`.
///
/// Official: the result is rounded to bf16.
#[derive(Clone, Copy, Debug)]
pub struct SwiGlu<'a> {
    /// `F32 [T, I]`.
    pub gate: &'a Tensor,
    /// `F32 [T, I]`.
    pub up: &'a Tensor,
    /// `swiglu_limit`.
    pub limit: f32,
    /// Output, `F32 [T, I]`.
    pub out: &'a Tensor,
}

impl SwiGlu<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::SwiGlu,
        };
        let shape = self.gate.shape();
        check.f32("gate", self.gate, shape)?;
        check.f32("up", self.up, shape)?;
        check.f32("out", self.out, shape)?;
        check.disjoint(("out", self.out), &[("gate", self.gate), ("up", self.up)])
    }
}
