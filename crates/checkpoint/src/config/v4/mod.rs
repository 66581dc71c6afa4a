//! config.json of DeepSeek-V4 as typed, checked values.

mod architecture;
mod read;
mod rules;

use std::path::Path;

use cachalot_numerics::IntegerWidth;
use serde_json::{Map, Value};

use super::{ExpertDtype, Quantization, RopeScaling, family, fields::Fields};
use crate::Error;

/// The configuration of a DeepSeek-V4 model. Fields carry the names of config.json.
///
/// A value of this type has passed every check of [`DeepseekV4Config::from_json`]: sizes are not zero and
/// their products do not overflow, lists have the right lengths, and nothing asks for a variant of the
/// model that no release uses.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DeepseekV4Config {
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Channels of a residual stream.
    pub hidden_size: usize,
    /// Main layers, without MTP layer or DSpark stages.
    pub num_hidden_layers: usize,
    /// Query heads; there is one key-value head.
    pub num_attention_heads: usize,
    /// Channels of a query head, of a window key and of a compressed entry.
    pub head_dim: usize,
    /// Channels at the end of a head that rotate. Even.
    pub qk_rope_head_dim: usize,
    /// Rank of the query projection.
    pub q_lora_rank: usize,
    /// Rank of the output projection, for each group of heads.
    pub o_lora_rank: usize,
    /// Groups of heads in the output projection; divides the number of heads.
    pub o_groups: usize,
    /// Inner width of an expert, routed or shared.
    pub moe_intermediate_size: usize,
    /// Routed experts of a layer.
    pub n_routed_experts: usize,
    /// Shared experts of a layer: always 1.
    pub n_shared_experts: usize,
    /// Routed experts that a token uses.
    pub num_experts_per_tok: usize,
    /// Leading layers whose experts are looked up by token id.
    pub num_hash_layers: usize,
    /// Query heads of the indexer.
    pub index_n_heads: usize,
    /// Channels of an indexer head: a power of two, because they pass a Hadamard transform.
    pub index_head_dim: usize,
    /// Compressed entries that the indexer selects.
    pub index_topk: usize,
    /// Residual streams.
    pub hc_mult: usize,
    /// Normalisation rounds of the hyper-connection mixing matrix.
    pub hc_sinkhorn_iters: usize,
    /// Floor inside those rounds.
    pub hc_eps: f32,
    /// Floor under the mean square of RMSNorm.
    pub rms_norm_eps: f32,
    /// Rotation base of layers without compression.
    pub rope_theta: f64,
    /// Rotation base of layers with compression.
    pub compress_rope_theta: f64,
    /// YaRN settings of layers with compression; `None` if they rotate without it.
    pub rope_scaling: Option<RopeScaling>,
    /// Compression of each layer: 0 (window only), 4 (CSA) or 128 (HCA). Main layers come first, then one
    /// 0 for each MTP layer or DSpark stage.
    pub compress_ratios: Vec<usize>,
    /// Positions of the attention window, the query's own included.
    pub sliding_window: usize,
    /// Clamp of the experts' pre-activations. Above 0.
    pub swiglu_limit: f32,
    /// Factor on the routed experts' weights.
    pub routed_scaling_factor: f32,
    /// Whether the weights of the chosen experts are divided by their sum.
    pub norm_topk_prob: bool,
    /// Longest sequence.
    pub max_position_embeddings: usize,
    /// First token of a prompt.
    pub bos_token_id: u32,
    /// Token that ends an answer: the first one if the file lists several.
    pub eos_token_id: u32,
    /// All tokens that end an answer, `eos_token_id` first.
    pub eos_token_ids: Vec<u32>,
    /// Format of routed experts; `None` if the file does not say (the first releases), where the type of
    /// the stored tensors tells.
    pub expert_dtype: Option<ExpertDtype>,
    /// How matrices are quantised; `None` for plain BF16 or F32 weights.
    pub quantization: Option<Quantization>,
    /// Low-bit format of the dense part, in a folder that was converted to it; `None` for released formats. Key
    /// [`LOW_BIT_KEY`].
    pub low_bit: Option<IntegerWidth>,
    /// The DSpark drafter; `None` for a plain MTP layer or neither.
    pub dspark: Option<Dspark>,
}

/// Settings of the DSpark drafter.
#[derive(Clone, Debug, PartialEq)]
pub struct Dspark {
    /// Tokens drafted in one pass.
    pub block_size: usize,
    /// Token that stands for a position still unknown.
    pub noise_token_id: u32,
    /// Main layers whose output feeds the drafter, in order.
    pub target_layer_ids: Vec<usize>,
    /// Rank of the Markov head.
    pub markov_rank: usize,
}

/// What a layer's attention sees besides its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttentionKind {
    /// Nothing (SWA, ratio 0).
    SlidingWindow,
    /// Entries of 4 tokens that an indexer selects (CSA, ratio 4).
    CompressedSparse,
    /// Entries of 128 tokens (HCA, ratio 128).
    HeavilyCompressed,
}

impl DeepseekV4Config {
    /// Reads config.json as DeepSeek publishes it or as transformers 5 saves it.
    ///
    /// `origin` only names the file in errors.
    ///
    /// # Errors
    /// [`Error::Json`] for broken text, [`Error::ModelType`] for other families, [`Error::ConfigKeyMissing`]
    /// and [`Error::ConfigValue`] for everything that does not fit together.
    pub fn from_json(text: &str, origin: &Path) -> Result<Self, Error> {
        DeepseekV4Config::from_map(&family::object(text, origin)?, origin)
    }

    pub(super) fn from_map(map: &Map<String, Value>, origin: &Path) -> Result<Self, Error> {
        let fields = Fields::new(map, origin);
        family::require(&fields, &["deepseek_v4"])?;
        let config = read::config(&fields)?;
        rules::check(&config, &fields)?;
        Ok(config)
    }

    /// MTP layers or DSpark stages that the configuration announces: entries of `compress_ratios` beyond
    /// the main layers. (`num_nextn_predict_layers` says 1 even where there are three.)
    pub fn nextn_stage_count(&self) -> usize {
        self.compress_ratios.len() - self.num_hidden_layers
    }

    /// Whether main layer `layer` looks its experts up by token id.
    pub fn is_hash_layer(&self, layer: usize) -> bool {
        layer < self.num_hash_layers
    }

    /// Compression ratio of a layer: 0, 4 or 128. Layers beyond the main ones have 0.
    pub fn compress_ratio(&self, layer: usize) -> usize {
        self.compress_ratios.get(layer).copied().unwrap_or(0)
    }

    /// Kind of attention of a layer.
    pub fn attention_kind(&self, layer: usize) -> AttentionKind {
        match self.compress_ratio(layer) {
            0 => AttentionKind::SlidingWindow,
            4 => AttentionKind::CompressedSparse,
            _ => AttentionKind::HeavilyCompressed,
        }
    }
}
