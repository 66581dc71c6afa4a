//! How large values may be: some ten times what the largest release uses, so that nothing derived
//! from them can overflow.

use super::{
    Architecture,
    fields::{DOWNLOAD_AGAIN, Fields},
};
use crate::{Error, accounting};

pub(crate) const VOCABULARY: usize = 1 << 24;
pub(crate) const WIDTH: usize = 1 << 18;
pub(crate) const LAYERS: usize = 1024;
pub(crate) const STAGES: usize = 64;
pub(crate) const HEADS: usize = 1 << 14;
pub(crate) const HEAD_DIM: usize = 1 << 14;
pub(crate) const EXPERTS: usize = 1 << 14;
pub(crate) const SHARED_EXPERTS: usize = 64;
/// Entries that a token selects: a row of that many is written for each token of a step.
pub(crate) const TOP_K: usize = 1 << 16;
pub(crate) const WINDOW: usize = 1 << 16;
pub(crate) const STREAMS: usize = 16;
pub(crate) const SINKHORN_ROUNDS: usize = 1000;
pub(crate) const POSITIONS: usize = 1 << 30;
pub(crate) const STOP_TOKENS: usize = 64;
pub(crate) const DRAFT_BLOCK: usize = 256;
pub(crate) const BLOCK: usize = 1024;
pub(crate) const THETA: f64 = 1e12;
pub(crate) const ROPE_FACTOR: f64 = 1e6;
/// Elements of one tensor.
pub(crate) const TENSOR_ELEMENTS: u128 = 1 << 48;
/// Tensors of a checkpoint; V4-Pro has 149,782.
pub(crate) const TENSORS: u64 = 1 << 21;
/// Bytes of a checkpoint.
pub(crate) const BYTES: u128 = 1 << 60;

/// Bounds what the values amount to together, before anything is allocated for them.
pub(super) fn check_size(config: &dyn Architecture, fields: &Fields<'_>) -> Result<(), Error> {
    let count = accounting::tensor_count_bound(config);
    if count > TENSORS {
        let expected = format!("a model of at most {} tensors", TENSORS);
        return Err(broken(
            fields,
            "n_routed_experts",
            config.routed_expert_count(),
            expected,
        ));
    }
    let (elements_max, bytes) = accounting::size_bounds(config);
    if elements_max > TENSOR_ELEMENTS || bytes > BYTES {
        let expected = "sizes whose tensors fit in 2^60 bytes together and 2^48 elements each".into();
        return Err(broken(fields, "hidden_size", config.hidden_size(), expected));
    }
    Ok(())
}

pub(super) fn broken(fields: &Fields<'_>, key: &str, value: usize, expected: String) -> Error {
    fields.refuse(key, value.to_string(), expected, DOWNLOAD_AGAIN)
}
