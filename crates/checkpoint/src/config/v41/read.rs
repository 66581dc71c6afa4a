//! From keys to values.

use serde_json::json;

use super::{Candidates, DeepseekV41Config, DsparkExperts, EngramConfig, TOKEN_MAP_KEY, VisionConfig};
use crate::{
    Error,
    config::{
        Dspark,
        fields::{DOWNLOAD_AGAIN, Fields},
        limits,
        parts::{eos_token_ids, low_bit, optional_theta, quantization, rope_scaling, single, token_id},
    },
};

/// `root` is the outer object, `fields` its `text_config`.
pub(super) fn config(root: &Fields<'_>, fields: &Fields<'_>) -> Result<DeepseekV41Config, Error> {
    refuse_variants(root, fields)?;
    let vocab_size = fields.count("vocab_size", limits::VOCABULARY)?;
    let num_hidden_layers = fields.count("num_hidden_layers", limits::LAYERS)?;
    let head_dim = fields.count("head_dim", limits::HEAD_DIM)?;
    let theta = |key: &str| optional_theta(fields, key)?.ok_or_else(|| fields.missing(key));
    let compress_ratios = compress_ratios(fields, num_hidden_layers)?;
    let sources = |key: &str| sources(fields, key, num_hidden_layers);
    if let Some(quantization) = root.object("quantization_config")? {
        quantization.fixed("expert_dtype", json!("fp4"))?;
    }
    Ok(DeepseekV41Config {
        vocab_size,
        hidden_size: fields.count("hidden_size", limits::WIDTH)?,
        num_hidden_layers,
        num_attention_heads: fields.count("num_attention_heads", limits::HEADS)?,
        head_dim,
        qk_rope_head_dim: fields.count("qk_rope_head_dim", head_dim)?,
        q_lora_rank: fields.count("q_lora_rank", limits::WIDTH)?,
        o_lora_rank: fields.count("o_lora_rank", limits::WIDTH)?,
        o_groups: fields.count("o_groups", limits::HEADS)?,
        moe_intermediate_size: fields.count("moe_intermediate_size", limits::WIDTH)?,
        n_routed_experts: fields.count("n_routed_experts", limits::EXPERTS)?,
        num_experts_per_tok: fields.count("num_experts_per_tok", limits::EXPERTS)?,
        index_n_heads: fields.count("index_n_heads", limits::HEADS)?,
        index_head_dim: fields.count("index_head_dim", limits::HEAD_DIM)?,
        index_topk: fields.count("index_topk", limits::TOP_K)?,
        hc_mult: fields.count("hc_mult", limits::STREAMS)?,
        hc_sinkhorn_iters: fields.count("hc_sinkhorn_iters", limits::SINKHORN_ROUNDS)?,
        hc_eps: single(fields, "hc_eps", 1.0)?,
        rms_norm_eps: single(fields, "rms_norm_eps", 1.0)?,
        rope_theta: theta("rope_theta")?,
        compress_rope_theta: theta("compress_rope_theta")?,
        rope_scaling: match fields.object("rope_scaling")? {
            Some(scaling) => rope_scaling(&scaling)?,
            None => None,
        },
        kv_source_layer_ids: sources("kv_source_layer_ids")?,
        index_source_layer_ids: sources("index_source_layer_ids")?,
        candidates: candidates(fields, num_hidden_layers)?,
        sliding_window: fields.count("sliding_window", limits::WINDOW)?,
        swiglu_limit: single(fields, "swiglu_limit", 1e9)?,
        routed_scaling_factor: single(fields, "routed_scaling_factor", 1e9)?,
        norm_topk_prob: fields.boolean("norm_topk_prob")?,
        max_position_embeddings: fields.count("max_position_embeddings", limits::POSITIONS)?,
        engram: EngramConfig::read(fields, num_hidden_layers, vocab_size)?,
        dspark: match compress_ratios.len() > num_hidden_layers {
            true => Some(dspark(fields, num_hidden_layers, vocab_size)?),
            false => None,
        },
        compress_ratios,
        bos_token_id: match root.get("bos_token_id") {
            Some(_) => token_id(root, "bos_token_id", vocab_size)?,
            None => 0,
        },
        eos_token_ids: eos_token_ids(root, vocab_size)?,
        image_token_id: match root.get("image_token_id") {
            Some(_) => Some(token_id(root, "image_token_id", vocab_size)?),
            None => None,
        },
        vision: match root.object("vision_config")? {
            Some(vision) => Some(vision_config(&vision)?),
            None => None,
        },
        folds_by_remainder: root.get(TOKEN_MAP_KEY).is_some(),
        quantization: quantization(root)?,
        low_bit: low_bit(root)?,
    })
}

