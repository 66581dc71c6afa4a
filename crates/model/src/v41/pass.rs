//! One step of V4.1 through all layers.

use cachalot_checkpoint::DeepseekV41Config;
use cachalot_chip::{Embed, GatherRows, HyperCollapse, HyperPost, HyperWeights, LinearRounding, Tensor};

use super::{
    RowFormats, V41,
    memory::{LayerState, Memory, OutputRows},
    weights::Hyper,
    workspace::Workspace,
};
use crate::{Error, family::Forward, step::Step};

/// Everything that the parts of a forward pass share.
pub(super) struct Pass<'a> {
    pub step: &'a Step<'a>,
    pub model: &'a V41,
    pub config: &'a DeepseekV41Config,
    pub formats: RowFormats,
    /// Of all layers: followers read what sources keep.
    pub layers: &'a [LayerState],
    /// Of the step's rows.
    pub workspace: Workspace,
}

impl Forward for Memory {
    fn forward(&mut self, step: &Step<'_>) -> Result<Option<Tensor>, Error> {
        let pass = Pass {
            step,
            model: &self.model,
            config: &self.model.config,
            formats: RowFormats::new(step.options),
            layers: &self.layers,
            workspace: self.workspace.narrow(step.row_count),
        };
        step.angles(&self.model.plain_frequencies, &pass.workspace.plain_angles)?;
        step.angles(&self.model.compressed_frequencies, &pass.workspace.compressed_angles)?;
        pass.fold_tokens()?;
        step.enqueue(Embed {
            table: &self.model.weights.embed,
            tokens: &step.inputs.tokens,
            streams: &pass.workspace.streams,
        })?;
        for layer in 0..self.layers.len() {
            pass.layer(layer, self.ids_tail.as_ref())?;
        }
        pass.keep_tokens(self.ids_tail.as_ref())?;
        pass.head(&mut self.output)
    }
}

impl Pass<'_> {
    fn layer(&self, layer: usize, ids_tail: Option<&Tensor>) -> Result<(), Error> {
        let (weights, workspace) = (&self.model.weights.layers[layer], &self.workspace);
        self.expect_rows(&weights.experts);
        if let (Some(engram), Some(ids_tail)) = (&weights.engram, ids_tail) {
            self.engram(engram, ids_tail)?;
        }
        let pre = match layer {
            0 => &workspace.first_pre,
            _ => &workspace.attention_pre,
        };
        // The weights of a sub-layer are those of its streams, but collapse the streams of the next one.
        self.mix(&weights.attention_hyper, &workspace.experts_pre)?;
        self.collapse(pre, &weights.attention_norm)?;
        self.attention(&weights.attention, layer)?;
        self.leave()?;
        self.mix(&weights.experts_hyper, &workspace.attention_pre)?;
        self.collapse(&workspace.experts_pre, &weights.experts_norm)?;
        self.experts(&weights.experts)?;
        self.leave()
    }

    /// The weights of a sub-layer, `pre` for the next one.
    fn mix(&self, hyper: &Hyper, pre: &Tensor) -> Result<(), Error> {
        let (workspace, config) = (&self.workspace, self.config);
        self.step.enqueue(HyperWeights {
            streams: &workspace.streams,
            function: &hyper.function,
            scale: &hyper.scale,
            base: &hyper.base,
            sinkhorn_iterations: config.hc_sinkhorn_iters,
            epsilon: config.hc_eps,
            norm_epsilon: config.rms_norm_eps,
            pre,
            post: &workspace.post,
            comb: &workspace.comb,
        })
    }

    /// The normalised input of a sub-layer.
    fn collapse(&self, pre: &Tensor, norm: &Tensor) -> Result<(), Error> {
        let workspace = &self.workspace;
        self.step.enqueue(HyperCollapse {
            streams: &workspace.streams,
            pre,
            out: &workspace.input,
        })?;
        self.rms_norm(&workspace.input, norm)
    }

    /// Adds the sub-layer's output to the streams.
    fn leave(&self) -> Result<(), Error> {
        let workspace = &self.workspace;
        self.step.enqueue(HyperPost {
            y: &workspace.output,
            post: &workspace.post,
            comb: &workspace.comb,
            streams: &workspace.streams,
        })
    }

    /// Normalises rows in place.
    pub(super) fn rms_norm(&self, x: &Tensor, weight: &Tensor) -> Result<(), Error> {
        self.step.rms_norm(x, Some(weight), self.config.rms_norm_eps)
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
        for (x, out) in [
            (&self.workspace.streams, &output.streams),
            (&self.workspace.attention_pre, &output.pre),
        ] {
            step.enqueue(GatherRows {
                x,
                rows: &step.inputs.output_rows,
                out,
            })?;
        }
        step.enqueue(HyperCollapse {
            streams: &output.streams,
            pre: &output.pre,
            out: &output.collapsed,
        })?;
        self.rms_norm(&output.collapsed, &self.model.weights.norm)?;
        let head = &self.model.weights.head;
        step.linear(&output.collapsed, head, LinearRounding::F32, &output.logits)?;
        Ok(Some(output.logits))
    }
}
