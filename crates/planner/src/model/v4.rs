//! V4 from its configuration, through the inventory of `cachalot-checkpoint`.

use std::collections::HashMap;

use cachalot_checkpoint::{
    AttentionKind, DeepseekV4Config,
    inventory::{self, Formats, Place, Slot, SlotKind},
};
use cachalot_numerics::{Dtype, MatrixFormat, ScaleDtype};

use super::{AttentionGroup, Drafter, Experts, Model, Part, Stored, Weight};

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
        weights: weights(c),
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

/// All weights. Layers that look alike are listed once and multiplied.
fn weights(config: &DeepseekV4Config) -> Vec<Weight> {
    let mut places: HashMap<(usize, bool, usize), (Place, u64)> = HashMap::new();
    for place in inventory::places(config) {
        let signature = match place {
            Place::Global => (0, false, 1),
            Place::Layer(layer) => (config.compress_ratio(layer), config.is_hash_layer(layer), 0),
            Place::Stage(stage) => (0, false, 2 + stage),
        };
        places.entry(signature).or_insert((place, 0)).1 += 1;
    }
    // Plans have formats of their own in the place of the released ones.
    let formats = Formats::released(config);
    let mut weights: HashMap<(Part, String, u64, u64, Stored), u64> = HashMap::new();
    for (place, repeats) in places.into_values() {
        for slot in inventory::slots_at(config, place) {
            let name = name_in_layer(&slot.name);
            let (rows, columns, stored) = stored(&slot, formats);
            let part = part(slot.part, &name);
            *weights.entry((part, name, rows, columns, stored)).or_default() += repeats;
        }
    }
    let mut weights: Vec<Weight> = weights
        .into_iter()
        .map(|((part, name, rows, columns, stored), count)| Weight {
            part,
            name,
            rows,
            columns,
            count,
            stored,
        })
        .collect();
    weights.sort_by(|a, b| (a.part, &a.name, a.rows).cmp(&(b.part, &b.name, b.rows)));
    weights
}

/// `layers.3.ffn.experts.7.w1` as `ffn.experts.w1`.
fn name_in_layer(name: &str) -> String {
    let parts = name
        .split('.')
        .filter(|part| !(*part == "layers" || *part == "mtp" || part.bytes().all(|byte| byte.is_ascii_digit())));
    parts.collect::<Vec<_>>().join(".")
}

fn part(part: inventory::Part, name: &str) -> Part {
    match part {
        inventory::Part::RoutedExperts => Part::RoutedExperts,
        inventory::Part::Attention => Part::Attention,
        inventory::Part::SharedExperts => Part::SharedExperts,
        inventory::Part::Embedding => Part::Embedding,
        inventory::Part::Head => Part::Head,
        inventory::Part::Compressors => Part::Compressors,
        inventory::Part::Indexers => Part::Indexers,
        inventory::Part::HyperConnections => Part::HyperConnections,
        inventory::Part::Routers => Part::Routers,
        inventory::Part::Stages if name.starts_with("ffn.experts.") => Part::StageExperts,
        inventory::Part::Stages => Part::Stages,
        _ => Part::Norms,
    }
}

fn stored(slot: &Slot, formats: Formats) -> (u64, u64, Stored) {
    match &slot.kind {
        SlotKind::Matrix { rows, columns, class } => {
            let stored = match formats.of(slot.part, *class, *rows, *columns) {
                MatrixFormat::Fp8Block { rows, columns, scale } => Stored::Fp8 {
                    block_rows: rows as u64,
                    block_columns: columns as u64,
                    scale_bytes: match scale {
                        ScaleDtype::E8m0 => 1,
                        _ => 4,
                    },
                },
                MatrixFormat::Bf16 => Stored::Bf16,
                MatrixFormat::F32 => Stored::F32,
                MatrixFormat::Integer(width) => Stored::Integer {
                    bits: width.bit_count() as u64,
                },
                _ => Stored::Fp4,
            };
            (*rows as u64, *columns as u64, stored)
        }
        SlotKind::Plain { shape, dtype } => {
            let elements: usize = shape.iter().product();
            let stored = match dtype {
                Dtype::I64 => Stored::I64,
                Dtype::F32 => Stored::F32,
                _ => Stored::Bf16,
            };
            (1, elements as u64, stored)
        }
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
