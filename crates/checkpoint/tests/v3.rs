//! Configurations and files of the V3 family that cannot be right.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use cachalot_checkpoint::{Checkpoint, DeepseekV3Config, Error, ModelConfig, Problem, RopeScaling, published, synth};
use serde_json::{Value, json};

fn published_with(name: &str, changes: Value) -> String {
    let text = published::config(name).expect("a release");
    let mut config: Value = serde_json::from_str(text).expect("valid JSON");
    for (key, value) in changes.as_object().expect("an object") {
        config[key] = value.clone();
    }
    config.to_string()
}

fn read(text: &str) -> Result<DeepseekV3Config, Error> {
    DeepseekV3Config::from_json(text, Path::new("model/config.json"))
}

#[test]
fn values_arrive_where_they_belong() {
    let config = read(&published_with("DeepSeek-V3.2", json!({}))).expect("valid");
    let rope = RopeScaling {
        factor: 40.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original_max_position_embeddings: 4096,
    };
    assert_eq!((config.rope_scaling, config.mscale_all_dim), (Some(rope), 1.0));
    assert_eq!((config.qk_head_dim(), config.entry_width()), (192, 576));
    let indexer = config.indexer.expect("V3.2");
    assert_eq!(
        (indexer.index_n_heads, indexer.index_head_dim, indexer.index_topk),
        (64, 128, 2048)
    );
    assert!(config.is_dense_layer(2) && !config.is_dense_layer(3));
}

#[test]
fn transformers_spelling_means_the_same() {
    let deepseek = read(&published_with("DeepSeek-V3", json!({ "num_nextn_predict_layers": 0 })));
    let transformers = published_with(
        "DeepSeek-V3",
        json!({
            "num_nextn_predict_layers": null, "rope_scaling": null, "rope_theta": null, "scoring_func": null,
            "topk_method": null, "moe_layer_freq": null, "rope_interleave": true, "head_dim": 64,
            "rope_parameters": {"rope_type": "yarn", "type": "yarn", "factor": 40.0, "beta_fast": 32, "beta_slow": 1,
                "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096, "rope_theta": 10000.0},
        }),
    );
    assert_eq!(deepseek.expect("valid"), read(&transformers).expect("valid"));
}

#[test]
fn impossible_values_are_refused_by_name() {
    let cases = [
        ("kv_lora_rank", json!(0), "from 1 to"),
        ("kv_lora_rank", json!(null), "missing"),
        ("q_lora_rank", json!(null), "missing"),
        ("first_k_dense_replace", json!(62), "from 0 to 61"),
        ("qk_rope_head_dim", json!(63), "even number"),
        ("qk_rope_head_dim", json!(130), "at most 128 (index_head_dim)"),
        ("index_head_dim", json!(96), "power of two"),
        ("index_topk", json!(0), "from 1 to"),
        ("index_n_heads", json!(null), "missing"),
        ("n_group", json!(7), "groups of at least 2"),
        ("n_group", json!(256), "groups of at least 2"),
        ("topk_group", json!(9), "at most 8 (n_group)"),
        (
            "num_experts_per_tok",
            json!(129),
            "the experts of 4 groups (topk_group)",
        ),
        ("n_shared_experts", json!(0), "from 1 to"),
        ("num_nextn_predict_layers", json!(1000), "from 0 to"),
        ("scoring_func", json!("softmax"), "sigmoid"),
        ("topk_method", json!("greedy"), "noaux_tc"),
        ("moe_layer_freq", json!(2), "expected 1"),
        ("rope_scaling", json!({"type": "linear", "factor": 2}), "\"yarn\""),
        (
            "rope_scaling",
            json!({"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 0.7, "mscale_all_dim": 1.0,
                "original_max_position_embeddings": 4096}),
            "rope_scaling.mscale",
        ),
        (
            "rope_scaling",
            json!({"type": "yarn", "factor": 40, "beta_fast": 1, "beta_slow": 1, "original_max_position_embeddings": 4096}),
            "above 1 (beta_slow)",
        ),
        ("n_routed_experts", json!(1 << 13), "at most 2097152 tensors"),
    ];
    for (key, value, fragment) in cases {
        let changes = json!({ key: value });
        let error = read(&published_with("DeepSeek-V3.2", changes)).expect_err(key);
        let typed = matches!(&error, Error::ConfigValue { .. } | Error::ConfigKeyMissing { .. });
        let message = error.to_string();
        assert!(typed && message.contains(fragment), "{key} {value}: {message}");
        assert!(
            message.starts_with("model/config.json: ") && message.contains("; "),
            "{message}"
        );
    }
}

fn fixture(name: &str) -> Vec<(String, Bytes)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../model/tests/fixtures")
        .join(name);
    let file = |name: &str| {
        let bytes = std::fs::read(folder.join(name)).expect("a fixture file");
        (name.to_owned(), Bytes::from(bytes))
    };
    vec![file("config.json"), file("model.safetensors")]
}

