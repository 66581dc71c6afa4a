//! What must hold between values, and how large each may be.

use super::{DeepseekV4Config, fields::Fields};
use crate::{Error, accounting};

/// Upper bounds of single values: some ten times what the largest release uses, so that nothing derived
/// from them can overflow.
pub(super) mod limits {
    pub const VOCABULARY: usize = 1 << 24;
    pub const WIDTH: usize = 1 << 18;
    pub const LAYERS: usize = 1024;
    pub const STAGES: usize = 64;
    pub const HEADS: usize = 1 << 14;
    pub const HEAD_DIM: usize = 1 << 14;
    pub const EXPERTS: usize = 1 << 14;
    /// Entries that a token selects: a row of that many is written for each token of a step.
    pub const TOP_K: usize = 1 << 16;
    pub const WINDOW: usize = 1 << 16;
    pub const STREAMS: usize = 16;
    pub const SINKHORN_ROUNDS: usize = 1000;
    pub const POSITIONS: usize = 1 << 30;
    pub const STOP_TOKENS: usize = 64;
    pub const DRAFT_BLOCK: usize = 256;
    pub const BLOCK: usize = 1024;
    pub const THETA: f64 = 1e12;
    pub const ROPE_FACTOR: f64 = 1e6;
    /// Elements of one tensor.
    pub const TENSOR_ELEMENTS: u128 = 1 << 48;
    /// Tensors of a checkpoint; V4-Pro has 149,782.
    pub const TENSORS: u64 = 1 << 21;
    /// Bytes of a checkpoint.
    pub const BYTES: u128 = 1 << 60;
}

pub(super) fn check(config: &DeepseekV4Config, fields: &Fields<'_>) -> Result<(), Error> {
    let c = config;
    let at_most = |key: &str, value: usize, other: &str, bound: usize| match value <= bound {
        true => Ok(()),
        false => Err(broken(fields, key, value, format!("at most {bound} ({other})"))),
    };
    at_most(
        "num_experts_per_tok",
        c.num_experts_per_tok,
        "n_routed_experts",
        c.n_routed_experts,
    )?;
    at_most("qk_rope_head_dim", c.qk_rope_head_dim, "head_dim", c.head_dim)?;
    at_most(
        "qk_rope_head_dim",
        c.qk_rope_head_dim,
        "index_head_dim",
        c.index_head_dim,
    )?;
    if !c.qk_rope_head_dim.is_multiple_of(2) || c.qk_rope_head_dim == 0 {
        let expected = "an even number above 0, channels rotate in pairs".into();
        return Err(broken(fields, "qk_rope_head_dim", c.qk_rope_head_dim, expected));
    }
    if !c.index_head_dim.is_power_of_two() {
        let expected = "a power of two, index keys pass a Hadamard transform".into();
        return Err(broken(fields, "index_head_dim", c.index_head_dim, expected));
    }
    if !c.num_attention_heads.is_multiple_of(c.o_groups) {
        let expected = format!("a multiple of {} (o_groups)", c.o_groups);
        return Err(broken(fields, "num_attention_heads", c.num_attention_heads, expected));
    }
    if let Some(ratio) = c.compress_ratios[c.num_hidden_layers..].iter().find(|r| **r != 0) {
        let expected = format!(
            "0 behind the {} main layers (num_hidden_layers), MTP and DSpark see a window only",
            c.num_hidden_layers
        );
        return Err(broken(fields, "compress_ratios", *ratio, expected));
    }
    if let Some(scaling) = c.rope_scaling
        && scaling.beta_fast <= scaling.beta_slow
    {
        let expected = format!("above {} (beta_slow)", scaling.beta_slow);
        return Err(fields.refuse(
            "rope_scaling.beta_fast",
            scaling.beta_fast.to_string(),
            expected,
            super::fields::DOWNLOAD_AGAIN,
        ));
    }
    check_size(config, fields)
}

/// Bounds what the values amount to together, before anything is allocated for them.
fn check_size(config: &DeepseekV4Config, fields: &Fields<'_>) -> Result<(), Error> {
    let count = accounting::tensor_count_bound(config);
    if count > limits::TENSORS {
        let expected = format!("a model of at most {} tensors", limits::TENSORS);
        return Err(broken(fields, "n_routed_experts", config.n_routed_experts, expected));
    }
    let (elements_max, bytes) = accounting::size_bounds(config);
    if elements_max > limits::TENSOR_ELEMENTS || bytes > limits::BYTES {
        let expected = "sizes whose tensors fit in 2^60 bytes together and 2^48 elements each".into();
        return Err(broken(fields, "hidden_size", config.hidden_size, expected));
    }
    Ok(())
}

fn broken(fields: &Fields<'_>, key: &str, value: usize, expected: String) -> Error {
    fields.refuse(key, value.to_string(), expected, super::fields::DOWNLOAD_AGAIN)
}
