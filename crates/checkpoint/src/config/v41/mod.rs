//! config.json of DeepSeek-V4.1 as typed, checked values.

mod architecture;
mod engram;
mod multipliers;
mod read;
mod roles;
mod rules;

use std::path::Path;

use cachalot_numerics::IntegerWidth;
use serde_json::{Map, Value};

pub use engram::EngramConfig;
pub use roles::LayerRole;

use super::{Dspark, Quantization, RopeScaling, family, fields::Fields};
use crate::Error;

/// Key of config.json by which a folder without a tokenizer announces that Engram folds token ids by their remainder
/// (`"modulo"`): for random checkpoints, whose tokens mean nothing.
pub const TOKEN_MAP_KEY: &str = "cachalot_token_map";

/// The configuration of a DeepSeek-V4.1 model: the keys of `text_config`, which is what runs, and what else the outer
/// object says. Fields carry the names of config.json.
///
/// A value of this type has passed every check of [`DeepseekV41Config::from_json`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DeepseekV41Config {
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Channels of a residual stream.
    pub hidden_size: usize,
    /// Main layers, without DSpark stages.
    pub num_hidden_layers: usize,
    /// Query heads; there is one key-value head.
    pub num_attention_heads: usize,
    /// Channels of a query head, of a window key and of an entry.
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
    /// Routed experts of a main layer.
    pub n_routed_experts: usize,
    /// Routed experts that a token uses.
    pub num_experts_per_tok: usize,
    /// Query heads of the indexer.
    pub index_n_heads: usize,
    /// Channels of an indexer head.
    pub index_head_dim: usize,
    /// Entries that the indexer selects.
    pub index_topk: usize,
    /// Residual streams.
    pub hc_mult: usize,
    /// Normalisation rounds of the hyper-connection mixing matrix.
    pub hc_sinkhorn_iters: usize,
    /// Floor inside those rounds.
    pub hc_eps: f32,
    /// Floor under the mean square of every norm.
    pub rms_norm_eps: f32,
    /// Rotation base of layers that see a window only.
    pub rope_theta: f64,
    /// Rotation base of the other layers.
    pub compress_rope_theta: f64,
    /// YaRN settings of those; `None` if they rotate without it.
    pub rope_scaling: Option<RopeScaling>,
    /// Tokens of an entry that each layer attends to: 0 for a window only, 1 or 2. Main layers come first, then one 0 for
    /// each DSpark stage.
    pub compress_ratios: Vec<usize>,
    /// Layers that make entries, ascending. The others attend to those of the last such layer before them.
    pub kv_source_layer_ids: Vec<usize>,
    /// Layers that select entries, ascending. The others take the selection of the last such layer before them.
    pub index_source_layer_ids: Vec<usize>,
    /// The blocks of entries that later layers select from; `None` if they select from all.
    pub candidates: Option<Candidates>,
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
    /// Tables of word groups; `None` for a model without.
    pub engram: Option<EngramConfig>,
    /// The DSpark drafter; there are no stages without it.
    pub dspark: Option<DsparkExperts>,
    /// First token of a prompt.
    pub bos_token_id: u32,
    /// All tokens that end an answer, the usual one first.
    pub eos_token_ids: Vec<u32>,
    /// Token that stands for every position of an image, if the model sees images.
    pub image_token_id: Option<u32>,
    /// The vision tower, whose tensors are known and not run; `None` if the file has none.
    pub vision: Option<VisionConfig>,
    /// Whether token ids are folded by their remainder ([`TOKEN_MAP_KEY`]) instead of by the tokens' texts.
    pub folds_by_remainder: bool,
    /// How matrices are quantised; `None` for plain BF16 or F32 weights.
    pub quantization: Option<Quantization>,
    /// Low-bit format of the dense part, in a folder that was converted to it; `None` for released formats.
    pub low_bit: Option<IntegerWidth>,
}

/// The two-level selection: one layer picks blocks of entries, later ones select inside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// The layer that picks blocks; it selects and makes entries itself.
    pub source_layer: usize,
    /// Blocks that it picks.
    pub block_count_max: usize,
    /// Consecutive entries of a block.
    pub block_size: usize,
}

/// The DSpark drafter of V4.1, whose stages have fewer experts than main layers.
#[derive(Clone, Debug, PartialEq)]
pub struct DsparkExperts {
    /// What DSpark has in every family.
    pub dspark: Dspark,
    /// Routed experts of a stage.
    pub n_routed_experts: usize,
    /// Of these, those that a token uses.
    pub num_experts_per_tok: usize,
}

/// Sizes of the vision tower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VisionConfig {
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Channels.
    pub hidden_size: usize,
    /// Inner width of a block's feed-forward.
    pub intermediate_size: usize,
    /// Pixels of a patch's side.
    pub patch_size: usize,
    /// Patches of the side of a square that becomes one token.
    pub downsample_ratio: usize,
}

impl DeepseekV41Config {
    /// Reads config.json as DeepSeek publishes it.
    ///
    /// `origin` only names the file in errors.
    ///
    /// # Errors
    /// [`Error::Json`] for broken text, [`Error::ModelType`] for other families, [`Error::ConfigKeyMissing`]
    /// and [`Error::ConfigValue`] for everything that does not fit together.
    pub fn from_json(text: &str, origin: &Path) -> Result<Self, Error> {
        DeepseekV41Config::from_map(&family::object(text, origin)?, origin)
    }

    pub(super) fn from_map(map: &Map<String, Value>, origin: &Path) -> Result<Self, Error> {
        let fields = Fields::new(map, origin);
        family::require(&fields, &["deepseek_v41"])?;
        let key = "text_config";
        let text = fields.object(key)?.ok_or_else(|| fields.missing(key))?;
        let config = read::config(&fields, &text)?;
        rules::check(&config, &text)?;
        Ok(config)
    }

    /// DSpark stages: entries of `compress_ratios` beyond the main layers.
    pub fn nextn_stage_count(&self) -> usize {
        self.compress_ratios.len() - self.num_hidden_layers
    }

    /// Bytes of an entry as packed: two channels a byte and a scale byte for 16.
    pub fn packed_entry_bytes(&self) -> usize {
        self.head_dim.div_ceil(2) + self.head_dim.div_ceil(16)
    }

    /// Bytes of an index key as packed: two channels a byte and a scale byte for 32.
    pub fn packed_index_key_bytes(&self) -> usize {
        self.index_head_dim.div_ceil(2) + self.index_head_dim.div_ceil(32)
    }

    /// Bytes of a window row as packed: a channel a byte and a scale byte for 32.
    pub fn packed_window_bytes(&self) -> usize {
        self.head_dim + self.head_dim.div_ceil(32)
    }
}
