//! The mixture of experts (V4 architecture, section 6).

use cachalot_chip::{Add, Expected, Experts, LinearRounding, Route, RouteChoice, SwiGlu};

use crate::{
    Error,
    step::Step,
    weights::{self, Choice},
};

impl Step<'_> {
    /// Tells the chip at the start of a step which experts the layers of `layers` will use, where the tokens alone say it.
    pub(crate) fn expect_hashed(&self, layers: &[weights::Layer]) {
        for layer in layers {
            if let Choice::Hash { table } = &layer.experts.choice {
                let tokens = &self.inputs.tokens;
                self.chip
                    .expect_experts(&layer.experts.routed, Expected::Hash { table, tokens });
            }
        }
    }

    /// Tells the chip before a layer's attention that its experts come next.
    pub(crate) fn expect_rows(&self, experts: &weights::Experts) {
        if let Choice::Biased { .. } = experts.choice {
            self.chip
                .expect_experts(&experts.routed, Expected::Rows(self.row_count));
        }
    }

    /// Routed and shared experts of `workspace.input` into `workspace.output`.
    pub(crate) fn experts(&self, experts: &weights::Experts) -> Result<(), Error> {
        let (workspace, config) = (&self.workspace, self.config);
        self.linear(
            &workspace.input,
            &experts.gate,
            LinearRounding::F32,
            &workspace.router_logits,
        )?;
        let choice = match &experts.choice {
            Choice::Hash { table } => RouteChoice::Hash {
                table,
                tokens: &self.inputs.tokens,
            },
            Choice::Biased { bias } => RouteChoice::Biased { bias },
        };
        self.enqueue(Route {
            logits: &workspace.router_logits,
            choice,
            normalise: config.norm_topk_prob,
            scale: config.routed_scaling_factor,
            experts: &workspace.chosen,
            weights: &workspace.chosen_weights,
        })?;
        // While they are on their way, the shared expert is computed.
        self.chip
            .expect_experts(&experts.routed, Expected::Chosen(&workspace.chosen));

        let rounding = LinearRounding::QuantisedInput;
        self.linear(&workspace.input, &experts.shared.w1, rounding, &workspace.shared_gate)?;
        self.linear(&workspace.input, &experts.shared.w3, rounding, &workspace.shared_up)?;
        self.enqueue(SwiGlu {
            gate: &workspace.shared_gate,
            up: &workspace.shared_up,
            limit: config.swiglu_limit,
            out: &workspace.shared_hidden,
        })?;
        self.linear(
            &workspace.shared_hidden,
            &experts.shared.w2,
            rounding,
            &workspace.shared_output,
        )?;
        self.enqueue(Experts {
            x: &workspace.input,
            chosen: &workspace.chosen,
            weights: &workspace.chosen_weights,
            experts: &experts.routed,
            limit: config.swiglu_limit,
            out: &workspace.output,
        })?;
        self.enqueue(Add {
            a: &workspace.output,
            b: &workspace.shared_output,
            out: &workspace.output,
        })
    }
}
