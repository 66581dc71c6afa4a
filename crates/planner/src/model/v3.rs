//! V3, R1, V3.1 and V3.2 from the values that the releases share.

use super::{AttentionGroup, Drafter, Experts, Model, Part, Stored, Weight};

const HIDDEN: u64 = 7168;
const LAYERS: u64 = 61;
const DENSE_LAYERS: u64 = 3;
const HEADS: u64 = 128;
const VOCABULARY: u64 = 129_280;
const EXPERTS: u64 = 256;
const EXPERT_WIDTH: u64 = 2048;

const FP8: Stored = Stored::Fp8 {
    block_rows: 128,
    block_columns: 128,
    scale_bytes: 4,
};

/// A model of the V3 family. `indexer` makes it V3.2.
pub fn model(name: &str, indexer: bool) -> Model {
    let mut weights = global();
    for (layer_count, prefix) in [(LAYERS, Owner::Main), (1, Owner::Stage)] {
        weights.extend(attention_weights(layer_count, prefix, indexer));
        let moe_layers = layer_count - if prefix == Owner::Main { DENSE_LAYERS } else { 0 };
        weights.extend(expert_weights(moe_layers, prefix));
    }
    weights.extend(feed_forward(Part::DenseFeedForward, "mlp", 18_432, DENSE_LAYERS));
    // The MTP layer has its own copies of embedding and head.
    for (name, rows, columns, stored) in [
        ("eh_proj", HIDDEN, 2 * HIDDEN, Stored::Bf16),
        ("embed_tokens", VOCABULARY, HIDDEN, Stored::Bf16),
        ("shared_head.head", VOCABULARY, HIDDEN, Stored::Bf16),
        ("enorm, hnorm, shared_head.norm", 3, HIDDEN, Stored::Bf16),
    ] {
        weights.push(weight(Part::Stages, name, rows, columns, 1, stored));
    }
    Model {
        name: name.to_owned(),
        origin: "values shared by the releases; byte total published as about 689 GB",
        hidden: HIDDEN,
        streams: 1,
        layers: LAYERS,
        context_max: 163_840,
        vocabulary: VOCABULARY,
        weights,
        attention: vec![attention(indexer)],
        experts: Experts {
            layers: LAYERS - DENSE_LAYERS,
            count: EXPERTS,
            active: 8,
            node_limit: Some(4),
        },
        drafter: Some(Drafter {
            layers: 1,
            block: None,
            experts: (EXPERTS, 8),
        }),
    }
}

fn attention(indexer: bool) -> AttentionGroup {
    AttentionGroup {
        kind: if indexer {
            "latent, selected (DSA)"
        } else {
            "latent (MLA)"
        },
        layers: LAYERS,
        owners: LAYERS,
        index_layers: if indexer { LAYERS } else { 0 },
        index_candidates_max: None,
        heads: HEADS,
        width: 576 + 512,
        prefill_width: if indexer { 576 + 512 } else { 192 + 128 },
        window: 0,
        ratio: Some(1),
        select: indexer.then_some(2048),
        window_bytes: [0, 0],
        entry_bytes: if indexer { [656, 1152] } else { [1152, 1152] },
        key_bytes: if indexer { [132, 256] } else { [0, 0] },
        index: indexer.then_some((64, 128)),
        open_bytes: 0,
        launches: if indexer { 19 } else { 14 },
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Main,
    Stage,
}

impl Owner {
    fn part(self, part: Part) -> Part {
        match (self, part) {
            (Owner::Main, part) => part,
            (Owner::Stage, Part::RoutedExperts) => Part::StageExperts,
            (Owner::Stage, _) => Part::Stages,
        }
    }
}

fn global() -> Vec<Weight> {
    vec![
        weight(Part::Embedding, "embed_tokens", VOCABULARY, HIDDEN, 1, Stored::Bf16),
        weight(Part::Head, "lm_head", VOCABULARY, HIDDEN, 1, Stored::Bf16),
        weight(Part::Norms, "norm", 1, HIDDEN, 1, Stored::Bf16),
    ]
}

fn attention_weights(layers: u64, owner: Owner, indexer: bool) -> Vec<Weight> {
    let attention = owner.part(Part::Attention);
    let mut weights = vec![
        weight(attention, "q_a_proj", 1536, HIDDEN, layers, FP8),
        weight(attention, "q_b_proj", HEADS * 192, 1536, layers, FP8),
        weight(attention, "kv_a_proj_with_mqa", 576, HIDDEN, layers, FP8),
        weight(attention, "kv_b_proj", HEADS * 256, 512, layers, FP8),
        weight(attention, "o_proj", HIDDEN, HEADS * 128, layers, FP8),
        weight(
            attention,
            "q_a_layernorm, kv_a_layernorm",
            1,
            1536 + 512,
            layers,
            Stored::Bf16,
        ),
        weight(owner.part(Part::Norms), "layernorms", 2, HIDDEN, layers, Stored::Bf16),
    ];
    if indexer {
        let part = owner.part(Part::Indexers);
        weights.push(weight(part, "indexer.wq_b", 64 * 128, 1536, layers, FP8));
        weights.push(weight(part, "indexer.wk", 128, HIDDEN, layers, FP8));
        weights.push(weight(part, "indexer.weights_proj", 64, HIDDEN, layers, Stored::Bf16));
        weights.push(weight(part, "indexer.k_norm", 2, 128, layers, Stored::F32));
    }
    weights
}

fn expert_weights(layers: u64, owner: Owner) -> Vec<Weight> {
    let routers = owner.part(Part::Routers);
    let mut weights = vec![
        weight(routers, "gate", EXPERTS, HIDDEN, layers, Stored::Bf16),
        weight(routers, "e_score_correction_bias", 1, EXPERTS, layers, Stored::F32),
    ];
    let (shared, routed) = (owner.part(Part::SharedExperts), owner.part(Part::RoutedExperts));
    weights.extend(feed_forward(shared, "shared_experts", EXPERT_WIDTH, layers));
    weights.extend(feed_forward(routed, "experts", EXPERT_WIDTH, layers * EXPERTS));
    weights
}

fn feed_forward(part: Part, name: &str, width: u64, count: u64) -> Vec<Weight> {
    vec![
        weight(part, &format!("{name}.gate_proj"), width, HIDDEN, count, FP8),
        weight(part, &format!("{name}.up_proj"), width, HIDDEN, count, FP8),
        weight(part, &format!("{name}.down_proj"), HIDDEN, width, count, FP8),
    ]
}

fn weight(part: Part, name: &str, rows: u64, columns: u64, count: u64, stored: Stored) -> Weight {
    Weight {
        part,
        name: name.to_owned(),
        rows,
        columns,
        count,
        stored,
    }
}
