//! From keys to values: both spellings, DeepSeek's and transformers'.

use serde_json::json;

use super::{DeepseekV4Config, Dspark};
use crate::{
    Error,
    config::{
        RopeScaling,
        fields::{DOWNLOAD_AGAIN, Fields},
        limits,
        parts::{eos_token_ids, expert_dtype, low_bit, optional_theta, quantization, rope_scaling, single, token_id},
    },
};

pub(super) fn config(fields: &Fields<'_>) -> Result<DeepseekV4Config, Error> {
    refuse_variants(fields)?;
    let num_hidden_layers = fields.count("num_hidden_layers", limits::LAYERS)?;
    let head_dim = fields.count("head_dim", limits::HEAD_DIM)?;
    let vocab_size = fields.count("vocab_size", limits::VOCABULARY)?;
    let rope = rope(fields)?;
    let (compress_ratios, stages_known) = compress_ratios(fields, num_hidden_layers)?;
    let eos_token_ids = eos_token_ids(fields, vocab_size)?;
    Ok(DeepseekV4Config {
        vocab_size,
        hidden_size: fields.count("hidden_size", limits::WIDTH)?,
        num_hidden_layers,
        num_attention_heads: fields.count("num_attention_heads", limits::HEADS)?,
        head_dim,
        qk_rope_head_dim: qk_rope_head_dim(fields, head_dim)?,
        q_lora_rank: fields.count("q_lora_rank", limits::WIDTH)?,
        o_lora_rank: fields.count("o_lora_rank", limits::WIDTH)?,
        o_groups: fields.count("o_groups", limits::HEADS)?,
        moe_intermediate_size: fields.count("moe_intermediate_size", limits::WIDTH)?,
        n_routed_experts: fields.count("n_routed_experts", limits::EXPERTS)?,
        n_shared_experts: 1,
        num_experts_per_tok: fields.count("num_experts_per_tok", limits::EXPERTS)?,
        num_hash_layers: num_hash_layers(fields, num_hidden_layers)?,
        index_n_heads: fields.count("index_n_heads", limits::HEADS)?,
        index_head_dim: fields.count("index_head_dim", limits::HEAD_DIM)?,
        index_topk: fields.count("index_topk", limits::TOP_K)?,
        hc_mult: fields.count("hc_mult", limits::STREAMS)?,
        hc_sinkhorn_iters: fields.count("hc_sinkhorn_iters", limits::SINKHORN_ROUNDS)?,
        hc_eps: single(fields, "hc_eps", 1.0)?,
        rms_norm_eps: single(fields, "rms_norm_eps", 1.0)?,
        rope_theta: rope.theta,
        compress_rope_theta: rope.compress_theta,
        rope_scaling: rope.scaling,
        sliding_window: fields.count("sliding_window", limits::WINDOW)?,
        swiglu_limit: single(fields, "swiglu_limit", 1e9)?,
        routed_scaling_factor: single(fields, "routed_scaling_factor", 1e9)?,
        norm_topk_prob: fields.boolean("norm_topk_prob")?,
        max_position_embeddings: fields.count("max_position_embeddings", limits::POSITIONS)?,
        bos_token_id: match fields.get("bos_token_id") {
            Some(_) => token_id(fields, "bos_token_id", vocab_size)?,
            None => 0,
        },
        eos_token_id: eos_token_ids[0],
        eos_token_ids,
        expert_dtype: expert_dtype(fields)?,
        quantization: quantization(fields)?,
        low_bit: low_bit(fields)?,
        dspark: match stages_known && compress_ratios.len() > num_hidden_layers {
            true => dspark(fields, num_hidden_layers, vocab_size)?,
            false => None,
        },
        compress_ratios,
    })
}

/// Switches that exist in config.json but have one position in all V4 releases.
fn refuse_variants(fields: &Fields<'_>) -> Result<(), Error> {
    for (key, only) in [
        ("num_key_value_heads", json!(1)),
        ("n_shared_experts", json!(1)),
        ("hidden_act", json!("silu")),
        ("scoring_func", json!("sqrtsoftplus")),
        ("topk_method", json!("noaux_tc")),
        ("attention_bias", json!(false)),
        ("mlp_bias", json!(false)),
        ("tie_word_embeddings", json!(false)),
        ("compress_rate_csa", json!(4)),
        ("compress_rate_hca", json!(128)),
    ] {
        fields.fixed(key, only)?;
    }
    if let Some(rates) = fields.object("compress_rates")? {
        rates.fixed("compressed_sparse_attention", json!(4))?;
        rates.fixed("heavily_compressed_attention", json!(128))?;
    }
    Ok(())
}

fn qk_rope_head_dim(fields: &Fields<'_>, head_dim: usize) -> Result<usize, Error> {
    if fields.get("qk_rope_head_dim").is_some() || fields.get("partial_rotary_factor").is_none() {
        return fields.count("qk_rope_head_dim", head_dim);
    }
    let factor = fields.positive("partial_rotary_factor", 1.0)?;
    Ok((head_dim as f64 * factor) as usize)
}

