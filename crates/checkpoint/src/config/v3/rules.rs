//! What must hold between values.

use super::DeepseekV3Config;
use crate::{
    Error,
    config::{
        fields::Fields,
        limits::{broken, check_size},
        parts::check_ramp,
    },
};

pub(super) fn check(config: &DeepseekV3Config, fields: &Fields<'_>) -> Result<(), Error> {
    let c = config;
    if !c.qk_rope_head_dim.is_multiple_of(2) {
        let expected = "an even number, channels rotate in pairs".into();
        return Err(broken(fields, "qk_rope_head_dim", c.qk_rope_head_dim, expected));
    }
    let group_size = c.n_routed_experts / c.n_group;
    if !c.n_routed_experts.is_multiple_of(c.n_group) || (c.n_group > 1 && group_size < 2) {
        let expected = format!(
            "groups of at least 2 of {} experts (n_routed_experts)",
            c.n_routed_experts
        );
        return Err(broken(fields, "n_group", c.n_group, expected));
    }
    if c.topk_group > c.n_group {
        let expected = format!("at most {} (n_group)", c.n_group);
        return Err(broken(fields, "topk_group", c.topk_group, expected));
    }
    let candidates = group_size * c.topk_group;
    if c.num_experts_per_tok > candidates {
        let expected = format!(
            "at most {candidates}, the experts of {} groups (topk_group)",
            c.topk_group
        );
        return Err(broken(fields, "num_experts_per_tok", c.num_experts_per_tok, expected));
    }
    if let Some(indexer) = c.indexer {
        if c.qk_rope_head_dim > indexer.index_head_dim {
            let expected = format!("at most {} (index_head_dim)", indexer.index_head_dim);
            return Err(broken(fields, "qk_rope_head_dim", c.qk_rope_head_dim, expected));
        }
        if !indexer.index_head_dim.is_power_of_two() {
            let expected = "a power of two, index keys may pass a Hadamard transform".into();
            return Err(broken(fields, "index_head_dim", indexer.index_head_dim, expected));
        }
    }
    check_ramp(config.rope_scaling, fields)?;
    check_size(config, fields)
}
