//! DeepSeek-V4.1: its configuration, its tensors against the release's, and what does not fit.

use std::path::Path;

use cachalot_checkpoint::{
    Architecture, Checkpoint, DeepseekV41Config, Error, LayerRole, ModelConfig,
    accounting::{self, KvFormat},
    inventory::{self, Part},
    published,
    synth::{self, Stages},
};
use serde_json::{Value, json};

const RELEASE: &str = "DeepSeek-V4.1-Flash";

fn text() -> &'static str {
    published::config(RELEASE).expect("built in")
}

fn release() -> DeepseekV41Config {
    DeepseekV41Config::from_json(text(), Path::new("config.json")).expect("valid")
}

/// The notes on V4.1, sections 5 and 8: 96,085 tensors of 510,286,023,000 bytes, and their parts.
#[test]
fn tensors_and_bytes_are_those_of_the_release() {
    let config = release();
    let total = accounting::total(&config);
    assert_eq!((total.tensors, total.bytes), (96_085, 510_286_023_000));
    let listed = inventory::tensors(&config).fold((0, 0), |(count, bytes), tensor| {
        (count + 1, bytes + tensor.byte_count())
    });
    assert_eq!(listed, (total.tensors, total.bytes));
    for (part, bytes) in [
        (Part::RoutedExperts, 288_777_830_400),
        (Part::EngramTables, 202_758_032_400),
        (Part::Stages, 7_932_874_632),
        (Part::Attention, 5_069_721_600),
        (Part::SharedExperts, 1_416_960_000),
        (Part::Embedding, 1_323_827_200),
        (Part::Head, 1_323_827_200),
        (Part::Vision, 970_536_960),
        (Part::EngramProjections, 315_043_840),
        (Part::Routers, 157_409_280),
        (Part::HyperConnections, 157_295_040),
        (Part::Indexers, 45_130_752),
        (Part::Compressors, 36_704_256),
    ] {
        assert_eq!(accounting::part(&config, part).bytes, bytes, "{part:?}");
    }
    let active = accounting::active_total(&config);
    assert_eq!(active.bytes, 13_035_075_008);
    assert_eq!((active.parameters as f64 / 1e6).round(), 16_131.0);
}

/// The notes on V4.1, section 8: 890 bytes a token, and rings of 2.7 MB.
#[test]
fn a_sequence_is_as_large_as_the_notes_say() {
    let config = release();
    assert_eq!(config.kv_bytes_per_token(KvFormat::Packed), 890.0);
    assert_eq!(config.packed_entry_bytes(), 288);
    assert_eq!(config.packed_index_key_bytes(), 68);
    let open_windows = 3 * 2 * 2 * 512 * 4;
    let token_ids = 4 * 4;
    assert_eq!(
        config.fixed_bytes_per_sequence(KvFormat::Packed),
        40 * 128 * 528 + open_windows + token_ids
    );
}

/// The notes on V4.1, section 4.1.
#[test]
fn layers_have_the_roles_of_the_notes() {
    let config = release();
    for layer in 0..40 {
        let shared = |ratio, kv_source, index_source, in_candidates| LayerRole::Shared {
            ratio,
            kv_source,
            index_source,
            in_candidates,
        };
        let expected = match layer {
            0..2 => LayerRole::Window,
            2..8 => shared(2, 2, 2, false),
            8..14 => shared(2, 8, 8, false),
            14..20 => shared(2, 14, 14, false),
            20..24 => shared(1, 20, 20, false),
            _ => shared(1, 20, 24 + (layer - 24) / 4 * 4, true),
        };
        assert_eq!(config.layer_role(layer), expected, "layer {layer}");
    }
}

