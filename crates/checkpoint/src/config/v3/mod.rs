//! config.json of DeepSeek-V3, R1, V3.1 and V3.2 as typed, checked values.

mod architecture;
mod read;
mod rules;

use std::path::Path;

use cachalot_numerics::IntegerWidth;
use serde_json::{Map, Value};

use super::{Quantization, RopeScaling, family, fields::Fields};
use crate::Error;

/// The configuration of a model of the V3 family: V3, R1, V3.1 and, with an indexer, V3.2. Fields carry the names of
/// config.json.
///
/// A value of this type has passed every check of [`DeepseekV3Config::from_json`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DeepseekV3Config {
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Channels of the residual stream.
    pub hidden_size: usize,
    /// Inner width of the feed-forward of dense layers.
    pub intermediate_size: usize,
    /// Inner width of a routed expert; that of the shared ones is as many times as wide.
    pub moe_intermediate_size: usize,
    /// Main layers, without MTP layers.
    pub num_hidden_layers: usize,
    /// Leading layers with a dense feed-forward instead of experts.
    pub first_k_dense_replace: usize,
    /// MTP layers, stored behind the main ones.
    pub num_nextn_predict_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Rank of the query projection.
    pub q_lora_rank: usize,
    /// Channels of the latent that stands for all keys and values of a token.
    pub kv_lora_rank: usize,
    /// Channels of a query head before the rotary ones.
    pub qk_nope_head_dim: usize,
    /// Rotary channels of a query head, and of the one rotary key. Even.
    pub qk_rope_head_dim: usize,
    /// Channels of a head's value.
    pub v_head_dim: usize,
    /// Routed experts of a layer.
    pub n_routed_experts: usize,
    /// Shared experts of a layer, computed as one wide expert.
    pub n_shared_experts: usize,
    /// Routed experts that a token uses.
    pub num_experts_per_tok: usize,
    /// Groups of routed experts; divides their number.
    pub n_group: usize,
    /// Groups that a token's experts are taken from.
    pub topk_group: usize,
    /// Factor on the routed experts' weights.
    pub routed_scaling_factor: f32,
    /// Whether the weights of the chosen experts are divided by their sum.
    pub norm_topk_prob: bool,
    /// Floor under the mean square of RMSNorm.
    pub rms_norm_eps: f32,
    /// Rotation base.
    pub rope_theta: f64,
    /// YaRN settings; `None` if channels rotate without it.
    pub rope_scaling: Option<RopeScaling>,
    /// YaRN's correction of the attention scores (`mscale_all_dim`): they grow by the square of
    /// `0.1 * this * ln factor + 1`. 0 for none.
    pub mscale_all_dim: f64,
    /// Longest sequence.
    pub max_position_embeddings: usize,
    /// First token of a prompt.
    pub bos_token_id: u32,
    /// All tokens that end an answer, the usual one first.
    pub eos_token_ids: Vec<u32>,
    /// How matrices are quantised; `None` for plain BF16 or F32 weights.
    pub quantization: Option<Quantization>,
    /// Low-bit format of the dense part, in a folder that was converted to it; `None` for released formats.
    pub low_bit: Option<IntegerWidth>,
    /// The indexer of V3.2; `None` for models that attend to all tokens.
    pub indexer: Option<IndexerConfig>,
}

/// The indexer of V3.2 (DSA).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexerConfig {
    /// Query heads.
    pub index_n_heads: usize,
    /// Channels of a head and of an index key: a power of two.
    pub index_head_dim: usize,
    /// Tokens that a row attends to at most.
    pub index_topk: usize,
}

impl DeepseekV3Config {
    /// Reads config.json as DeepSeek publishes it or as transformers 5 saves it.
    ///
    /// `origin` only names the file in errors.
    ///
    /// # Errors
    /// [`Error::Json`] for broken text, [`Error::ModelType`] for other families, [`Error::ConfigKeyMissing`]
    /// and [`Error::ConfigValue`] for everything that does not fit together.
    pub fn from_json(text: &str, origin: &Path) -> Result<Self, Error> {
        DeepseekV3Config::from_map(&family::object(text, origin)?, origin)
    }

    pub(super) fn from_map(map: &Map<String, Value>, origin: &Path) -> Result<Self, Error> {
        let fields = Fields::new(map, origin);
        let model_type = family::require(&fields, &["deepseek_v3", "deepseek_v32"])?;
        let config = read::config(&fields, model_type == "deepseek_v32")?;
        rules::check(&config, &fields)?;
        Ok(config)
    }

    /// Whether a main layer has a dense feed-forward instead of experts.
    pub fn is_dense_layer(&self, layer: usize) -> bool {
        layer < self.first_k_dense_replace
    }

    /// Channels of a query head.
    pub fn qk_head_dim(&self) -> usize {
        self.qk_nope_head_dim + self.qk_rope_head_dim
    }

    /// Channels that are kept of each token and layer: the latent and the rotary key.
    pub fn entry_width(&self) -> usize {
        self.kv_lora_rank + self.qk_rope_head_dim
    }

    /// Factor of the attention scores, YaRN's correction included.
    pub fn attention_scale(&self) -> f64 {
        let scale = (self.qk_head_dim() as f64).powf(-0.5);
        match self.rope_scaling {
            Some(scaling) if scaling.factor > 1.0 => {
                let correction = 0.1 * self.mscale_all_dim * scaling.factor.ln() + 1.0;
                scale * correction * correction
            }
            _ => scale,
        }
    }
}
