//! From keys to values: both spellings, DeepSeek's and transformers'.

use serde_json::json;

use super::{DeepseekV3Config, IndexerConfig};
use crate::{
    Error,
    config::{
        RopeScaling,
        fields::Fields,
        limits,
        parts::{eos_token_ids, low_bit, optional_theta, quantization, rope_scaling, single, token_id},
    },
};

pub(super) fn config(fields: &Fields<'_>, has_indexer: bool) -> Result<DeepseekV3Config, Error> {
    refuse_variants(fields)?;
    let vocab_size = fields.count("vocab_size", limits::VOCABULARY)?;
    let num_hidden_layers = fields.count("num_hidden_layers", limits::LAYERS)?;
    let rope = rope(fields)?;
    let indexer = match has_indexer {
        false => None,
        true => Some(IndexerConfig {
            index_n_heads: fields.count("index_n_heads", limits::HEADS)?,
            index_head_dim: fields.count("index_head_dim", limits::HEAD_DIM)?,
            index_topk: fields.count("index_topk", limits::TOP_K)?,
        }),
    };
    Ok(DeepseekV3Config {
        vocab_size,
        hidden_size: fields.count("hidden_size", limits::WIDTH)?,
        intermediate_size: fields.count("intermediate_size", limits::WIDTH)?,
        moe_intermediate_size: fields.count("moe_intermediate_size", limits::WIDTH)?,
        num_hidden_layers,
        first_k_dense_replace: fields.integer("first_k_dense_replace", 0, num_hidden_layers)?,
        num_nextn_predict_layers: match fields.get("num_nextn_predict_layers") {
            Some(_) => fields.integer("num_nextn_predict_layers", 0, limits::STAGES)?,
            // Transformers drops the key with the layers.
            None => 0,
        },
        num_attention_heads: fields.count("num_attention_heads", limits::HEADS)?,
        q_lora_rank: fields.count("q_lora_rank", limits::WIDTH)?,
        kv_lora_rank: fields.count("kv_lora_rank", limits::WIDTH)?,
        qk_nope_head_dim: fields.count("qk_nope_head_dim", limits::HEAD_DIM)?,
        qk_rope_head_dim: fields.count("qk_rope_head_dim", limits::HEAD_DIM)?,
        v_head_dim: fields.count("v_head_dim", limits::HEAD_DIM)?,
        n_routed_experts: fields.count("n_routed_experts", limits::EXPERTS)?,
        n_shared_experts: fields.count("n_shared_experts", limits::SHARED_EXPERTS)?,
        num_experts_per_tok: fields.count("num_experts_per_tok", limits::EXPERTS)?,
        n_group: fields.count("n_group", limits::EXPERTS)?,
        topk_group: fields.count("topk_group", limits::EXPERTS)?,
        routed_scaling_factor: single(fields, "routed_scaling_factor", 1e9)?,
        norm_topk_prob: fields.boolean("norm_topk_prob")?,
        rms_norm_eps: single(fields, "rms_norm_eps", 1.0)?,
        rope_theta: rope.theta,
        rope_scaling: rope.scaling,
        mscale_all_dim: rope.mscale_all_dim,
        max_position_embeddings: fields.count("max_position_embeddings", limits::POSITIONS)?,
        bos_token_id: match fields.get("bos_token_id") {
            Some(_) => token_id(fields, "bos_token_id", vocab_size)?,
            None => 0,
        },
        eos_token_ids: eos_token_ids(fields, vocab_size)?,
        quantization: quantization(fields)?,
        low_bit: low_bit(fields)?,
        indexer,
    })
}

/// Switches that exist in config.json but have one position in all releases.
fn refuse_variants(fields: &Fields<'_>) -> Result<(), Error> {
    for (key, only) in [
        ("hidden_act", json!("silu")),
        ("scoring_func", json!("sigmoid")),
        ("topk_method", json!("noaux_tc")),
        ("attention_bias", json!(false)),
        ("mlp_bias", json!(false)),
        ("tie_word_embeddings", json!(false)),
        ("moe_layer_freq", json!(1)),
        ("rope_interleave", json!(true)),
    ] {
        fields.fixed(key, only)?;
    }
    Ok(())
}

struct Rope {
    theta: f64,
    scaling: Option<RopeScaling>,
    mscale_all_dim: f64,
}

/// DeepSeek: `rope_theta` and `rope_scaling`. Transformers: all in `rope_parameters`.
fn rope(fields: &Fields<'_>) -> Result<Rope, Error> {
    let mut theta = optional_theta(fields, "rope_theta")?;
    let mut scaling_fields = fields.object("rope_scaling")?;
    if let Some(parameters) = fields.object("rope_parameters")? {
        theta = optional_theta(&parameters, "rope_theta")?.or(theta);
        scaling_fields = scaling_fields.or(Some(parameters));
    }
    let (scaling, mscale_all_dim) = match scaling_fields {
        None => (None, 0.0),
        Some(scaling) => (rope_scaling(&scaling)?, mscale_all_dim(&scaling)?),
    };
    Ok(Rope {
        theta: theta.ok_or_else(|| fields.missing("rope_theta"))?,
        scaling,
        mscale_all_dim,
    })
}

/// The releases have `mscale` and `mscale_all_dim` equal, so that cosine and sine keep their size.
fn mscale_all_dim(fields: &Fields<'_>) -> Result<f64, Error> {
    let key = "mscale_all_dim";
    if fields.get(key).is_none() {
        return Ok(0.0);
    }
    let value = fields.positive(key, limits::ROPE_FACTOR)?;
    fields.fixed("mscale", json!(value))?;
    Ok(value)
}
