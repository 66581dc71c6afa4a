//! The tensors of V4.

use cachalot_numerics::Dtype;

use super::{List, MatrixClass, Part, Place, Template};
use crate::config::DeepseekV4Config;

/// Templates of a place.
pub(crate) fn at(config: &DeepseekV4Config, place: Place) -> Vec<Template> {
    match place {
        Place::Global => global(config),
        Place::Layer(index) => layer(config, index),
        Place::Stage(index) => stage(config, index),
    }
}

/// Embedding, head and what stands before the head.
fn global(config: &DeepseekV4Config) -> Vec<Template> {
    let (vocabulary, width) = (config.vocab_size, config.hidden_size);
    let mut list = List::new();
    list.matrix(Part::Embedding, "embed", vocabulary, width, MatrixClass::Plain);
    list.matrix(Part::Head, "head", vocabulary, width, MatrixClass::Plain);
    list.plain(Part::Norms, "norm.weight", Dtype::Bf16, &[width]);
    list.head_collapse(config);
    list.templates
}

/// A main layer.
fn layer(config: &DeepseekV4Config, index: usize) -> Vec<Template> {
    let mut list = List::new();
    list.block(config, config.compress_ratio(index), config.is_hash_layer(index));
    list.templates
}

/// An MTP layer or DSpark stage: a window-only layer with routed experts by score, and its extras.
fn stage(config: &DeepseekV4Config, index: usize) -> Vec<Template> {
    let mut list = List::new();
    list.block(config, 0, false);
    let width = config.hidden_size;
    let last = index + 1 == config.nextn_stage_count();
    match &config.dspark {
        None => {
            for name in ["e_proj", "h_proj"] {
                list.matrix(Part::Stages, name, width, width, MatrixClass::Dense);
            }
            for name in ["enorm.weight", "hnorm.weight", "norm.weight"] {
                list.plain(Part::Stages, name, Dtype::Bf16, &[width]);
            }
            list.head_collapse(config);
        }
        Some(dspark) => {
            if index == 0 {
                let taps = dspark.target_layer_ids.len() * width;
                list.matrix(Part::Stages, "main_proj", width, taps, MatrixClass::Dense);
                list.plain(Part::Stages, "main_norm.weight", Dtype::Bf16, &[width]);
            }
            if last {
                let (vocabulary, rank) = (config.vocab_size, dspark.markov_rank);
                list.plain(Part::Stages, "norm.weight", Dtype::Bf16, &[width]);
                list.head_collapse(config);
                for (name, rows, columns) in [
                    ("markov_head.markov_w1", vocabulary, rank),
                    ("markov_head.markov_w2", vocabulary, rank),
                    ("confidence_head.proj", 1, width + rank),
                ] {
                    list.matrix(Part::Stages, name, rows, columns, MatrixClass::Plain);
                }
            }
        }
    }
    for template in &mut list.templates {
        template.part = Part::Stages;
    }
    list.templates
}

impl List {
    /// What every layer has.
    fn block(&mut self, config: &DeepseekV4Config, ratio: usize, hashed: bool) {
        self.hyper_connections(config);
        for name in ["attn_norm.weight", "ffn_norm.weight"] {
            self.plain(Part::Norms, name, Dtype::Bf16, &[config.hidden_size]);
        }
        self.attention(config);
        match ratio {
            0 => {}
            4 => {
                self.compressor(Part::Compressors, "attn.compressor", config, ratio, 2, config.head_dim);
                self.indexer(config);
            }
            _ => self.compressor(Part::Compressors, "attn.compressor", config, ratio, 1, config.head_dim),
        }
        self.experts(config, hashed);
    }

    fn hyper_connections(&mut self, config: &DeepseekV4Config) {
        let streams = config.hc_mult;
        let mixes = (2 + streams) * streams;
        for site in ["attn", "ffn"] {
            for (name, shape) in [
                ("fn", &[mixes, streams * config.hidden_size][..]),
                ("base", &[mixes]),
                ("scale", &[3]),
            ] {
                let name = format!("hc_{site}_{name}");
                self.plain(Part::HyperConnections, &name, Dtype::F32, shape);
            }
        }
    }

    fn head_collapse(&mut self, config: &DeepseekV4Config) {
        let streams = config.hc_mult;
        for (name, shape) in [
            ("hc_head_fn", &[streams, streams * config.hidden_size][..]),
            ("hc_head_base", &[streams]),
            ("hc_head_scale", &[1]),
        ] {
            self.plain(Part::HyperConnections, name, Dtype::F32, shape);
        }
    }

    fn attention(&mut self, config: &DeepseekV4Config) {
        let c = config;
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
    }

    /// `overlap` is 2 where windows overlap (ratio 4), else 1.
    fn compressor(
        &mut self,
        part: Part,
        name: &str,
        config: &DeepseekV4Config,
        ratio: usize,
        overlap: usize,
        entry: usize,
    ) {
        let rows = overlap * entry;
        for weight in ["wkv", "wgate"] {
            let name = format!("{name}.{weight}");
            self.matrix(part, &name, rows, config.hidden_size, MatrixClass::Plain);
        }
        self.plain(part, &format!("{name}.ape"), Dtype::F32, &[ratio, rows]);
        self.plain(part, &format!("{name}.norm.weight"), Dtype::Bf16, &[entry]);
    }

    fn indexer(&mut self, config: &DeepseekV4Config) {
        let (heads, width) = (config.index_n_heads, config.hidden_size);
        let rows = heads * config.index_head_dim;
        let part = Part::Indexers;
        self.matrix(part, "attn.indexer.wq_b", rows, config.q_lora_rank, MatrixClass::Dense);
        self.matrix(part, "attn.indexer.weights_proj", heads, width, MatrixClass::Plain);
        self.compressor(part, "attn.indexer.compressor", config, 4, 2, config.index_head_dim);
    }

    fn experts(&mut self, config: &DeepseekV4Config, hashed: bool) {
        let (width, inner) = (config.hidden_size, config.moe_intermediate_size);
        let count = config.n_routed_experts;
        self.matrix(Part::Routers, "ffn.gate", count, width, MatrixClass::Plain);
        if hashed {
            let shape = [config.vocab_size, config.num_experts_per_tok];
            self.plain(Part::Routers, "ffn.gate.tid2eid", Dtype::I64, &shape);
        } else {
            self.plain(Part::Routers, "ffn.gate.bias", Dtype::F32, &[count]);
        }
        for (name, rows, columns) in [("w1", inner, width), ("w2", width, inner), ("w3", inner, width)] {
            let shared = format!("ffn.shared_experts.{name}");
            self.matrix(Part::SharedExperts, &shared, rows, columns, MatrixClass::Dense);
        }
        self.routed_experts(count, width, inner);
    }
}
