//! One step of V3 through all layers.

use cachalot_checkpoint::DeepseekV3Config;
use cachalot_chip::{Add, Embed, GatherRows, LinearRounding, RmsNorm, Tensor};

use super::{
    V3,
    memory::{LayerState, Memory, OutputRows, Workspace},
};
use crate::{Error, family::Forward, step::Step};

/// Everything that the parts of a forward pass share.
pub(super) struct Pass<'a> {
    pub step: &'a Step<'a>,
    pub model: &'a V3,
    pub config: &'a DeepseekV3Config,
    /// Of the step's rows.
    pub workspace: Workspace,
}

impl Forward for Memory {
    fn forward(&mut self, step: &Step<'_>) -> Result<Option<Tensor>, Error> {
        let pass = Pass {
            step,
            model: &self.model,
            config: &self.model.config,
            workspace: self.workspace.narrow(step.row_count),
        };
        let hidden = &pass.workspace.hidden;
        step.angles(&self.model.frequencies, &pass.workspace.angles)?;
        step.enqueue(Embed {
            table: &self.model.weights.embed,
            tokens: &step.inputs.tokens,
            streams: &hidden.reshape(&[step.row_count, 1, pass.config.hidden_size]),
        })?;
        for (layer, state) in self.layers.iter().enumerate() {
            pass.layer(layer, state)?;
        }
        pass.head(&mut self.output)
    }
}

impl Pass<'_> {
    fn layer(&self, layer: usize, state: &LayerState) -> Result<(), Error> {
        let weights = &self.model.weights.layers[layer];
        self.expect_rows(&weights.feed_forward);
        self.enter(&weights.attention_norm)?;
        self.attention(&weights.attention, state)?;
        self.leave()?;
        self.enter(&weights.feed_forward_norm)?;
        self.feed_forward(&weights.feed_forward)?;
        self.leave()
    }

    /// The normalised input of a sub-layer.
    fn enter(&self, norm: &Tensor) -> Result<(), Error> {
        self.step.enqueue(RmsNorm {
            x: &self.workspace.hidden,
            weight: Some(norm),
            epsilon: self.config.rms_norm_eps,
            out: &self.workspace.input,
        })
    }

    /// Adds the sub-layer's output to the residual stream.
    fn leave(&self) -> Result<(), Error> {
        let workspace = &self.workspace;
        self.step.enqueue(Add {
            a: &workspace.hidden,
            b: &workspace.output,
            out: &workspace.hidden,
        })
    }

    fn head(&self, output: &mut Option<OutputRows>) -> Result<Option<Tensor>, Error> {
        let (step, weights, row_count) = (self.step, &self.model.weights, self.step.output_row_count);
        if row_count == 0 {
            return Ok(None);
        }
        if output
            .as_ref()
            .is_none_or(|output| output.logits.shape()[0] < row_count)
        {
            *output = Some(OutputRows::new(step.chip, self.config, row_count)?);
        }
        let output = output.as_ref().expect("was just made").narrow(row_count);
        step.enqueue(GatherRows {
            x: &self.workspace.hidden,
            rows: &step.inputs.output_rows,
            out: &output.hidden,
        })?;
        step.rms_norm(&output.hidden, Some(&weights.norm), self.config.rms_norm_eps)?;
        step.linear(&output.hidden, &weights.head, LinearRounding::F32, &output.logits)?;
        Ok(Some(output.logits))
    }
}
