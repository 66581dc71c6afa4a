//! The hyper-connection around a sub-layer.

use cachalot_chip::{HyperMix, HyperPost, RmsNorm, Tensor};

use crate::{Error, step::Step, weights::Hyper};

impl Step<'_> {
    /// Mixes the streams into the normalised input of a sub-layer.
    pub(crate) fn enter(&self, hyper: &Hyper, norm: &Tensor) -> Result<(), Error> {
        let (workspace, config) = (&self.workspace, self.config);
        self.enqueue(HyperMix {
            streams: &workspace.streams,
            function: &hyper.function,
            scale: &hyper.scale,
            base: &hyper.base,
            sinkhorn_iterations: config.hc_sinkhorn_iters,
            epsilon: config.hc_eps,
            norm_epsilon: config.rms_norm_eps,
            input: &workspace.input,
            post: &workspace.post,
            comb: &workspace.comb,
        })?;
        self.rms_norm(&workspace.input, Some(norm))
    }

    /// Adds the sub-layer's output to the streams.
    pub(crate) fn leave(&self) -> Result<(), Error> {
        let workspace = &self.workspace;
        self.enqueue(HyperPost {
            y: &workspace.output,
            post: &workspace.post,
            comb: &workspace.comb,
            streams: &workspace.streams,
        })
    }

    /// Normalises rows in place.
    pub(crate) fn rms_norm(&self, x: &Tensor, weight: Option<&Tensor>) -> Result<(), Error> {
        self.enqueue(RmsNorm {
            x,
            weight,
            epsilon: self.config.rms_norm_eps,
            out: x,
        })
    }
}
