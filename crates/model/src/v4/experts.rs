//! The mixture of experts (V4 architecture, section 6).

use cachalot_chip::{Add, Expected, Experts, LinearRounding, Route, RouteChoice, SwiGlu};

use super::{
    pass::Pass,
    weights::{self, Choice},
};
use crate::Error;

impl Pass<'_> {
    /// Tells the chip at the start of a step which experts its layers will use, where the tokens alone say it.
    pub(super) fn expect_hashed(&self) {
        for layer in &self.model.weights.layers {
            if let Choice::Hash { table } = &layer.experts.choice {
                let tokens = &self.step.inputs.tokens;
                self.step
                    .chip
                    .expect_experts(&layer.experts.routed, Expected::Hash { table, tokens });
            }
        }
    }

    /// Tells the chip before a layer's attention that its experts come next.
    pub(super) fn expect_rows(&self, experts: &weights::Experts) {
        if let Choice::Biased { .. } = experts.choice {
            self.step
                .chip
                .expect_experts(&experts.routed, Expected::Rows(self.step.row_count));
        }
    }

    /// Routed and shared experts of `workspace.input` into `workspace.output`.
    pub(super) fn experts(&self, experts: &weights::Experts) -> Result<(), Error> {
        let (workspace, config) = (&self.workspace, self.config);
        self.step.linear(
            &workspace.input,
            &experts.gate,
            LinearRounding::F32,
            &workspace.router_logits,
        )?;
        let choice = match &experts.choice {
            Choice::Hash { table } => RouteChoice::Hash {
                table,
                tokens: &self.step.inputs.tokens,
            },
            Choice::Biased { bias } => RouteChoice::Biased { bias },
        };
        self.step.enqueue(Route {
            logits: &workspace.router_logits,
            choice,
            normalise: config.norm_topk_prob,
            scale: config.routed_scaling_factor,
            experts: &workspace.chosen,
            weights: &workspace.chosen_weights,
        })?;
        // While they are on their way, the shared expert is computed.
        self.step
            .chip
            .expect_experts(&experts.routed, Expected::Chosen(&workspace.chosen));

        let rounding = LinearRounding::QuantisedInput;
        self.step
            .linear(&workspace.input, &experts.shared.w1, rounding, &workspace.shared_gate)?;
        self.step
            .linear(&workspace.input, &experts.shared.w3, rounding, &workspace.shared_up)?;
        self.step.enqueue(SwiGlu {
            gate: &workspace.shared_gate,
            up: &workspace.shared_up,
            limit: config.swiglu_limit,
            out: &workspace.shared_hidden,
        })?;
        self.step.linear(
            &workspace.shared_hidden,
            &experts.shared.w2,
            rounding,
            &workspace.shared_output,
        )?;
        self.step.enqueue(Experts {
            x: &workspace.input,
            chosen: &workspace.chosen,
            weights: &workspace.chosen_weights,
            experts: &experts.routed,
            limit: config.swiglu_limit,
            input_group: 128,
            out: &workspace.output,
        })?;
        self.step.enqueue(Add {
            a: &workspace.output,
            b: &workspace.shared_output,
            out: &workspace.output,
        })
    }
}
