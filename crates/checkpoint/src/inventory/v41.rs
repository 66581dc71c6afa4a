//! The tensors of V4.1.

use cachalot_numerics::Dtype;

use super::{List, MatrixClass, Part, Place, Template};
use crate::config::{DeepseekV41Config, EngramConfig, VisionConfig};

/// Templates of a place.
pub(crate) fn at(config: &DeepseekV41Config, place: Place) -> Vec<Template> {
    match place {
        Place::Global => global(config),
        Place::Layer(index) => layer(config, index),
        Place::Stage(index) => stage(config, index),
    }
}

fn global(config: &DeepseekV41Config) -> Vec<Template> {
    let (vocabulary, width) = (config.vocab_size, config.hidden_size);
    let mut list = List::new();
    list.matrix(Part::Embedding, "embed", vocabulary, width, MatrixClass::Plain);
    list.matrix(Part::Head, "head", vocabulary, width, MatrixClass::Plain);
    list.plain(Part::Norms, "norm.weight", Dtype::Bf16, &[width]);
    if let Some(vision) = &config.vision {
        list.vision(vision, width);
    }
    list.templates
}

fn layer(config: &DeepseekV41Config, index: usize) -> Vec<Template> {
    let mut list = List::new();
    list.v41_block(config, config.n_routed_experts);
    if config.is_kv_source(index) {
        list.shared_entries(config, config.compress_ratios[index]);
    }
    if config.is_index_source(index) {
        let (heads, hidden, part) = (config.index_n_heads, config.hidden_size, Part::Indexers);
        let rows = heads * config.index_head_dim;
        list.matrix(part, "attn.indexer.wq_b", rows, config.q_lora_rank, MatrixClass::Dense);
        list.matrix(part, "attn.indexer.weights_proj", heads, hidden, MatrixClass::Plain);
    }
    if let Some(engram) = &config.engram
        && let Some(table) = engram.index_of(index)
    {
        list.engram(config, engram, table);
    }
    list.templates
}

/// A DSpark stage: a window-only layer with fewer experts, and its extras.
fn stage(config: &DeepseekV41Config, index: usize) -> Vec<Template> {
    let mut list = List::new();
    let Some(drafter) = &config.dspark else {
        return list.templates;
    };
    list.v41_block(config, drafter.n_routed_experts);
    let (vocabulary, width, rank) = (config.vocab_size, config.hidden_size, drafter.dspark.markov_rank);
    if index == 0 {
        let taps = drafter.dspark.target_layer_ids.len() * width;
        list.matrix(Part::Stages, "main_proj", width, taps, MatrixClass::Dense);
        list.plain(Part::Stages, "main_norm.weight", Dtype::Bf16, &[width]);
    }
    if index + 1 == config.nextn_stage_count() {
        list.plain(Part::Stages, "norm.weight", Dtype::Bf16, &[width]);
        for (name, rows, columns) in [
            ("markov_head.embed", vocabulary, rank),
            ("markov_head.head", vocabulary, rank),
            ("confidence_head.proj", 1, width + rank),
        ] {
            list.matrix(Part::Stages, name, rows, columns, MatrixClass::Plain);
        }
    }
    for template in &mut list.templates {
        template.part = Part::Stages;
    }
    list.templates
}

impl List {
    /// What every layer and stage has.
    fn v41_block(&mut self, config: &DeepseekV41Config, expert_count: usize) {
        let c = config;
        self.single_pass_hyper_connections(c.hc_mult, c.hidden_size);
        for name in ["attn_norm.weight", "ffn_norm.weight"] {
            self.plain(Part::Norms, name, Dtype::Bf16, &[c.hidden_size]);
        }
        let heads_width = c.num_attention_heads * c.head_dim;
        let output_rank = c.o_groups * c.o_lora_rank;
        for (name, rows, columns) in [
            ("attn.wq_a", c.q_lora_rank, c.hidden_size),
            ("attn.wq_b", heads_width, c.q_lora_rank),
            ("attn.wkv", c.head_dim, c.hidden_size),
            ("attn.wo_a", output_rank, heads_width / c.o_groups),
            ("attn.wo_b", c.hidden_size, output_rank),
        ] {
            self.matrix(Part::Attention, name, rows, columns, MatrixClass::Dense);
        }
        self.plain(Part::Attention, "attn.q_norm.weight", Dtype::Bf16, &[c.q_lora_rank]);
        self.plain(Part::Attention, "attn.kv_norm.weight", Dtype::Bf16, &[c.head_dim]);
        self.plain(Part::Attention, "attn.attn_sink", Dtype::F32, &[c.num_attention_heads]);
        let (width, inner) = (c.hidden_size, c.moe_intermediate_size);
        self.matrix(Part::Routers, "ffn.gate", expert_count, width, MatrixClass::Plain);
        for name in ["ffn.gate.bias", "ffn.gate.bias_vl"] {
            self.plain(Part::Routers, name, Dtype::F32, &[expert_count]);
        }
        for (name, rows, columns) in [("w1", inner, width), ("w2", width, inner), ("w3", inner, width)] {
            let shared = format!("ffn.shared_experts.{name}");
            self.matrix(Part::SharedExperts, &shared, rows, columns, MatrixClass::Dense);
        }
        self.routed_experts(expert_count, width, inner);
    }

