use super::{OperationKind, check::Check};
use crate::{Error, Tensor};

/// Mixing weights of a hyper-connection, and the sub-layer's input (V4 architecture, section 2).
///
/// With `f` the `n * d` values of all streams and `m = (function * f) / sqrt(mean(f^2) + norm_epsilon)`:
/// `pre_i = sigmoid(m_i * scale[0] + base_i) + epsilon`, `post_i = 2 sigmoid(m_{n+i} * scale[1] + base_{n+i})`,
/// `comb` = Sinkhorn of `m_{2n + n i + j} * scale[2] + base_{2n + n i + j}` (row `i` source, column `j` destination),
/// `input = sum_i pre_i * streams_i`.
///
/// Official: `input` is rounded to bf16; the weights stay `f32`.
#[derive(Clone, Copy, Debug)]
pub struct HyperMix<'a> {
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
    /// Output, `F32 [T, d]`.
    pub input: &'a Tensor,
    /// Output, `F32 [T, n]`.
    pub post: &'a Tensor,
    /// Output, `F32 [T, n, n]`, `[source][destination]`.
    pub comb: &'a Tensor,
}

impl HyperMix<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::HyperMix,
        };
        check.rank("streams", self.streams, 3)?;
        let [t, n, d] = [
            self.streams.shape()[0],
            self.streams.shape()[1],
            self.streams.shape()[2],
        ];
        let mix_count = (2 + n) * n;
        check.require(n > 0 && self.sinkhorn_iterations > 0, || {
            "no streams or no Sinkhorn iterations".to_owned()
        })?;
        check.f32("streams", self.streams, &[t, n, d])?;
        check.f32("function", self.function, &[mix_count, n * d])?;
        check.f32("scale", self.scale, &[3])?;
        check.f32("base", self.base, &[mix_count])?;
        check.f32("input", self.input, &[t, d])?;
        check.f32("post", self.post, &[t, n])?;
        check.f32("comb", self.comb, &[t, n, n])?;
        let inputs = [
            ("streams", self.streams),
            ("function", self.function),
            ("scale", self.scale),
            ("base", self.base),
        ];
        let outputs = [("input", self.input), ("post", self.post), ("comb", self.comb)];
        for (index, output) in outputs.into_iter().enumerate() {
            check.disjoint(output, &inputs)?;
            check.disjoint(output, &outputs[index + 1..])?;
        }
        Ok(())
    }
}

/// `streams[j] = post[j] * y + sum_i comb[i][j] * streams[i]`, in place.
///
/// Official: the new streams are rounded to bf16.
#[derive(Clone, Copy, Debug)]
pub struct HyperPost<'a> {
    /// `F32 [T, d]`: the sub-layer's output.
    pub y: &'a Tensor,
    /// `F32 [T, n]`.
    pub post: &'a Tensor,
    /// `F32 [T, n, n]`.
    pub comb: &'a Tensor,
    /// `F32 [T, n, d]`, changed in place.
    pub streams: &'a Tensor,
}

impl HyperPost<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::HyperPost,
        };
        check.rank("streams", self.streams, 3)?;
        let [t, n, d] = [
            self.streams.shape()[0],
            self.streams.shape()[1],
            self.streams.shape()[2],
        ];
        check.f32("streams", self.streams, &[t, n, d])?;
        check.f32("y", self.y, &[t, d])?;
        check.f32("post", self.post, &[t, n])?;
        check.f32("comb", self.comb, &[t, n, n])?;
        check.disjoint(
            ("streams", self.streams),
            &[("y", self.y), ("post", self.post), ("comb", self.comb)],
        )
    }
}

/// `out = sum_i pre_i * streams_i` with `pre_i = sigmoid(m_i * scale[0] + base_i) + epsilon`, `m` as in [`HyperMix`].
///
/// Official: the result is rounded to bf16.
#[derive(Clone, Copy, Debug)]
pub struct HyperHead<'a> {
    /// `F32 [T, n, d]`.
    pub streams: &'a Tensor,
    /// `F32 [n, n d]`.
    pub function: &'a Tensor,
    /// `F32 [1]`.
    pub scale: &'a Tensor,
    /// `F32 [n]`.
    pub base: &'a Tensor,
    /// Added to each weight.
    pub epsilon: f32,
    /// Epsilon of the norm.
    pub norm_epsilon: f32,
    /// Output, `F32 [T, d]`.
    pub out: &'a Tensor,
}

impl HyperHead<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::HyperHead,
        };
        check.rank("streams", self.streams, 3)?;
        let [t, n, d] = [
            self.streams.shape()[0],
            self.streams.shape()[1],
            self.streams.shape()[2],
        ];
        check.f32("streams", self.streams, &[t, n, d])?;
        check.f32("function", self.function, &[n, n * d])?;
        check.f32("scale", self.scale, &[1])?;
        check.f32("base", self.base, &[n])?;
        check.f32("out", self.out, &[t, d])?;
        check.disjoint(
            ("out", self.out),
            &[
                ("streams", self.streams),
                ("function", self.function),
                ("scale", self.scale),
                ("base", self.base),
            ],
        )
    }
}
