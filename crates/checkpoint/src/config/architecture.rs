use std::fmt::Debug;

use cachalot_numerics::IntegerWidth;

use super::Quantization;
use crate::{
    accounting::KvFormat,
    inventory::{Formats, Place, Template},
};

/// What models of all families tell of themselves: what an engine, a planner or a report may ask without knowing the
/// family.
pub trait Architecture: Debug {
    /// Name of the family for people, such as `DeepSeek-V4`.
    fn family(&self) -> &'static str;

    /// Tokens of the vocabulary.
    fn vocab_size(&self) -> usize;

    /// Channels of a residual stream.
    fn hidden_size(&self) -> usize;

    /// Main layers, without MTP layers or DSpark stages.
    fn layer_count(&self) -> usize;

    /// MTP layers or DSpark stages that the configuration announces.
    fn nextn_stage_count(&self) -> usize;

    /// Longest sequence in tokens.
    fn context(&self) -> usize;

    /// First token of a prompt.
    fn bos_token_id(&self) -> u32;

    /// All tokens that end an answer, the usual one first. At least one.
    fn eos_token_ids(&self) -> &[u32];

    /// Routed experts of a layer that has some.
    fn routed_expert_count(&self) -> usize;

    /// Routed experts that a token uses in such a layer.
    fn experts_per_token(&self) -> usize;

    /// Inner width of a routed expert.
    fn expert_width(&self) -> usize;

    /// How matrices are quantised; `None` for plain BF16 or F32 weights.
    fn quantization(&self) -> Option<Quantization>;

    /// Low-bit format of the dense part, in a folder that was converted to it.
    fn low_bit(&self) -> Option<IntegerWidth>;

    /// Rows and columns of the blocks of an FP8 matrix by its official name without `.weight`, in a checkpoint whose
    /// configuration says nothing of them too.
    fn fp8_block(&self, _name: &str) -> [usize; 2] {
        self.quantization().map_or([128, 128], |q| q.weight_block_size)
    }

    /// The formats that the configuration announces, before any conversion.
    fn released_formats(&self) -> Formats;

    /// The tensors of one place.
    fn templates(&self, place: Place) -> Vec<Template>;

    /// What stands before the names of a place's tensors, with the dot; nothing for global ones.
    fn name_prefix(&self, place: Place) -> String;

    /// Kinds of main layers in words, with their numbers; kinds without layers too.
    fn layer_kinds(&self) -> Vec<(&'static str, usize)>;

    /// What else is special about the layers, in a few words each: for reports.
    fn layer_notes(&self) -> Vec<String>;

    /// Bytes by which the state of a sequence grows with each token, on average. Windows do not grow.
    fn kv_bytes_per_token(&self, format: KvFormat) -> f64;

    /// Bytes of the state of a sequence that do not grow; what drafting needs beside that to roll back is not counted.
    fn fixed_bytes_per_sequence(&self, format: KvFormat) -> u64;
}