    fn single_pass_hyper_connections(&mut self, streams: usize, width: usize) {
        let mixes = (2 + streams) * streams;
        for site in ["attn", "ffn"] {
            for (name, shape) in [
                ("fn", &[mixes, streams * width][..]),
                ("base", &[mixes]),
                ("scale", &[3]),
            ] {
                let name = format!("hc_{site}_{name}");
                self.plain(Part::HyperConnections, &name, Dtype::F32, shape);
            }
        }
    }

    /// What makes entries and their index keys. Entries of one token need no gate.
    fn shared_entries(&mut self, config: &DeepseekV41Config, ratio: usize) {
        let (entry, key, hidden) = (config.head_dim, config.index_head_dim, config.hidden_size);
        let part = Part::Compressors;
        self.matrix(part, "attn.compressor.wkv", entry, hidden, MatrixClass::Plain);
        if ratio > 1 {
            self.matrix(part, "attn.compressor.wgate", entry, hidden, MatrixClass::Plain);
        }
        self.plain(part, "attn.compressor.norm.weight", Dtype::Bf16, &[entry]);
        self.matrix(Part::Indexers, "attn.indexer.wk", key, entry, MatrixClass::Plain);
        self.plain(Part::Indexers, "attn.indexer.k_norm.weight", Dtype::Bf16, &[key]);
    }

    fn engram(&mut self, config: &DeepseekV41Config, engram: &EngramConfig, table: usize) {
        let (streams, width) = (config.hc_mult, config.hidden_size);
        let rows = engram.num_embeddings[table];
        let part = Part::EngramTables;
        self.matrix(part, "engram.embed", rows, engram.head_dim, MatrixClass::Table);
        let part = Part::EngramProjections;
        let keys_and_value = (streams + 1) * width;
        self.matrix(part, "engram.wkv", keys_and_value, engram.width(), MatrixClass::Dense);
        for name in ["engram.q_weight", "engram.k_weight"] {
            self.plain(part, name, Dtype::Bf16, &[streams, width]);
        }
    }

    /// The vision tower, the projection of its output and the embeddings around an image.
    fn vision(&mut self, vision: &VisionConfig, width: usize) {
        let (channels, inner) = (vision.hidden_size, vision.intermediate_size);
        let mut linear = |name: &str, rows: usize, columns: usize, has_bias: bool| {
            self.matrix(Part::Vision, name, rows, columns, MatrixClass::Plain);
            if has_bias {
                self.plain(Part::Vision, &format!("{name}.bias"), Dtype::Bf16, &[rows]);
            }
        };
        let patch = 3 * vision.patch_size * vision.patch_size;
        let cell = channels * vision.downsample_ratio * vision.downsample_ratio;
        linear("vision.patch_embed.proj", channels, patch, true);
        linear("aligner.w1", width, cell, true);
        linear("aligner.w2", width, width, true);
        for block in 0..vision.num_hidden_layers {
            for (name, rows, columns, has_bias) in [
                ("attn.wqkv", 3 * channels, channels, true),
                ("attn.wo", channels, channels, true),
                ("mlp.w1", 2 * inner, channels, false),
                ("mlp.w2", channels, inner, false),
            ] {
                linear(&format!("vision.blocks.{block}.{name}"), rows, columns, has_bias);
            }
        }
        for block in 0..vision.num_hidden_layers {
            for norm in ["norm1", "norm2"] {
                let name = format!("vision.blocks.{block}.{norm}.weight");
                self.plain(Part::Vision, &name, Dtype::Bf16, &[channels]);
            }
        }
        self.plain(Part::Vision, "vision.norm.weight", Dtype::Bf16, &[channels]);
        for name in ["image_start", "image_end", "image_newline"] {
            self.plain(Part::Vision, name, Dtype::Bf16, &[width]);
        }
    }
}