/// Ratios of main layers and stages, and whether the file tells of stages at all: transformers' spelling
/// (`layer_types`) covers main layers only, because it drops the rest.
fn compress_ratios(fields: &Fields<'_>, num_hidden_layers: usize) -> Result<(Vec<usize>, bool), Error> {
    let key = "compress_ratios";
    if fields.get(key).is_some() || fields.get("layer_types").is_none() {
        let longest = limits::LAYERS + limits::STAGES;
        let expected = "the ratios 0 (window only), 4 (CSA) and 128 (HCA)";
        let ratios = fields.integers(key, longest, expected, |r| matches!(r, 0 | 4 | 128))?;
        let stages = ratios.len().checked_sub(num_hidden_layers);
        if stages.is_none_or(|stages| stages > limits::STAGES) {
            let expected = format!(
                "one for each of the {num_hidden_layers} layers (num_hidden_layers) and up to {} more for MTP or DSpark",
                limits::STAGES
            );
            let found = format!("a list of {}", ratios.len());
            return Err(fields.refuse(key, found, expected, DOWNLOAD_AGAIN));
        }
        return Ok((ratios, true));
    }
    let ratios = layer_types(fields, "layer_types", num_hidden_layers, |kind| match kind {
        "sliding_attention" => Some(0),
        "compressed_sparse_attention" => Some(4),
        "heavily_compressed_attention" => Some(128),
        _ => None,
    })?;
    Ok((ratios, false))
}

fn num_hash_layers(fields: &Fields<'_>, num_hidden_layers: usize) -> Result<usize, Error> {
    if fields.get("num_hash_layers").is_some() || fields.get("mlp_layer_types").is_none() {
        return fields.integer("num_hash_layers", 0, num_hidden_layers);
    }
    let key = "mlp_layer_types";
    let hashed = layer_types(fields, key, num_hidden_layers, |kind| match kind {
        "hash_moe" => Some(true),
        "moe" => Some(false),
        _ => None,
    })?;
    let count = hashed.iter().take_while(|hashed| **hashed).count();
    match hashed[count..].contains(&true) {
        false => Ok(count),
        true => {
            let expected = "\"hash_moe\" in the first layers only".into();
            Err(fields.wrong(key, fields.require(key)?, expected))
        }
    }
}

/// One word for each main layer, translated by `meaning`.
fn layer_types<T>(
    fields: &Fields<'_>,
    key: &str,
    num_hidden_layers: usize,
    meaning: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, Error> {
    let value = fields.require(key)?;
    value
        .as_array()
        .filter(|list| list.len() == num_hidden_layers)
        .and_then(|list| {
            let words = list.iter().map(|word| word.as_str().and_then(&meaning));
            words.collect()
        })
        .ok_or_else(|| {
            let expected = format!("the kinds of the {num_hidden_layers} layers as transformers names them");
            fields.wrong(key, value, expected)
        })
}

struct Rope {
    theta: f64,
    compress_theta: f64,
    scaling: Option<RopeScaling>,
}

/// DeepSeek: `rope_theta`, `compress_rope_theta`, `rope_scaling`. Transformers: `rope_parameters`, either
/// the same as `rope_scaling` or split in `main` and `compress`.
fn rope(fields: &Fields<'_>) -> Result<Rope, Error> {
    let mut theta = optional_theta(fields, "rope_theta")?;
    let mut compress_theta = optional_theta(fields, "compress_rope_theta")?;
    let mut scaling_fields = fields.object("rope_scaling")?;
    if let Some(parameters) = fields.object("rope_parameters")? {
        if let Some(main) = parameters.object("main")? {
            theta = optional_theta(&main, "rope_theta")?.or(theta);
            main.fixed("rope_type", json!("default"))?;
        }
        match parameters.object("compress")? {
            Some(compress) => {
                compress_theta = optional_theta(&compress, "rope_theta")?.or(compress_theta);
                scaling_fields = Some(compress);
            }
            None if scaling_fields.is_none() => scaling_fields = Some(parameters),
            None => {}
        }
    }
    let scaling = match scaling_fields {
        Some(scaling) => rope_scaling(&scaling)?,
        None => None,
    };
    Ok(Rope {
        theta: theta.ok_or_else(|| fields.missing("rope_theta"))?,
        compress_theta: compress_theta.ok_or_else(|| fields.missing("compress_rope_theta"))?,
        scaling,
    })
}

/// The `dspark_*` keys: all or none.
fn dspark(fields: &Fields<'_>, num_hidden_layers: usize, vocab_size: usize) -> Result<Option<Dspark>, Error> {
    if !fields.map.keys().any(|key| key.starts_with("dspark_")) {
        return Ok(None);
    }
    let key = "dspark_target_layer_ids";
    let expected = format!("layers below {num_hidden_layers} (num_hidden_layers), at least one");
    let target_layer_ids = fields.integers(key, limits::STAGES, &expected, |layer| layer < num_hidden_layers)?;
    if target_layer_ids.is_empty() {
        return Err(fields.wrong(key, fields.require(key)?, expected));
    }
    Ok(Some(Dspark {
        block_size: fields.count("dspark_block_size", limits::DRAFT_BLOCK)?,
        noise_token_id: token_id(fields, "dspark_noise_token_id", vocab_size)?,
        target_layer_ids,
        markov_rank: fields.count("dspark_markov_rank", limits::WIDTH)?,
    }))
}
