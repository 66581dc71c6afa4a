//! V4 from its configuration, through the inventory of `cachalot-checkpoint`.

use cachalot_checkpoint::{AttentionKind, DeepseekV4Config};

use super::{AttentionGroup, Drafter, Experts, Model, from_inventory};

/// A V4 model from its configuration alone.
pub fn model(name: &str, config: &DeepseekV4Config) -> Model {
    let c = config;
    let stages = c.nextn_stage_count() as u64;
    Model {
        name: name.to_owned(),
        origin: "inventory of its configuration",
        hidden: c.hidden_size as u64,
        streams: c.hc_mult as u64,
        layers: c.num_hidden_layers as u64,
        context_max: c.max_position_embeddings as u64,
        vocabulary: c.vocab_size as u64,
        // Layers that look alike are those of the same compression and choice of experts.
        weights: from_inventory::weights(c, |layer| {
            2 * c.compress_ratio(layer) + usize::from(c.is_hash_layer(layer))
        }),
        attention: attention(c),
        experts: Experts {
            layers: c.num_hidden_layers as u64,
            count: c.n_routed_experts as u64,
            active: c.num_experts_per_tok as u64,
            node_limit: None,
        },
        drafter: (stages > 0).then(|| Drafter {
            layers: stages,
            block: c.dspark.as_ref().map(|dspark| dspark.block_size as u64),
            experts: (c.n_routed_experts as u64, c.num_experts_per_tok as u64),
        }),
    }
}

fn attention(config: &DeepseekV4Config) -> Vec<AttentionGroup> {
    let c = config;
    let (head, rotated, index) = (c.head_dim as u64, c.qk_rope_head_dim as u64, c.index_head_dim as u64);
    let still = head - rotated;
    let packed = still + still.div_ceil(64).next_multiple_of(8) + 2 * rotated;
    let packed_key = index.div_ceil(2) + index.div_ceil(32);
    // Values and gates of two open windows of 4 tokens, whose rows have two halves, in F32.
    let overlapping = |width: u64| 2 * 4 * 2 * (2 * width) * 4;
    let kinds = [
        AttentionKind::SlidingWindow,
        AttentionKind::CompressedSparse,
        AttentionKind::HeavilyCompressed,
    ];
    let groups = kinds.into_iter().map(|kind| {
        let layers = (0..c.num_hidden_layers).filter(|layer| c.attention_kind(*layer) == kind);
        let layers = layers.count() as u64;
        let (name, ratio, open_bytes, launches) = match kind {
            AttentionKind::SlidingWindow => ("window only (SWA)", None, 0, 19),
            AttentionKind::CompressedSparse => (
                "compressed sparse (CSA)",
                Some(4),
                overlapping(head) + overlapping(index),
                27,
            ),
            AttentionKind::HeavilyCompressed => ("heavily compressed (HCA)", Some(128), 128 * 2 * head * 4, 22),
        };
        let sparse = kind == AttentionKind::CompressedSparse;
        AttentionGroup {
            kind: name,
            layers,
            owners: layers,
            index_layers: if sparse { layers } else { 0 },
            index_candidates_max: None,
            heads: c.num_attention_heads as u64,
            width: 2 * head,
            prefill_width: 2 * head,
            window: c.sliding_window as u64,
            ratio,
            select: sparse.then_some(c.index_topk as u64),
            window_bytes: [packed, 2 * head],
            entry_bytes: [packed, 2 * head],
            key_bytes: if sparse { [packed_key, 2 * index] } else { [0, 0] },
            index: sparse.then_some((c.index_n_heads as u64, index)),
            open_bytes,
            launches,
        }
    });
    groups.filter(|group| group.layers > 0).collect()
}
