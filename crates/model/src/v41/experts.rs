//! The mixture of experts (V4.1 notes, section 6).

use cachalot_chip::{Add, Expected, Experts, LinearRounding, Route, RouteChoice, SwiGlu};

use super::{pass::Pass, weights};
use crate::Error;

impl Pass<'_> {
    /// Tells the chip before a layer's attention that its experts come next.
    pub(super) fn expect_rows(&self, experts: &weights::Experts) {
        let expected = Expected::Rows(self.step.row_count);
        self.step.chip.expect_experts(&experts.routed, expected);
    }

    /// Routed and shared experts of `workspace.input` into `workspace.output`.
    pub(super) fn experts(&self, experts: &weights::Experts) -> Result<(), Error> {
        let (step, workspace, config) = (self.step, &self.workspace, self.config);
        let (input, rounding) = (&workspace.input, LinearRounding::FineQuantisedInput);
        step.linear(input, &experts.gate, LinearRounding::F32, &workspace.router_logits)?;
        step.enqueue(Route {
            logits: &workspace.router_logits,
            choice: RouteChoice::Biased { bias: &experts.bias },
            normalise: config.norm_topk_prob,
            scale: config.routed_scaling_factor,
            experts: &workspace.chosen,
            weights: &workspace.chosen_weights,
        })?;
        // While they are on their way, the shared expert is computed.
        let expected = Expected::Chosen(&workspace.chosen);
        step.chip.expect_experts(&experts.routed, expected);
        let shared = &experts.shared;
        step.linear(input, &shared.w1, rounding, &workspace.shared_gate)?;
        step.linear(input, &shared.w3, rounding, &workspace.shared_up)?;
        step.enqueue(SwiGlu {
            gate: &workspace.shared_gate,
            up: &workspace.shared_up,
            limit: config.swiglu_limit,
            out: &workspace.shared_hidden,
        })?;
        let (hidden, output) = (&workspace.shared_hidden, &workspace.shared_output);
        step.linear(hidden, &shared.w2, rounding, output)?;
        step.enqueue(Experts {
            x: input,
            chosen: &workspace.chosen,
            weights: &workspace.chosen_weights,
            experts: &experts.routed,
            limit: config.swiglu_limit,
            input_group: 32,
            out: &workspace.output,
        })?;
        step.enqueue(Add {
            a: &workspace.output,
            b: &workspace.shared_output,
            out: &workspace.output,
        })
    }
}
