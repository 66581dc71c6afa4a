//! V4.1-Flash from the values of its release.

use super::{AttentionGroup, Drafter, Experts, Model, Part, Stored, Weight};

const HIDDEN: u64 = 5120;
const LAYERS: u64 = 40;
const VOCABULARY: u64 = 129_280;
const EXPERT_WIDTH: u64 = 2304;
const EXPERTS: u64 = 384;
const STAGES: u64 = 3;
const STAGE_EXPERTS: u64 = 128;

const FP8: Stored = Stored::Fp8 {
    block_rows: 32,
    block_columns: 32,
    scale_bytes: 1,
};

/// DeepSeek-V4.1-Flash.
pub fn model(name: &str) -> Model {
    let mut list = List::default();
    list.global();
    list.layers(LAYERS, EXPERTS, false);
    list.layers(STAGES, STAGE_EXPERTS, true);
    list.shared_attention();
    list.engram();
    list.stage_extras();
    list.vision();
    Model {
        name: name.to_owned(),
        origin: "values of the release",
        hidden: HIDDEN,
        streams: 4,
        layers: LAYERS,
        context_max: 1_048_576,
        vocabulary: VOCABULARY,
        weights: list.weights,
        attention: attention(),
        experts: Experts {
            layers: LAYERS,
            count: EXPERTS,
            active: 6,
            node_limit: None,
        },
        drafter: Some(Drafter {
            layers: STAGES,
            block: Some(5),
            experts: (STAGE_EXPERTS, 3),
        }),
    }
}

fn attention() -> Vec<AttentionGroup> {
    let window_only = AttentionGroup {
        kind: "window only (SWA)",
        layers: 2,
        owners: 0,
        index_layers: 0,
        index_candidates_max: None,
        heads: 64,
        width: 1024,
        prefill_width: 1024,
        window: 128,
        ratio: None,
        select: None,
        window_bytes: [528, 1024],
        entry_bytes: [288, 1024],
        key_bytes: [68, 256],
        index: None,
        open_bytes: 0,
        launches: 18,
    };
    let pairs = AttentionGroup {
        kind: "shared, 2 tokens an entry (CSA2)",
        layers: 18,
        owners: 3,
        index_layers: 3,
        ratio: Some(2),
        select: Some(512),
        index: Some((32, 128)),
        // Value and gate of the open window in F32.
        open_bytes: 2 * 2 * 512 * 4,
        launches: 20,
        ..window_only.clone()
    };
    let source = AttentionGroup {
        kind: "shared, 1 token an entry, first (CSA2)",
        layers: 4,
        owners: 1,
        index_layers: 1,
        ratio: Some(1),
        open_bytes: 0,
        ..pairs.clone()
    };
    let blocks = AttentionGroup {
        kind: "shared, 1 token an entry, in blocks (CSA2)",
        layers: 16,
        owners: 0,
        index_layers: 4,
        index_candidates_max: Some(2048 * 8),
        ..source.clone()
    };
    vec![window_only, pairs, source, blocks]
}

#[derive(Default)]
struct List {
    weights: Vec<Weight>,
}

impl List {
    fn push(&mut self, part: Part, name: &str, rows: u64, columns: u64, count: u64, stored: Stored) {
        self.weights.push(Weight {
            part,
            name: name.to_owned(),
            rows,
            columns,
            count,
            stored,
        });
    }

    fn global(&mut self) {
        self.push(Part::Embedding, "embed", VOCABULARY, HIDDEN, 1, Stored::Bf16);
        self.push(Part::Head, "head", VOCABULARY, HIDDEN, 1, Stored::Bf16);
        self.push(Part::Norms, "norm", 1, HIDDEN, 1, Stored::Bf16);
    }

