//! One step of V4 through all layers.

use cachalot_checkpoint::DeepseekV4Config;
use cachalot_chip::{Embed, GatherRows, HyperHead, LinearRounding, Tensor};

use super::{
    V4,
    memory::{LayerState, Memory, OutputRows},
    weights::Layer,
    workspace::Workspace,
};
use crate::{
    DraftRequest, Error,
    draft::{Choose, DraftContext},
    family::Forward,
    step::Step,
};

/// Everything that the parts of a forward pass share.
pub(super) struct Pass<'a> {
    pub step: &'a Step<'a>,
    pub model: &'a V4,
    pub config: &'a DeepseekV4Config,
    /// Of the step's rows.
    pub workspace: Workspace,
}

impl Forward for Memory {
    fn forward(&mut self, step: &Step<'_>) -> Result<Option<Tensor>, Error> {
        let pass = Pass::begin(&self.model, step, &self.workspace)?;
        pass.expect_hashed();
        step.enqueue(Embed {
            table: &self.model.weights.embed,
            tokens: &step.inputs.tokens,
            streams: &pass.workspace.streams,
        })?;
        for (layer, state) in self.layers.iter().enumerate() {
            pass.layer(layer, state)?;
            pass.tap(layer, self.drafter.as_ref())?;
        }
        pass.head(&mut self.output)
    }

    fn draft(
        &mut self,
        context: &DraftContext<'_>,
        requests: &mut [DraftRequest<'_>],
        choose: &mut Choose<'_>,
    ) -> Result<Vec<Vec<u32>>, Error> {
        self.draft_all(context, requests, choose)
    }
}

impl<'a> Pass<'a> {
    /// Computes what all layers share.
    pub fn begin(model: &'a V4, step: &'a Step<'a>, workspace: &Workspace) -> Result<Self, Error> {
        let workspace = workspace.narrow(step.row_count);
        step.angles(&model.plain_frequencies, &workspace.plain_angles)?;
        step.angles(&model.compressed_frequencies, &workspace.compressed_angles)?;
        Ok(Pass {
            step,
            model,
            config: &model.config,
            workspace,
        })
    }

    pub fn layer(&self, layer: usize, state: &LayerState) -> Result<(), Error> {
        self.block(
            &self.model.weights.layers[layer],
            state,
            self.config.compress_ratio(layer),
        )
    }

    /// One layer over the streams: attention of compression `ratio`, then experts.
    pub fn block(&self, weights: &Layer, state: &LayerState, ratio: usize) -> Result<(), Error> {
        self.expect_rows(&weights.experts);
        self.enter(&weights.attention_hyper, &weights.attention_norm)?;
        self.attention(&weights.attention, state, ratio)?;
        self.leave()?;
        self.feed_forward(weights)
    }

    /// The second half of a layer.
    pub fn feed_forward(&self, weights: &Layer) -> Result<(), Error> {
        self.enter(&weights.experts_hyper, &weights.experts_norm)?;
        self.experts(&weights.experts)?;
        self.leave()
    }

    fn head(&self, output: &mut Option<OutputRows>) -> Result<Option<Tensor>, Error> {
        let (step, config, row_count) = (self.step, self.config, self.step.output_row_count);
        if row_count == 0 {
            return Ok(None);
        }
        if output
            .as_ref()
            .is_none_or(|output| output.logits.shape()[0] < row_count)
        {
            *output = Some(OutputRows::new(step.chip, config, row_count)?);
        }
        let output = output.as_ref().expect("was just made").narrow(row_count);
        let (weights, hyper) = (&self.model.weights, &self.model.weights.hyper_head);
        step.enqueue(GatherRows {
            x: &self.workspace.streams,
            rows: &step.inputs.output_rows,
            out: &output.streams,
        })?;
        step.enqueue(HyperHead {
            streams: &output.streams,
            function: &hyper.function,
            scale: &hyper.scale,
            base: &hyper.base,
            epsilon: config.hc_eps,
            norm_epsilon: config.rms_norm_eps,
            out: &output.collapsed,
        })?;
        self.rms_norm(&output.collapsed, Some(&weights.norm))?;
        step.linear(&output.collapsed, &weights.head, LinearRounding::F32, &output.logits)?;
        Ok(Some(output.logits))
    }
}
