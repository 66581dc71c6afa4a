//! What V3 tells of itself.

use cachalot_numerics::{IntegerWidth, MatrixFormat, ScaleDtype};

use super::DeepseekV3Config;
use crate::{
    accounting::KvFormat,
    config::{Architecture, Quantization},
    inventory::{Formats, Place, Template, v3},
};

impl Architecture for DeepseekV3Config {
    fn family(&self) -> &'static str {
        match self.indexer {
            None => "DeepSeek-V3",
            Some(_) => "DeepSeek-V3.2",
        }
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
        self.num_nextn_predict_layers
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

    /// Scales are F32 in all releases, also where `scale_fmt` says that their values are powers of two (V3.1, V3.2).
    fn released_formats(&self) -> Formats {
        let Some(quantization) = self.quantization else {
            return Formats::unquantised();
        };
        let [rows, columns] = quantization.weight_block_size;
        let dense = MatrixFormat::Fp8Block {
            rows,
            columns,
            scale: ScaleDtype::F32,
        };
        Formats {
            dense,
            expert: dense,
            ..Formats::unquantised()
        }
    }

    fn templates(&self, place: Place) -> Vec<Template> {
        v3::at(self, place)
    }

    /// MTP layers are numbered on behind the main ones.
    fn name_prefix(&self, place: Place) -> String {
        match place {
            Place::Global => String::new(),
            Place::Layer(index) => format!("layers.{index}."),
            Place::Stage(index) => format!("layers.{}.", self.num_hidden_layers + index),
        }
    }

    fn layer_kinds(&self) -> Vec<(&'static str, usize)> {
        let kind = match self.indexer {
            None => "MLA",
            Some(_) => "MLA with indexer",
        };
        vec![(kind, self.num_hidden_layers)]
    }

    fn layer_notes(&self) -> Vec<String> {
        let dense = match self.first_k_dense_replace {
            0 => None,
            1 => Some("the first has a dense feed-forward".to_owned()),
            count => Some(format!("the first {count} have a dense feed-forward")),
        };
        let stages = match self.num_nextn_predict_layers {
            0 => None,
            1 => Some("an MTP layer".to_owned()),
            count => Some(format!("{count} MTP layers")),
        };
        dense.into_iter().chain(stages).collect()
    }

    /// `Packed` is what DeepSeek's own inference keeps: BF16 for V3; for V3.2 the latent as FP8 with one F32 scale for 128
    /// channels, the rotary key as BF16, and the index key as FP8 with one F32 scale.
    fn kv_bytes_per_token(&self, format: KvFormat) -> f64 {
        let entry = match (format, self.indexer) {
            (KvFormat::Packed, Some(_)) => {
                self.kv_lora_rank + 4 * self.kv_lora_rank.div_ceil(128) + 2 * self.qk_rope_head_dim
            }
            _ => 2 * self.entry_width(),
        };
        let key = match (format, self.indexer) {
            (_, None) => 0,
            (KvFormat::Packed, Some(indexer)) => indexer.index_head_dim + 4 * indexer.index_head_dim.div_ceil(128),
            (KvFormat::Bf16, Some(indexer)) => 2 * indexer.index_head_dim,
        };
        (self.num_hidden_layers * (entry + key)) as f64
    }

    fn fixed_bytes_per_sequence(&self, _format: KvFormat) -> u64 {
        0
    }
}