/// The fixture with other values in config.json.
fn open_with(name: &str, changes: Value) -> Result<Checkpoint, Error> {
    let mut files = fixture(name);
    let mut config: Value = serde_json::from_slice(&files[0].1).expect("valid JSON");
    for (key, value) in changes.as_object().expect("an object") {
        config[key] = value.clone();
    }
    files[0].1 = Bytes::from(config.to_string());
    Checkpoint::from_files(name, files)
}

/// Weights by the names of the releases are found by those of the inventory, and the MTP layer behind the main ones.
#[test]
fn released_names_are_understood() {
    let checkpoint = open_with("v32-fp8", json!({})).expect("the fixture is sound");
    assert_eq!(
        (checkpoint.nextn_stage_count(), checkpoint.extra_tensors().len()),
        (1, 0)
    );
    for (name, rows, columns) in [
        ("layers.0.ffn.w1", 96, 64),
        ("layers.1.attn.wkv_b", 160, 32),
        ("layers.3.ffn.experts.15.w2", 64, 32),
        ("layers.2.attn.indexer.wk", 16, 64),
        ("layers.4.eh_proj", 64, 128),
    ] {
        let matrix = checkpoint.matrix(name).expect(name);
        assert_eq!((matrix.rows, matrix.columns), (rows, columns), "{name}");
    }
    checkpoint.verify(|_| ()).expect("no bad value");
    // As transformers saves it, without MTP layers.
    let saved = open_with("v3-f32", json!({})).expect("the fixture is sound");
    assert_eq!((saved.nextn_stage_count(), saved.extra_tensors().len()), (0, 0));
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    for (changes, name, problem) in [
        (json!({ "kv_lora_rank": 40 }), "layers.*.attn.wkv_b.weight", None),
        (
            json!({ "num_hidden_layers": 6 }),
            "layers.*.attn.wq_a.weight",
            Some(Problem::Missing),
        ),
        (
            json!({ "first_k_dense_replace": 2 }),
            "layers.*.ffn.w1.weight",
            Some(Problem::Missing),
        ),
        (
            json!({ "n_routed_experts": 17 }),
            "layers.*.ffn.experts.*.w1.weight",
            Some(Problem::Missing),
        ),
        (
            json!({ "index_n_heads": 8 }),
            "layers.*.attn.indexer.weights_proj.weight",
            None,
        ),
    ] {
        let Err(Error::Tensors(report)) = open_with("v32-fp8", changes.clone()) else {
            panic!("{changes} was accepted");
        };
        let group = report.groups.iter().find(|group| group.pattern == name);
        let group = group.unwrap_or_else(|| panic!("{changes}: {report}"));
        match problem {
            Some(problem) => assert_eq!(group.problem, problem, "{changes}"),
            None => assert!(matches!(group.problem, Problem::Shape { .. }), "{changes}: {report}"),
        }
    }
}

/// A file that ends early, anywhere, and bad bytes in what is looked at on opening.
#[test]
fn cut_and_spoiled_files_are_refused() {
    let whole = fixture("v3-fp8");
    let length = whole[1].1.len();
    for end in [0, 7, 8, 1000, length / 2, length - 1] {
        let mut files = whole.clone();
        files[1].1 = files[1].1.slice(..end);
        let error = Checkpoint::from_files("cut", files).expect_err("cut");
        assert!(matches!(error, Error::Header { .. }), "{end}: {error}");
    }
    let mut spoiled = whole[1].1.to_vec();
    let start = norm_start(&spoiled);
    spoiled[start..start + 2].copy_from_slice(&0x7FC0u16.to_le_bytes());
    let mut files = whole;
    files[1].1 = Bytes::from(spoiled);
    let message = Checkpoint::from_files("spoiled", files).expect_err("NaN").to_string();
    assert!(
        message.contains("layers.1.attn.kv_norm.weight") && message.contains("NaN"),
        "{message}"
    );
}

/// Where a norm begins in a file.
fn norm_start(file: &[u8]) -> usize {
    let header_length = u64::from_le_bytes(file[..8].try_into().expect("8 bytes")) as usize;
    let header: Value = serde_json::from_slice(&file[8..8 + header_length]).expect("a header");
    let norm = &header["model.layers.1.self_attn.kv_a_layernorm.weight"];
    8 + header_length + norm["data_offsets"][0].as_u64().expect("an offset") as usize
}

#[test]
fn cutting_keeps_dense_layers_in_front() {
    for (layers, dense) in [(1, 0), (2, 1), (8, 2), (16, 3), (61, 3), (100, 3)] {
        let text = published::config("DeepSeek-V3.2").expect("a release");
        let cut = synth::with_layers(text, layers, synth::Stages::Drop).expect("sound");
        let ModelConfig::V3(config) = ModelConfig::from_json(&cut, Path::new("cut")).expect("valid") else {
            panic!("another family");
        };
        assert_eq!(
            (config.num_hidden_layers, config.first_k_dense_replace),
            (layers.min(61), dense)
        );
        assert_eq!(config.num_nextn_predict_layers, 0);
        assert!(config.indexer.is_some());
    }
}