/// The notes on V4.1, section 5.1: what is added to 16,000,000.
#[test]
fn primes_are_those_of_the_release() {
    let primes = release().engram.expect("has Engram").primes();
    let offsets = [
        [
            57, 79, 81, 97, 121, 129, 133, 183, 189, 207, 211, 253, 277, 289, 307, 321, 339, 381, 393, 399, 403, 409,
            447, 463,
        ],
        [
            477, 487, 499, 507, 511, 573, 609, 627, 667, 669, 693, 697, 711, 729, 759, 769, 781, 799, 813, 819, 841,
            877, 879, 889,
        ],
    ];
    assert_eq!(
        primes,
        offsets.map(|layer| layer.map(|offset| 16_000_000 + offset).to_vec())
    );
    assert_eq!(primes[0].iter().sum::<usize>(), 384_006_168);
    assert_eq!(primes[1].iter().sum::<usize>(), 384_016_682);
}

/// The notes on V4.1, section 5.1.
#[test]
fn multipliers_are_those_of_the_release() {
    let engram = release().engram.expect("has Engram");
    for (layer, expected) in [
        (
            1,
            [
                76_632_096_046_245,
                4_839_876_093_313,
                35_959_672_319_349,
                73_987_337_458_391,
            ],
        ),
        (
            14,
            [
                67_716_810_739_261,
                51_510_806_800_915,
                30_921_347_202_721,
                82_619_226_485_591,
            ],
        ),
    ] {
        assert_eq!(engram.multipliers(layer), expected, "layer {layer}");
    }
}

/// Every value that does not fit is refused by its key.
#[test]
fn impossible_values_are_refused_by_name() {
    for (pointer, value, key) in [
        ("/text_config", json!(null), "text_config"),
        ("/text_config", json!([]), "text_config"),
        ("/text_config/hidden_size", json!(0), "text_config.hidden_size"),
        ("/text_config/hidden_size", json!(1u64 << 60), "text_config.hidden_size"),
        (
            "/text_config/compress_ratios",
            json!([0, 0]),
            "text_config.compress_ratios",
        ),
        (
            "/text_config/compress_ratios/2",
            json!(4),
            "text_config.compress_ratios",
        ),
        (
            "/text_config/compress_ratios/41",
            json!(1),
            "text_config.compress_ratios",
        ),
        (
            "/text_config/compress_ratios/21",
            json!(2),
            "text_config.kv_source_layer_ids",
        ),
        (
            "/text_config/kv_source_layer_ids",
            json!([]),
            "text_config.kv_source_layer_ids",
        ),
        (
            "/text_config/kv_source_layer_ids",
            json!([8, 2]),
            "text_config.kv_source_layer_ids",
        ),
        (
            "/text_config/kv_source_layer_ids/0",
            json!(1),
            "text_config.kv_source_layer_ids",
        ),
        (
            "/text_config/kv_source_layer_ids/0",
            json!(40),
            "text_config.kv_source_layer_ids",
        ),
        (
            "/text_config/index_source_layer_ids",
            json!([2, 14, 20]),
            "text_config.index_source_layer_ids",
        ),
        (
            "/text_config/candidate_source_layer_id",
            json!(24),
            "text_config.candidate_source_layer_id",
        ),
        (
            "/text_config/candidate_source_layer_id",
            json!(14),
            "text_config.candidate_source_layer_id",
        ),
        (
            "/text_config/candidate_block_size",
            json!(0),
            "text_config.candidate_block_size",
        ),
        (
            "/text_config/engram_layer_ids",
            json!([14, 1]),
            "text_config.engram_layer_ids",
        ),
        (
            "/text_config/engram_num_embeddings/1",
            json!(384_016_681),
            "text_config.engram_num_embeddings",
        ),
        (
            "/text_config/engram_num_embeddings",
            json!([1]),
            "text_config.engram_num_embeddings",
        ),
        (
            "/text_config/engram_vocab_size",
            json!(1),
            "text_config.engram_vocab_size",
        ),
        (
            "/text_config/engram_max_ngram_size",
            json!(1),
            "text_config.engram_max_ngram_size",
        ),
        (
            "/text_config/engram_pad_token_id",
            json!(129_280),
            "text_config.engram_pad_token_id",
        ),
        (
            "/text_config/dspark_n_routed_experts",
            json!(385),
            "text_config.dspark_n_routed_experts",
        ),
        (
            "/text_config/dspark_num_experts_per_tok",
            json!(129),
            "text_config.dspark_num_experts_per_tok",
        ),
        (
            "/text_config/qk_rope_head_dim",
            json!(130),
            "text_config.qk_rope_head_dim",
        ),
        ("/text_config/rms_norm_eps", json!(1e-50), "text_config.rms_norm_eps"),
        (
            "/text_config/scoring_func",
            json!("sigmoid"),
            "text_config.scoring_func",
        ),
        (
            "/quantization_config/expert_dtype",
            json!("fp8"),
            "quantization_config.expert_dtype",
        ),
        ("/image_token_id", json!(129_280), "image_token_id"),
        ("/vision_config/patch_size", json!(-1), "vision_config.patch_size"),
        ("/eos_token_id", json!([]), "eos_token_id"),
    ] {
        let mut config: Value = serde_json::from_str(text()).expect("valid JSON");
        *config.pointer_mut(pointer).expect("the key is there") = value.clone();
        let error = ModelConfig::from_json(&config.to_string(), Path::new("config.json"));
        let found = match error {
            Err(Error::ConfigValue { key, .. } | Error::ConfigKeyMissing { key, .. }) => key,
            other => panic!("{pointer} = {value}: {other:?}"),
        };
        assert_eq!(found, key, "{pointer} = {value}");
    }
}

