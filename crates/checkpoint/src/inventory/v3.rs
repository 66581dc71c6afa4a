//! The tensors of V3 and V3.2, by the names of DeepSeek's inference code.

use cachalot_numerics::Dtype;

use super::{List, MatrixClass, Part, Place, Template};
use crate::config::{DeepseekV3Config, IndexerConfig};

/// Templates of a place.
pub(crate) fn at(config: &DeepseekV3Config, place: Place) -> Vec<Template> {
    match place {
        Place::Global => global(config),
        Place::Layer(index) => layer(config, config.is_dense_layer(index)),
        Place::Stage(_) => stage(config),
    }
}

fn global(config: &DeepseekV3Config) -> Vec<Template> {
    let (vocabulary, width) = (config.vocab_size, config.hidden_size);
    let mut list = List::new();
    list.matrix(Part::Embedding, "embed", vocabulary, width, MatrixClass::Plain);
    list.matrix(Part::Head, "head", vocabulary, width, MatrixClass::Plain);
    list.plain(Part::Norms, "norm.weight", Dtype::Bf16, &[width]);
    list.templates
}

fn layer(config: &DeepseekV3Config, is_dense: bool) -> Vec<Template> {
    let mut list = List::new();
    list.v3_block(config, is_dense);
    list.templates
}

/// An MTP layer: a layer with experts, what joins its two inputs, and copies of embedding and head.
fn stage(config: &DeepseekV3Config) -> Vec<Template> {
    let (vocabulary, width) = (config.vocab_size, config.hidden_size);
    let mut list = List::new();
    list.v3_block(config, false);
    for (name, rows, columns) in [
        ("embed_tokens", vocabulary, width),
        ("shared_head.head", vocabulary, width),
        ("eh_proj", width, 2 * width),
    ] {
        list.matrix(Part::Stages, name, rows, columns, MatrixClass::Plain);
    }
    for name in ["enorm.weight", "hnorm.weight", "shared_head.norm.weight"] {
        list.plain(Part::Stages, name, Dtype::Bf16, &[width]);
    }
    for template in &mut list.templates {
        template.part = Part::Stages;
    }
    list.templates
}

impl List {
    fn v3_block(&mut self, config: &DeepseekV3Config, is_dense: bool) {
        for name in ["attn_norm.weight", "ffn_norm.weight"] {
            self.plain(Part::Norms, name, Dtype::Bf16, &[config.hidden_size]);
        }
        self.latent_attention(config);
        if let Some(indexer) = &config.indexer {
            self.dsa_indexer(config, indexer);
        }
        if is_dense {
            let (width, inner) = (config.hidden_size, config.intermediate_size);
            self.feed_forward(Part::DenseFeedForward, "ffn.", width, inner);
        } else {
            self.grouped_experts(config);
        }
    }

    fn latent_attention(&mut self, config: &DeepseekV3Config) {
        let c = config;
        for (name, rows, columns) in [
            ("attn.wq_a", c.q_lora_rank, c.hidden_size),
            ("attn.wq_b", c.num_attention_heads * c.qk_head_dim(), c.q_lora_rank),
            ("attn.wkv_a", c.entry_width(), c.hidden_size),
            (
                "attn.wkv_b",
                c.num_attention_heads * (c.qk_nope_head_dim + c.v_head_dim),
                c.kv_lora_rank,
            ),
            ("attn.wo", c.hidden_size, c.num_attention_heads * c.v_head_dim),
        ] {
            self.matrix(Part::Attention, name, rows, columns, MatrixClass::Dense);
        }
        self.plain(Part::Attention, "attn.q_norm.weight", Dtype::Bf16, &[c.q_lora_rank]);
        self.plain(Part::Attention, "attn.kv_norm.weight", Dtype::Bf16, &[c.kv_lora_rank]);
    }

    fn dsa_indexer(&mut self, config: &DeepseekV3Config, indexer: &IndexerConfig) {
        let (heads, width, part) = (indexer.index_n_heads, indexer.index_head_dim, Part::Indexers);
        let rank = config.q_lora_rank;
        self.matrix(part, "attn.indexer.wq_b", heads * width, rank, MatrixClass::Dense);
        self.matrix(part, "attn.indexer.wk", width, config.hidden_size, MatrixClass::Dense);
        let hidden = config.hidden_size;
        self.matrix(part, "attn.indexer.weights_proj", heads, hidden, MatrixClass::Plain);
        for leaf in ["weight", "bias"] {
            let name = format!("attn.indexer.k_norm.{leaf}");
            self.plain(part, &name, Dtype::F32, &[width]);
        }
    }

    fn feed_forward(&mut self, part: Part, prefix: &str, width: usize, inner: usize) {
        for (name, rows, columns) in [("w1", inner, width), ("w2", width, inner), ("w3", inner, width)] {
            self.matrix(part, &format!("{prefix}{name}"), rows, columns, MatrixClass::Dense);
        }
    }

    fn grouped_experts(&mut self, config: &DeepseekV3Config) {
        let (width, inner) = (config.hidden_size, config.moe_intermediate_size);
        let count = config.n_routed_experts;
        self.matrix(Part::Routers, "ffn.gate", count, width, MatrixClass::Plain);
        self.plain(Part::Routers, "ffn.gate.bias", Dtype::F32, &[count]);
        let shared = config.n_shared_experts * inner;
        self.feed_forward(Part::SharedExperts, "ffn.shared_experts.", width, shared);
        self.routed_experts(count, width, inner);
    }
}
