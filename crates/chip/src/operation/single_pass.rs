//! Hyper-connections whose mixing weights are one sub-layer older than its streams (V4.1).

use super::{OperationKind, check::Check};
use crate::{Error, Tensor};

/// Mixing weights of a hyper-connection: those of [`HyperMix`](super::HyperMix), without the sub-layer's input.
#[derive(Clone, Copy, Debug)]
pub struct HyperWeights<'a> {
    /// `F32 [T, n, d]`.
    pub streams: &'a Tensor,
    /// `F32 [(2 + n) n, n d]`.
    pub function: &'a Tensor,
    /// `F32 [3]`.
    pub scale: &'a Tensor,
    /// `F32 [(2 + n) n]`.
    pub base: &'a Tensor,
    /// Sinkhorn iterations, at least 1; part of the model.
    pub sinkhorn_iterations: usize,
    /// Sinkhorn and `pre` epsilon.
    pub epsilon: f32,
    /// Epsilon of the norm.
    pub norm_epsilon: f32,
    /// Output, `F32 [T, n]`: for [`HyperCollapse`] of a later sub-layer.
    pub pre: &'a Tensor,
    /// Output, `F32 [T, n]`.
    pub post: &'a Tensor,
    /// Output, `F32 [T, n, n]`, `[source][destination]`.
    pub comb: &'a Tensor,
}

impl HyperWeights<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::HyperWeights,
        };
        check.rank("streams", self.streams, 3)?;
        let [t, n, d] = [0, 1, 2].map(|side| self.streams.shape()[side]);
        let mix_count = (2 + n) * n;
        check.require(n > 0 && self.sinkhorn_iterations > 0, || {
            "no streams or no Sinkhorn iterations".to_owned()
        })?;
        check.f32("streams", self.streams, &[t, n, d])?;
        check.f32("function", self.function, &[mix_count, n * d])?;
        check.f32("scale", self.scale, &[3])?;
        check.f32("base", self.base, &[mix_count])?;
        check.f32("pre", self.pre, &[t, n])?;
        check.f32("post", self.post, &[t, n])?;
        check.f32("comb", self.comb, &[t, n, n])?;
        let inputs = [
            ("streams", self.streams),
            ("function", self.function),
            ("scale", self.scale),
            ("base", self.base),
        ];
        let outputs = [("pre", self.pre), ("post", self.post), ("comb", self.comb)];
        for (index, output) in outputs.into_iter().enumerate() {
            check.disjoint(output, &inputs)?;
            check.disjoint(output, &outputs[index + 1..])?;
        }
        Ok(())
    }
}

/// `out = sum_i pre_i * streams_i`.
///
/// Official: the result is rounded to bf16.
#[derive(Clone, Copy, Debug)]
pub struct HyperCollapse<'a> {
    /// `F32 [T, n, d]`.
    pub streams: &'a Tensor,
    /// `F32 [T, n]`.
    pub pre: &'a Tensor,
    /// Output, `F32 [T, d]`.
    pub out: &'a Tensor,
}

impl HyperCollapse<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::HyperCollapse,
        };
        check.rank("streams", self.streams, 3)?;
        let [t, n, d] = [0, 1, 2].map(|side| self.streams.shape()[side]);
        check.f32("streams", self.streams, &[t, n, d])?;
        check.f32("pre", self.pre, &[t, n])?;
        check.f32("out", self.out, &[t, d])?;
        check.disjoint(("out", self.out), &[("streams", self.streams), ("pre", self.pre)])
    }
}
