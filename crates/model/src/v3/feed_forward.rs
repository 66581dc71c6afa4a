//! Dense layers and experts in groups (V3 notes, sections 2 and 4).

use cachalot_chip::{Add, Expected, ExpertMatrices, Experts, LinearRounding, Route, RouteChoice, SwiGlu, Tensor};

use super::{pass::Pass, weights::FeedForward};
use crate::Error;

/// V3 does not clamp.
const NO_LIMIT: f32 = f32::INFINITY;

impl Pass<'_> {
    /// Tells the chip before a layer's attention that its experts come next.
    pub(super) fn expect_rows(&self, feed_forward: &FeedForward) {
        if let FeedForward::Experts { routed, .. } = feed_forward {
            let rows = Expected::Rows(self.step.row_count);
            self.step.chip.expect_experts(routed, rows);
        }
    }

    /// The second half of a layer: `workspace.input` into `workspace.output`.
    pub(super) fn feed_forward(&self, feed_forward: &FeedForward) -> Result<(), Error> {
        let (step, workspace, config) = (self.step, &self.workspace, self.config);
        let (gate, bias, routed, shared) = match feed_forward {
            FeedForward::Dense(matrices) => return self.dense(matrices, &workspace.output),
            FeedForward::Experts {
                gate,
                bias,
                routed,
                shared,
            } => (gate, bias, routed, shared),
        };
        step.linear(&workspace.input, gate, LinearRounding::F32, &workspace.router_logits)?;
        step.enqueue(Route {
            logits: &workspace.router_logits,
            choice: RouteChoice::Grouped {
                bias,
                group_count: config.n_group,
                kept_group_count: config.topk_group,
            },
            normalise: config.norm_topk_prob,
            scale: config.routed_scaling_factor,
            experts: &workspace.chosen,
            weights: &workspace.chosen_weights,
        })?;
        // While they are on their way, the shared experts are computed.
        step.chip.expect_experts(routed, Expected::Chosen(&workspace.chosen));
        self.dense(shared, &workspace.shared_output)?;
        step.enqueue(Experts {
            x: &workspace.input,
            chosen: &workspace.chosen,
            weights: &workspace.chosen_weights,
            experts: routed,
            limit: NO_LIMIT,
            input_group: 128,
            out: &workspace.output,
        })?;
        step.enqueue(Add {
            a: &workspace.output,
            b: &workspace.shared_output,
            out: &workspace.output,
        })
    }

    /// `w2 (silu(w1 x) * w3 x)` of `workspace.input`.
    fn dense(&self, matrices: &ExpertMatrices, out: &Tensor) -> Result<(), Error> {
        let (step, x) = (self.step, &self.workspace.input);
        let inner = self.workspace.inner(matrices.w1.rows());
        let rounding = LinearRounding::QuantisedInput;
        step.linear(x, &matrices.w1, rounding, &inner.gate)?;
        step.linear(x, &matrices.w3, rounding, &inner.up)?;
        step.enqueue(SwiGlu {
            gate: &inner.gate,
            up: &inner.up,
            limit: NO_LIMIT,
            out: &inner.product,
        })?;
        step.linear(&inner.product, &matrices.w2, rounding, out)
    }
}
