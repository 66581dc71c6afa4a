//! What V4.1 tells of itself.

use cachalot_numerics::{IntegerWidth, MatrixFormat, ScaleDtype};

use super::{DeepseekV41Config, LayerRole};
use crate::{
    accounting::KvFormat,
    config::{Architecture, Quantization, ScaleFormat},
    inventory::{Formats, Place, Template, v41},
};

/// Rows of an Engram table are looked up one by one, so each has its own scales.
const TABLE_BLOCK: [usize; 2] = [1, 32];

impl Architecture for DeepseekV41Config {
    fn family(&self) -> &'static str {
        "DeepSeek-V4.1"
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn layer_count(&self) -> usize {
        self.num_hidden_layers
    }

    fn nextn_stage_count(&self) -> usize {
        DeepseekV41Config::nextn_stage_count(self)
    }

    fn context(&self) -> usize {
        self.max_position_embeddings
    }

    fn bos_token_id(&self) -> u32 {
        self.bos_token_id
    }

    fn eos_token_ids(&self) -> &[u32] {
        &self.eos_token_ids
    }

    fn routed_expert_count(&self) -> usize {
        self.n_routed_experts
    }

    fn experts_per_token(&self) -> usize {
        self.num_experts_per_tok
    }

    fn expert_width(&self) -> usize {
        self.moe_intermediate_size
    }

    fn quantization(&self) -> Option<Quantization> {
        self.quantization
    }

    fn low_bit(&self) -> Option<IntegerWidth> {
        self.low_bit
    }

    fn released_formats(&self) -> Formats {
        let Some(quantization) = self.quantization else {
            return Formats::unquantised();
        };
        let scale = match quantization.scale_fmt {
            Some(ScaleFormat::Ue8m0) => ScaleDtype::E8m0,
            None => ScaleDtype::F32,
        };
        let block = |[rows, columns]: [usize; 2]| MatrixFormat::Fp8Block { rows, columns, scale };
        Formats {
            dense: block(quantization.weight_block_size),
            expert: MatrixFormat::FP4,
            table: block(TABLE_BLOCK),
            ..Formats::unquantised()
        }
    }

    fn fp8_block(&self, name: &str) -> [usize; 2] {
        match (name.ends_with(".engram.embed"), self.quantization) {
            (true, _) => TABLE_BLOCK,
            (false, Some(quantization)) => quantization.weight_block_size,
            (false, None) => [32, 32],
        }
    }

    fn templates(&self, place: Place) -> Vec<Template> {
        v41::at(self, place)
    }

    fn name_prefix(&self, place: Place) -> String {
        match place {
            Place::Global => String::new(),
            Place::Layer(index) => format!("layers.{index}."),
            Place::Stage(index) => format!("mtp.{index}."),
        }
    }

    fn layer_kinds(&self) -> Vec<(&'static str, usize)> {
        let count = |ratio| {
            let ratios = self.compress_ratios[..self.num_hidden_layers].iter();
            ratios.filter(|other| **other == ratio).count()
        };
        vec![
            ("sliding window", count(0)),
            ("CSA2 in pairs", count(2)),
            ("CSA2 by token", count(1)),
        ]
    }

    fn layer_notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let mut note = |count: usize, one: &str, many: &str| match count {
            0 => {}
            1 => notes.push(one.to_owned()),
            count => notes.push(format!("{count} {many}")),
        };
        let (kv, index) = (self.kv_source_layer_ids.len(), self.index_source_layer_ids.len());
        note(kv, "1 makes entries for all", "make entries for the others");
        note(index, "1 selects entries for all", "select entries for the others");
        let tables = self.engram.as_ref().map_or(0, |engram| engram.layer_ids.len());
        note(tables, "1 has an Engram table", "have Engram tables");
        note(self.nextn_stage_count(), "1 DSpark stage", "DSpark stages");
        notes
    }

    fn kv_bytes_per_token(&self, format: KvFormat) -> f64 {
        let bytes = match format {
            KvFormat::Packed => self.packed_entry_bytes() + self.packed_index_key_bytes(),
            KvFormat::Bf16 => 2 * (self.head_dim + self.index_head_dim),
        };
        let sources = self.kv_source_layer_ids.iter();
        sources
            .map(|source| bytes as f64 / self.compress_ratios[*source] as f64)
            .sum()
    }

    /// The windows of all layers, values and gates of open windows of two tokens in `f32`, and the last token ids where
    /// there is Engram.
    fn fixed_bytes_per_sequence(&self, format: KvFormat) -> u64 {
        let row = match format {
            KvFormat::Packed => self.packed_window_bytes(),
            KvFormat::Bf16 => 2 * self.head_dim,
        };
        let windows = self.num_hidden_layers * self.sliding_window * row;
        let layers = (0..self.num_hidden_layers).map(|layer| match self.layer_role(layer) {
            LayerRole::Shared { ratio: 2, .. } if self.is_kv_source(layer) => 2 * 2 * self.head_dim * 4,
            _ => 0,
        });
        let open: usize = layers.sum();
        let tokens = self.engram.as_ref().map_or(0, |engram| 4 * engram.max_ngram_size);
        (windows + open + tokens) as u64
    }
}