/// Switches that have one position in the release.
fn refuse_variants(root: &Fields<'_>, fields: &Fields<'_>) -> Result<(), Error> {
    root.fixed(TOKEN_MAP_KEY, json!("modulo"))?;
    root.fixed("tie_word_embeddings", json!(false))?;
    for (key, only) in [
        ("num_key_value_heads", json!(1)),
        ("n_shared_experts", json!(1)),
        ("hidden_act", json!("silu")),
        ("scoring_func", json!("sqrtsoftplus")),
        ("topk_method", json!("noaux_tc")),
        ("attention_bias", json!(false)),
        ("tie_word_embeddings", json!(false)),
    ] {
        fields.fixed(key, only)?;
    }
    Ok(())
}

/// One ratio for each layer and stage.
fn compress_ratios(fields: &Fields<'_>, layer_count: usize) -> Result<Vec<usize>, Error> {
    let key = "compress_ratios";
    let longest = limits::LAYERS + limits::STAGES;
    let expected = "the ratios 0 (window only), 1 and 2";
    let ratios = fields.integers(key, longest, expected, |ratio| ratio <= 2)?;
    let stages = ratios.len().checked_sub(layer_count);
    if stages.is_none_or(|stages| stages > limits::STAGES) {
        let expected = format!(
            "one for each of the {layer_count} layers (num_hidden_layers) and up to {} more for DSpark",
            limits::STAGES
        );
        let found = format!("a list of {}", ratios.len());
        return Err(fields.refuse(key, found, expected, DOWNLOAD_AGAIN));
    }
    Ok(ratios)
}

/// Layers that others follow; an absent key is an empty list.
fn sources(fields: &Fields<'_>, key: &str, layer_count: usize) -> Result<Vec<usize>, Error> {
    if fields.get(key).is_none() {
        return Ok(Vec::new());
    }
    let expected = format!("layers below {layer_count} (num_hidden_layers), ascending");
    let layers = fields.integers(key, limits::LAYERS, &expected, |layer| layer < layer_count)?;
    match layers.is_sorted_by(|left, right| left < right) {
        true => Ok(layers),
        false => Err(fields.wrong(key, fields.require(key)?, expected)),
    }
}

fn candidates(fields: &Fields<'_>, layer_count: usize) -> Result<Option<Candidates>, Error> {
    let key = "candidate_source_layer_id";
    if fields.get(key).is_none() {
        return Ok(None);
    }
    Ok(Some(Candidates {
        source_layer: fields.integer(key, 0, layer_count - 1)?,
        block_count_max: fields.count("candidate_topk_blocks", limits::TOP_K)?,
        block_size: fields.count("candidate_block_size", limits::BLOCK)?,
    }))
}

fn dspark(fields: &Fields<'_>, layer_count: usize, vocab_size: usize) -> Result<DsparkExperts, Error> {
    let key = "dspark_target_layer_ids";
    let expected = format!("layers below {layer_count} (num_hidden_layers), at least one");
    let target_layer_ids = fields.integers(key, limits::STAGES, &expected, |layer| layer < layer_count)?;
    if target_layer_ids.is_empty() {
        return Err(fields.wrong(key, fields.require(key)?, expected));
    }
    Ok(DsparkExperts {
        dspark: Dspark {
            block_size: fields.count("dspark_block_size", limits::DRAFT_BLOCK)?,
            noise_token_id: token_id(fields, "dspark_noise_token_id", vocab_size)?,
            target_layer_ids,
            markov_rank: fields.count("dspark_markov_rank", limits::WIDTH)?,
        },
        n_routed_experts: fields.count("dspark_n_routed_experts", limits::EXPERTS)?,
        num_experts_per_tok: fields.count("dspark_num_experts_per_tok", limits::EXPERTS)?,
    })
}

fn vision_config(fields: &Fields<'_>) -> Result<VisionConfig, Error> {
    Ok(VisionConfig {
        num_hidden_layers: fields.count("num_hidden_layers", limits::LAYERS)?,
        hidden_size: fields.count("hidden_size", limits::WIDTH)?,
        intermediate_size: fields.count("intermediate_size", limits::WIDTH)?,
        patch_size: fields.count("patch_size", limits::BLOCK)?,
        downsample_ratio: fields.count("downsample_ratio", limits::STREAMS)?,
    })
}
