//! Commands about models and chips.

mod support;

use std::fs;

use serde_json::Value;
use support::{TINY, folder, json, json_in, output, output_in, run_in, tiny_copy};

#[test]
fn inspect_knows_published_models_without_their_files() {
    // Bytes and rates as published in the architecture notes.
    for (name, bytes_per_token, state) in [
        ("deepseek-ai/DeepSeek-V4-Flash", 11_217_572_060_u64, 3514.25),
        ("deepseek-v4-pro", 39_666_603_980, 5031.4375),
    ] {
        let value = json(&["inspect", name, "--json"]);
        assert_eq!(value["bytes_per_token"], bytes_per_token);
        assert_eq!(value["state"]["packed"]["bytes_per_token"], state);
        assert_eq!(value["files"], Value::Null);
    }
    let text = output(&["inspect", "deepseek-ai/DeepSeek-V4-Flash"]);
    for part in ["284 B total, 13.3 B active", "20 HCA", "160 GB", "not on this machine"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn inspect_reads_folders_and_bare_configurations() {
    let home = folder();
    let built_in = json(&["inspect", "--json", "--verify"]);
    assert_eq!(built_in["verified"], true);
    let mut from_folder = json(&["inspect", "--json", "--model", TINY]);
    assert_eq!(from_folder["files"], built_in["files"]);
    assert_eq!(
        from_folder["files"]["weight_bytes"],
        fs::metadata(format!("{TINY}/model-00001-of-00001.safetensors"))
            .unwrap()
            .len()
    );

    fs::copy(format!("{TINY}/config.json"), home.path().join("config.json")).unwrap();
    let bare = json_in(home.path(), &["inspect", ".", "--json"]);
    assert_eq!(bare["files"], Value::Null);
    for key in ["name", "source", "files"] {
        from_folder[key] = bare[key].clone();
    }
    assert_eq!(bare, from_folder);
    let refused = run_in(home.path(), &["inspect", ".", "--verify"], b"");
    assert_eq!(refused.code, Some(1));
    assert!(refused.errors.contains("no weights"), "{}", refused.errors);
}

#[test]
fn a_synthetic_model_runs() {
    let home = folder();
    let synth = ["synth", "--like", TINY, "--layers", "3", "--seed", "5"];
    let printed = output_in(home.path(), &[synth.as_slice(), &["out"]].concat());
    assert_eq!(printed, "out\n");
    output_in(home.path(), &[synth.as_slice(), &["again"]].concat());
    for entry in fs::read_dir(home.path().join("out")).unwrap() {
        let path = entry.unwrap().path();
        let twin = home.path().join("again").join(path.file_name().unwrap());
        assert!(
            fs::read(&path).unwrap() == fs::read(twin).unwrap(),
            "{}",
            path.display()
        );
    }
    let value = json_in(
        home.path(),
        &["run", "--model", "out", "--json", "--max-tokens", "4", "Hi"],
    );
    assert_eq!(value["model"], "out");
    assert!(value["usage"]["completion_tokens"].as_u64().unwrap() <= 4);
    let inspected = json_in(home.path(), &["inspect", "out", "--json", "--verify"]);
    assert_eq!(
        inspected["layers"],
        serde_json::json!({ "sliding_window": 1, "csa": 1, "hca": 1 })
    );

    output_in(
        home.path(),
        &["synth", "--like", TINY, "--layers", "2", "--vocab", "100", "small"],
    );
    fs::write(home.path().join("ids"), "[1, 99]").unwrap();
    output_in(home.path(), &["score", "small", "--tokens", "ids"]);
    let refused = run_in(home.path(), &["run", "--model", "small", "Hi"], b"");
    assert!(
        refused.errors.contains("small has no tokenizer.json"),
        "{}",
        refused.errors
    );
}

/// V4.1 in the shapes of a toy, from the release's own configuration.
#[test]
fn a_synthetic_v41_model_runs() {
    let home = folder();
    let release = include_str!("../../checkpoint/src/published/v41.json");
    let mut config: serde_json::Value = serde_json::from_str(release).unwrap();
    for (key, value) in [
        ("vocab_size", 2048),
        ("hidden_size", 128),
        ("num_attention_heads", 8),
        ("head_dim", 64),
        ("qk_rope_head_dim", 32),
        ("q_lora_rank", 64),
        ("o_lora_rank", 64),
        ("moe_intermediate_size", 64),
        ("n_routed_experts", 8),
        ("dspark_n_routed_experts", 8),
        ("dspark_noise_token_id", 5),
        ("index_n_heads", 4),
        ("index_head_dim", 64),
        ("index_topk", 16),
        ("engram_compressed_vocab_size", 1000),
    ] {
        config["text_config"][key] = serde_json::json!(value);
    }
    config["image_token_id"] = serde_json::json!(2047);
    fs::create_dir(home.path().join("like")).unwrap();
    fs::write(home.path().join("like/config.json"), config.to_string()).unwrap();
    output_in(home.path(), &["synth", "--like", "like", "--layers", "6", "out"]);
    let value = json_in(
        home.path(),
        &["run", "--model", "out", "--json", "--max-tokens", "4", "Hi"],
    );
    assert!(value["usage"]["completion_tokens"].as_u64().unwrap() <= 4);
    let inspected = json_in(home.path(), &["inspect", "out", "--json", "--verify"]);
    assert_eq!(
        inspected["layers"],
        serde_json::json!({ "sliding_window": 1, "csa2_in_pairs": 2, "csa2_by_token": 3 })
    );
    let planned = json_in(home.path(), &["plan", "out", "--no-probe", "--chip", "h200", "--json"]);
    assert!(planned.is_object());
    // Without its tokenizer a release's tables would be read at wrong rows.
    let mut written: serde_json::Value =
        serde_json::from_slice(&fs::read(home.path().join("out/config.json")).unwrap()).unwrap();
    written.as_object_mut().unwrap().remove("cachalot_token_map");
    fs::write(home.path().join("out/config.json"), written.to_string()).unwrap();
    let refused = run_in(home.path(), &["run", "--model", "out", "Hi"], b"");
    assert!(
        refused.errors.contains("engram_compressed_vocab_size"),
        "{}",
        refused.errors
    );
    output_in(
        home.path(),
        &["synth", "--like", "like", "--layers", "3", "--vocab", "300", "small"],
    );
    fs::write(home.path().join("ids"), "[1, 99, 100]").unwrap();
    output_in(home.path(), &["score", "small", "--tokens", "ids"]);
}

#[test]
fn a_model_is_found_in_the_shared_cache() {
    let home = folder();
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let repository = home.path().join("hf/hub/models--org--tiny");
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::create_dir_all(repository.join("snapshots")).unwrap();
    fs::write(repository.join("refs/main"), commit).unwrap();
    fs::rename(tiny_copy(home.path()), repository.join("snapshots").join(commit)).unwrap();
    let answer = output_in(
        home.path(),
        &["run", "--model", "org/tiny", "--greedy", "What is 34 + 25?"],
    );
    assert_eq!(answer, "34 + 25 = 59.\n");
    let folder = output_in(home.path(), &["download", "org/tiny"]);
    assert!(folder.trim_end().ends_with(commit), "{folder}");
}

#[test]
fn every_chip_wears_a_label() {
    let chips = json(&["chips", "--json"]);
    let labels: Vec<String> = chips["chips"]
        .as_array()
        .unwrap()
        .iter()
        .map(|chip| {
            format!(
                "{}: {}",
                chip["name"].as_str().unwrap(),
                chip["label"].as_str().unwrap()
            )
        })
        .collect();
    let expected = [
        "cpu: measured",
        "ascend: planned",
        "nvidia: planned",
        "amd: planned",
        "cambricon: planned",
    ];
    assert_eq!(labels, expected);
    assert_eq!(chips["chips"][0]["operators"]["router"]["reference"], "reference");
    let (version, text) = (output(&["--version"]), output(&["chips"]));
    assert!(version.starts_with(concat!("cachalot ", env!("CARGO_PKG_VERSION"))));
    for label in expected {
        assert!(version.contains(label), "{version}");
        assert!(text.contains(label.split(':').next().unwrap()));
    }
}

#[test]
fn help_begins_with_something_that_works() {
    assert!(output(&[]).contains("cachalot run \"Tell me a story about a fox\""));
    for command in ["run", "chat", "inspect", "synth", "score", "eval", "download", "chips"] {
        assert!(output(&["--help"]).contains(command));
        assert!(output(&[command, "--help"]).contains("Usage: cachalot"));
    }
}