/// A cut model keeps one layer of each role, and what is written for it is read again.
#[test]
fn random_checkpoints_of_fewer_layers_are_whole() {
    for (layers, sources, tables) in [(1, 1, 0), (3, 2, 1), (6, 2, 1), (40, 4, 2)] {
        for stages in [Stages::Drop, Stages::Keep] {
            let cut = synth::with_layers(text(), layers, stages).expect("can be cut");
            let ModelConfig::V41(config) = ModelConfig::from_json(&cut, Path::new("cut")).expect("valid") else {
                panic!("the family stays");
            };
            assert_eq!(config.num_hidden_layers, layers);
            assert_eq!(config.kv_source_layer_ids.len(), sources);
            assert_eq!(config.engram.map_or(0, |engram| engram.layer_ids.len()), tables);
            assert_eq!(config.dspark.is_some(), stages == Stages::Keep);
        }
    }
    let mut tiny: Value =
        serde_json::from_str(&synth::with_layers(text(), 6, Stages::Keep).expect("can be cut")).expect("JSON");
    for (key, value) in [
        ("hidden_size", 128),
        ("vocab_size", 512),
        ("moe_intermediate_size", 64),
        ("n_routed_experts", 8),
        ("dspark_n_routed_experts", 4),
        ("dspark_noise_token_id", 3),
        ("engram_compressed_vocab_size", 300),
        ("q_lora_rank", 64),
        ("o_lora_rank", 64),
        ("num_attention_heads", 8),
        ("head_dim", 96),
    ] {
        tiny["text_config"][key] = json!(value);
    }
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join("tiny");
    let written = synth::write(&tiny.to_string(), 1, &folder, |_| ()).expect("written");
    let checkpoint = Checkpoint::open(&folder).expect("what was written is valid");
    assert_eq!(checkpoint.tensor_count(), written.tensors);
    assert_eq!(checkpoint.nextn_stage_count(), 3);
    assert_eq!(checkpoint.extra_tensors(), &[] as &[String]);
    let table = checkpoint.matrix("layers.0.engram.embed").expect("has a table");
    assert_eq!(table.scales.expect("is FP8").len(), table.rows * 8);
    assert!(checkpoint.verify(|_| ()).is_ok());
}
