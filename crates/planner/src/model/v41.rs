//! V4.1 from its configuration, through the inventory of `cachalot-checkpoint`.

use cachalot_checkpoint::{DeepseekV41Config, LayerRole};

use super::{AttentionGroup, Drafter, Experts, Model, from_inventory};

/// A V4.1 model from its configuration alone.
pub fn model(name: &str, config: &DeepseekV41Config) -> Model {
    let c = config;
    let drafter = c.dspark.as_ref();
    Model {
        name: name.to_owned(),
        origin: "inventory of its configuration",
        hidden: c.hidden_size as u64,
        streams: c.hc_mult as u64,
        layers: c.num_hidden_layers as u64,
        context_max: c.max_position_embeddings as u64,
        vocabulary: c.vocab_size as u64,
        weights: from_inventory::weights(c, |layer| look(c, layer)),
        attention: attention(c),
        experts: Experts {
            layers: c.num_hidden_layers as u64,
            count: c.n_routed_experts as u64,
            active: c.num_experts_per_tok as u64,
            node_limit: None,
        },
        drafter: drafter.map(|drafter| Drafter {
            layers: c.nextn_stage_count() as u64,
            block: Some(drafter.dspark.block_size as u64),
            experts: (drafter.n_routed_experts as u64, drafter.num_experts_per_tok as u64),
        }),
    }
}

/// Layers of the same number hold the same tensors.
fn look(config: &DeepseekV41Config, layer: usize) -> usize {
    let table = config.engram.as_ref().and_then(|engram| engram.index_of(layer));
    let makes_entries = match config.is_kv_source(layer) {
        true => config.compress_ratios[layer],
        false => 0,
    };
    table.map_or(0, |table| 6 * (table + 1)) + 2 * makes_entries + usize::from(config.is_index_source(layer))
}

fn attention(config: &DeepseekV41Config) -> Vec<AttentionGroup> {
    let c = config;
    let head = c.head_dim as u64;
    let in_blocks = |layer: usize| {
        let role = c.layer_role(layer);
        matches!(
            role,
            LayerRole::Shared {
                in_candidates: true,
                ..
            }
        )
    };
    let groups = [
        ("window only (SWA)", 0, false),
        ("shared, 2 tokens an entry (CSA2)", 2, false),
        ("shared, 1 token an entry, first (CSA2)", 1, false),
        ("shared, 1 token an entry, in blocks (CSA2)", 1, true),
    ];
    let groups = groups.into_iter().map(|(kind, ratio, blocks)| {
        let layers: Vec<usize> = (0..c.num_hidden_layers)
            .filter(|layer| c.compress_ratios[*layer] == ratio && in_blocks(*layer) == blocks)
            .collect();
        let count = |is_source: &dyn Fn(usize) -> bool| layers.iter().filter(|layer| is_source(**layer)).count() as u64;
        let is_shared = ratio > 0;
        let candidates = c.candidates.map(|c| (c.block_count_max * c.block_size) as u64);
        AttentionGroup {
            kind,
            layers: layers.len() as u64,
            owners: count(&|layer| c.is_kv_source(layer)),
            index_layers: count(&|layer| c.is_index_source(layer)),
            index_candidates_max: candidates.filter(|_| blocks),
            heads: c.num_attention_heads as u64,
            width: 2 * head,
            prefill_width: 2 * head,
            window: c.sliding_window as u64,
            ratio: is_shared.then_some(ratio as u64),
            select: is_shared.then_some(c.index_topk as u64),
            window_bytes: [c.packed_window_bytes() as u64, 2 * head],
            entry_bytes: [c.packed_entry_bytes() as u64, 2 * head],
            key_bytes: [c.packed_index_key_bytes() as u64, 2 * c.index_head_dim as u64],
            index: is_shared.then_some((c.index_n_heads as u64, c.index_head_dim as u64)),
            // Value and gate of the open window in F32.
            open_bytes: if ratio == 2 { 2 * 2 * head * 4 } else { 0 },
            launches: if is_shared { 20 } else { 18 },
        }
    });
    groups.filter(|group| group.layers > 0).collect()
}
