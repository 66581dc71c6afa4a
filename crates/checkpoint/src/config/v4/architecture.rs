//! What V4 tells of itself.

use cachalot_numerics::{IntegerWidth, MatrixFormat, ScaleDtype};

use super::{AttentionKind, DeepseekV4Config};
use crate::{
    accounting::KvFormat,
    config::{Architecture, ExpertDtype, Quantization, ScaleFormat},
    inventory::{Formats, Place, Template, v4},
};

impl Architecture for DeepseekV4Config {
    fn family(&self) -> &'static str {
        "DeepSeek-V4"
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
        DeepseekV4Config::nextn_stage_count(self)
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

    /// Without `quantization_config` everything is BF16. With it, experts are FP4 unless `expert_dtype` says
    /// FP8; scales are E8M0 if `scale_fmt` says so, and F32 beside FP8 experts (the -Base releases).
    fn released_formats(&self) -> Formats {
        let Some(quantization) = self.quantization else {
            return Formats::unquantised();
        };
        let experts_fp8 = self.expert_dtype == Some(ExpertDtype::Fp8);
        let [rows, columns] = quantization.weight_block_size;
        let scale = match quantization.scale_fmt {
            Some(ScaleFormat::Ue8m0) if !experts_fp8 => ScaleDtype::E8m0,
            _ => ScaleDtype::F32,
        };
        let dense = MatrixFormat::Fp8Block { rows, columns, scale };
        Formats {
            dense,
            expert: if experts_fp8 { dense } else { MatrixFormat::FP4 },
            ..Formats::unquantised()
        }
    }

    fn templates(&self, place: Place) -> Vec<Template> {
        v4::at(self, place)
    }

    fn name_prefix(&self, place: Place) -> String {
        match place {
            Place::Global => String::new(),
            Place::Layer(index) => format!("layers.{index}."),
            Place::Stage(index) => format!("mtp.{index}."),
        }
    }

    fn layer_kinds(&self) -> Vec<(&'static str, usize)> {
        let count = |kind| {
            let layers = 0..self.num_hidden_layers;
            layers.filter(|layer| self.attention_kind(*layer) == kind).count()
        };
        vec![
            ("sliding window", count(AttentionKind::SlidingWindow)),
            ("CSA", count(AttentionKind::CompressedSparse)),
            ("HCA", count(AttentionKind::HeavilyCompressed)),
        ]
    }

    fn layer_notes(&self) -> Vec<String> {
        let hashed = match self.num_hash_layers {
            0 => None,
            1 => Some("the first looks experts up by token".to_owned()),
            count => Some(format!("the first {count} look experts up by token")),
        };
        let stages = match (self.nextn_stage_count(), &self.dspark) {
            (0, _) => None,
            (1, None) => Some("an MTP layer".to_owned()),
            (count, None) => Some(format!("{count} MTP layers")),
            (count, Some(_)) => Some(format!("{count} DSpark stages")),
        };
        hashed.into_iter().chain(stages).collect()
    }

    fn kv_bytes_per_token(&self, format: KvFormat) -> f64 {
        let (entry, index_key) = match format {
            KvFormat::Packed => (packed_entry_bytes(self), packed_index_key_bytes(self)),
            KvFormat::Bf16 => (2 * self.head_dim, 2 * self.index_head_dim),
        };
        let layers = 0..self.num_hidden_layers;
        layers
            .map(|layer| match self.attention_kind(layer) {
                AttentionKind::SlidingWindow => 0.0,
                AttentionKind::CompressedSparse => (entry + index_key) as f64 / 4.0,
                AttentionKind::HeavilyCompressed => entry as f64 / 128.0,
            })
            .sum()
    }

    /// The windows of all layers, and the compressors' open windows in `f32` (those of 4 tokens overlap, so two are
    /// open).
    fn fixed_bytes_per_sequence(&self, format: KvFormat) -> u64 {
        let entry = match format {
            KvFormat::Packed => packed_entry_bytes(self),
            KvFormat::Bf16 => 2 * self.head_dim,
        };
        let window = self.sliding_window * entry;
        // Values and gates; the rows of overlapping windows have two halves.
        let overlapping = |width: usize| 2 * 4 * 2 * (2 * width) * 4;
        let layers = 0..self.num_hidden_layers;
        let bytes = layers.map(|layer| {
            window
                + match self.attention_kind(layer) {
                    AttentionKind::SlidingWindow => 0,
                    AttentionKind::CompressedSparse => overlapping(self.head_dim) + overlapping(self.index_head_dim),
                    AttentionKind::HeavilyCompressed => 128 * 2 * self.head_dim * 4,
                }
        });
        bytes.map(|bytes| bytes as u64).sum()
    }
}

fn packed_entry_bytes(config: &DeepseekV4Config) -> usize {
    let still = config.head_dim - config.qk_rope_head_dim;
    still + still.div_ceil(64).next_multiple_of(8) + 2 * config.qk_rope_head_dim
}

fn packed_index_key_bytes(config: &DeepseekV4Config) -> usize {
    config.index_head_dim.div_ceil(2) + config.index_head_dim.div_ceil(32)
}
