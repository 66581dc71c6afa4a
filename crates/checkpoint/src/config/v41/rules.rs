//! What must hold between values.

use super::{DeepseekV41Config, LayerRole};
use crate::{
    Error,
    config::{
        fields::Fields,
        limits::{broken, check_size},
        parts::check_ramp,
    },
};

pub(super) fn check(config: &DeepseekV41Config, fields: &Fields<'_>) -> Result<(), Error> {
    let c = config;
    for (key, value, other, bound) in [
        (
            "num_experts_per_tok",
            c.num_experts_per_tok,
            "n_routed_experts",
            c.n_routed_experts,
        ),
        ("qk_rope_head_dim", c.qk_rope_head_dim, "head_dim", c.head_dim),
        (
            "qk_rope_head_dim",
            c.qk_rope_head_dim,
            "index_head_dim",
            c.index_head_dim,
        ),
    ] {
        at_most(fields, key, value, other, bound)?;
    }
    if let Some(dspark) = &c.dspark {
        let (experts, used) = (dspark.n_routed_experts, dspark.num_experts_per_tok);
        let (key, used_key) = ("dspark_n_routed_experts", "dspark_num_experts_per_tok");
        at_most(fields, key, experts, "n_routed_experts", c.n_routed_experts)?;
        at_most(fields, used_key, used, key, experts)?;
    }
    if !c.qk_rope_head_dim.is_multiple_of(2) {
        let expected = "an even number above 0, channels rotate in pairs".into();
        return Err(broken(fields, "qk_rope_head_dim", c.qk_rope_head_dim, expected));
    }
    if !c.num_attention_heads.is_multiple_of(c.o_groups) {
        let expected = format!("a multiple of {} (o_groups)", c.o_groups);
        return Err(broken(fields, "num_attention_heads", c.num_attention_heads, expected));
    }
    if let Some(ratio) = c.compress_ratios[c.num_hidden_layers..].iter().find(|r| **r != 0) {
        let expected = format!(
            "0 behind the {} main layers (num_hidden_layers), DSpark sees a window only",
            c.num_hidden_layers
        );
        return Err(broken(fields, "compress_ratios", *ratio, expected));
    }
    check_sources(config, fields)?;
    check_candidates(config, fields)?;
    check_ramp(config.rope_scaling, fields)?;
    check_size(config, fields)
}

fn at_most(fields: &Fields<'_>, key: &str, value: usize, other: &str, bound: usize) -> Result<(), Error> {
    match value <= bound {
        true => Ok(()),
        false => Err(broken(fields, key, value, format!("at most {bound} ({other})"))),
    }
}

/// Every layer with entries follows a source of its ratio, and a selection among that source's entries.
fn check_sources(config: &DeepseekV41Config, fields: &Fields<'_>) -> Result<(), Error> {
    for layer in 0..config.num_hidden_layers {
        let wrong = |key: &str, expected: String| Err(broken(fields, key, layer, expected));
        let (ratio, role) = (config.compress_ratios[layer], config.layer_role(layer));
        match role {
            LayerRole::Window if ratio == 0 => {
                for (key, is_source) in [
                    ("kv_source_layer_ids", config.is_kv_source(layer)),
                    ("index_source_layer_ids", config.is_index_source(layer)),
                ] {
                    if is_source {
                        return wrong(key, "no layer whose compression is 0 (compress_ratios)".into());
                    }
                }
            }
            LayerRole::Window => {
                let expected =
                    format!("a layer that is or follows a source of both lists (its compression is {ratio})");
                return wrong("kv_source_layer_ids", expected);
            }
            LayerRole::Shared {
                kv_source,
                index_source,
                ..
            } => {
                if config.compress_ratios[kv_source] != ratio {
                    let expected = format!("a layer with the compression of its source {kv_source}");
                    return wrong("kv_source_layer_ids", expected);
                }
                if index_source < kv_source {
                    let expected = format!("a layer whose selection is made among entries of layer {kv_source}");
                    return wrong("index_source_layer_ids", expected);
                }
            }
        }
    }
    Ok(())
}

/// Blocks are picked among the entries that later layers select from.
fn check_candidates(config: &DeepseekV41Config, fields: &Fields<'_>) -> Result<(), Error> {
    let Some(candidates) = config.candidates else {
        return Ok(());
    };
    let (key, source) = ("candidate_source_layer_id", candidates.source_layer);
    if !config.is_kv_source(source) || !config.is_index_source(source) {
        let expected = "a layer of kv_source_layer_ids and index_source_layer_ids".into();
        return Err(broken(fields, key, source, expected));
    }
    match config.kv_source_layer_ids.iter().find(|other| **other > source) {
        None => Ok(()),
        Some(other) => {
            let expected = format!("the last layer of kv_source_layer_ids, not one before {other}");
            Err(broken(fields, key, source, expected))
        }
    }
}
