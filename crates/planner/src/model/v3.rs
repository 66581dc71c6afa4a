//! V3, R1, V3.1 and V3.2 from their configuration.

use cachalot_checkpoint::DeepseekV3Config;

use super::{AttentionGroup, Drafter, Experts, Model, Weight, from_inventory};

/// A model of the V3 family from its configuration alone.
pub fn model(name: &str, config: &DeepseekV3Config) -> Model {
    let c = config;
    let stages = c.num_nextn_predict_layers as u64;
    Model {
        name: name.to_owned(),
        origin: "inventory of its configuration",
        hidden: c.hidden_size as u64,
        streams: 1,
        layers: c.num_hidden_layers as u64,
        context_max: c.max_position_embeddings as u64,
        vocabulary: c.vocab_size as u64,
        weights: weights(c),
        attention: vec![attention(c)],
        experts: Experts {
            layers: (c.num_hidden_layers - c.first_k_dense_replace) as u64,
            count: c.n_routed_experts as u64,
            active: c.num_experts_per_tok as u64,
            node_limit: (c.n_group > 1).then_some(c.topk_group as u64),
        },
        drafter: (stages > 0).then_some(Drafter {
            layers: stages,
            block: None,
            experts: (c.n_routed_experts as u64, c.num_experts_per_tok as u64),
        }),
    }
}

/// Named apart from V4's: the published 8-bit recipes leave some of V4's projections in BF16 by name, none of V3's.
fn weights(config: &DeepseekV3Config) -> Vec<Weight> {
    let mut weights = from_inventory::weights(config, |layer| usize::from(config.is_dense_layer(layer)));
    for weight in &mut weights {
        if let Some(leaf) = weight.name.strip_prefix("attn.") {
            weight.name = format!("mla.{leaf}");
        }
    }
    weights
}

fn attention(config: &DeepseekV3Config) -> AttentionGroup {
    let c = config;
    let layers = c.num_hidden_layers as u64;
    let (entry, latent) = (c.entry_width() as u64, c.kv_lora_rank as u64);
    // What DeepSeek's own inference of V3.2 keeps: FP8 with one F32 scale for 128 channels, the rotary key as BF16.
    let packed_entry = latent + 4 * latent.div_ceil(128) + 2 * c.qk_rope_head_dim as u64;
    let index_width = c.indexer.map(|indexer| indexer.index_head_dim as u64);
    AttentionGroup {
        kind: match c.indexer {
            None => "latent (MLA)",
            Some(_) => "latent, selected (DSA)",
        },
        layers,
        owners: layers,
        index_layers: if c.indexer.is_some() { layers } else { 0 },
        index_candidates_max: None,
        heads: c.num_attention_heads as u64,
        width: entry + latent,
        prefill_width: match c.indexer {
            Some(_) => entry + latent,
            None => (c.qk_head_dim() + c.v_head_dim) as u64,
        },
        window: 0,
        ratio: Some(1),
        select: c.indexer.map(|indexer| indexer.index_topk as u64),
        window_bytes: [0, 0],
        entry_bytes: match c.indexer {
            None => [2 * entry, 2 * entry],
            Some(_) => [packed_entry, 2 * entry],
        },
        key_bytes: index_width.map_or([0, 0], |width| [width + 4 * width.div_ceil(128), 2 * width]),
        index: c
            .indexer
            .map(|indexer| (indexer.index_n_heads as u64, indexer.index_head_dim as u64)),
        open_bytes: 0,
        launches: if c.indexer.is_some() { 19 } else { 14 },
    }
}
