//! What must hold between values.

use super::DeepseekV4Config;
use crate::{
    Error,
    config::{
        fields::Fields,
        limits::{broken, check_size},
        parts::check_ramp,
    },
};

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
    check_ramp(config.rope_scaling, fields)?;
    check_size(config, fields)
}