    fn layers(&mut self, count: u64, experts: u64, stage: bool) {
        let own = |part| match (stage, part) {
            (false, part) => part,
            (true, Part::RoutedExperts) => Part::StageExperts,
            (true, _) => Part::Stages,
        };
        let attention = own(Part::Attention);
        for (name, rows, columns) in [
            ("attn.wq_a", 1280, HIDDEN),
            ("attn.wq_b", 32_768, 1280),
            ("attn.wkv", 512, HIDDEN),
            ("attn.wo_a", 8192, 4096),
            ("attn.wo_b", HIDDEN, 8192),
        ] {
            self.push(attention, name, rows, columns, count, FP8);
        }
        self.push(attention, "attn.q_norm", 1, 1280, count, Stored::Bf16);
        self.push(attention, "attn.kv_norm", 1, 512, count, Stored::Bf16);
        self.push(attention, "attn.attn_sink", 1, 64, count, Stored::F32);
        self.push(own(Part::Norms), "norms", 2, HIDDEN, count, Stored::Bf16);
        let hyper = own(Part::HyperConnections);
        self.push(hyper, "hc_fn", 24, 4 * HIDDEN, 2 * count, Stored::F32);
        self.push(hyper, "hc_base", 1, 24, 2 * count, Stored::F32);
        self.push(hyper, "hc_scale", 1, 3, 2 * count, Stored::F32);
        let router = own(Part::Routers);
        self.push(router, "ffn.gate", experts, HIDDEN, count, Stored::Bf16);
        self.push(router, "ffn.gate.bias", 1, experts, 2 * count, Stored::F32);
        for (name, rows, columns) in [
            ("w1", EXPERT_WIDTH, HIDDEN),
            ("w2", HIDDEN, EXPERT_WIDTH),
            ("w3", EXPERT_WIDTH, HIDDEN),
        ] {
            let (shared, routed) = (format!("ffn.shared_experts.{name}"), format!("ffn.experts.{name}"));
            self.push(own(Part::SharedExperts), &shared, rows, columns, count, FP8);
            self.push(
                own(Part::RoutedExperts),
                &routed,
                rows,
                columns,
                experts * count,
                Stored::Fp4,
            );
        }
    }

    fn shared_attention(&mut self) {
        let (compressors, indexers) = (Part::Compressors, Part::Indexers);
        self.push(compressors, "attn.compressor.wkv", 512, HIDDEN, 4, Stored::Bf16);
        self.push(compressors, "attn.compressor.wgate", 512, HIDDEN, 3, Stored::Bf16);
        self.push(compressors, "attn.compressor.norm", 1, 512, 4, Stored::Bf16);
        self.push(indexers, "attn.indexer.wk", 128, 512, 4, Stored::Bf16);
        self.push(indexers, "attn.indexer.k_norm", 1, 128, 4, Stored::Bf16);
        self.push(indexers, "attn.indexer.wq_b", 4096, 1280, 8, FP8);
        self.push(indexers, "attn.indexer.weights_proj", 32, HIDDEN, 8, Stored::Bf16);
    }

    fn engram(&mut self) {
        let table = Stored::Fp8 {
            block_rows: 1,
            block_columns: 32,
            scale_bytes: 1,
        };
        for rows in [384_006_168, 384_016_682] {
            self.push(Part::EngramTables, "engram.embed", rows, 256, 1, table);
        }
        self.push(Part::EngramProjections, "engram.wkv", 25_600, 6144, 2, FP8);
        self.push(
            Part::EngramProjections,
            "engram.q_weight, k_weight",
            2 * 4,
            HIDDEN,
            2,
            Stored::Bf16,
        );
    }

    fn stage_extras(&mut self) {
        let part = Part::Stages;
        self.push(part, "main_proj", HIDDEN, 3 * HIDDEN, 1, FP8);
        self.push(part, "main_norm, norm", 2, HIDDEN, 1, Stored::Bf16);
        self.push(part, "markov_head", VOCABULARY, 256, 2, Stored::Bf16);
        self.push(part, "confidence_head.proj", 1, HIDDEN + 256, 1, Stored::Bf16);
    }

    fn vision(&mut self) {
        let part = Part::Vision;
        for (name, rows, columns, count) in [
            ("vision.wqkv", 3072, 1024 + 1, 32),
            ("vision.wo", 1024, 1024 + 1, 32),
            ("vision.w1", 5632, 1024, 32),
            ("vision.w2", 1024, 2816, 32),
            ("vision.norms", 2, 1024, 32),
            ("vision.patch_embed.proj", 1024, 588 + 1, 1),
            ("vision.norm", 1, 1024, 1),
            ("aligner.w1", HIDDEN, 9216 + 1, 1),
            ("aligner.w2", HIDDEN, HIDDEN + 1, 1),
            ("image_start, image_end, image_newline", 3, HIDDEN, 1),
        ] {
            self.push(part, name, rows, columns, count, Stored::Bf16);
        }
    }
}
