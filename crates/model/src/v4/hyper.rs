//! The hyper-connection around a sub-layer.

use cachalot_chip::{HyperMix, HyperPost, Tensor};

use super::{pass::Pass, weights::Hyper};
use crate::Error;

impl Pass<'_> {
    /// Mixes the streams into the normalised input of a sub-layer.
    pub(super) fn enter(&self, hyper: &Hyper, norm: &Tensor) -> Result<(), Error> {
        let (workspace, config) = (&self.workspace, self.config);
        self.step.enqueue(HyperMix {
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
    pub(super) fn leave(&self) -> Result<(), Error> {
        let workspace = &self.workspace;
        self.step.enqueue(HyperPost {
            y: &workspace.output,
            post: &workspace.post,
            comb: &workspace.comb,
            streams: &workspace.streams,
        })
    }

    /// Normalises rows in place.
    pub(super) fn rms_norm(&self, x: &Tensor, weight: Option<&Tensor>) -> Result<(), Error> {
        self.step.rms_norm(x, weight, self.config.rms_norm_eps)
    }
}
