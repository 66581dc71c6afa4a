//! Random checkpoints: true to the configuration, reproducible, and never half there.

mod support;

use std::{fs, path::Path};

use cachalot_checkpoint::{
    Checkpoint, DeepseekV4Config, Error, accounting, published,
    synth::{self, Stages},
};
use cachalot_numerics::decode_matrix;
use serde_json::json;
use support::{CONFIG, Files, config_with, dspark_config};

#[test]
fn a_written_checkpoint_opens_and_verifies() {
    let plain = config_with(json!({"quantization_config": null, "expert_dtype": null}));
    for config in [CONFIG.to_owned(), dspark_config(), plain] {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("model");
        let written = synth::write(&config, 7, &out, |_| ()).expect("written");
        let checkpoint = Checkpoint::open(&out).expect("a checkpoint");
        checkpoint.verify(|_| ()).expect("sound");
        assert!(checkpoint.extra_tensors().is_empty());
        assert_eq!(checkpoint.nextn_stage_count(), checkpoint.config().nextn_stage_count());
        assert_eq!(checkpoint.tensor_count(), written.tensors);
        assert_eq!(checkpoint.byte_count(), written.bytes);
        assert_eq!(synth::size_bytes(checkpoint.config()), written.bytes);
        let total = accounting::total(checkpoint.config());
        assert_eq!(written.tensors as u64, total.tensors);
        assert!(written.bytes > total.bytes);
        // Nothing else is left in the parent folder.
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }
}

#[test]
fn shards_are_those_of_the_releases() {
    for (name, shards) in [
        ("DeepSeek-V4-Flash", 46),
        ("DeepSeek-V4-Flash-0731", 48),
        ("DeepSeek-V4-Pro", 64),
        ("DeepSeek-V4-Pro-0813", 66),
    ] {
        let text = published::config(name).expect("built in");
        let config = DeepseekV4Config::from_json(text, Path::new(name)).expect("valid");
        assert_eq!(synth::shard_count(&config), shards, "{name}");
    }
    let mut files = Files::of(&dspark_config());
    let index = files.get("model.safetensors.index.json");
    let index: serde_json::Value = serde_json::from_slice(index).expect("JSON");
    for (tensor, shard) in [
        ("embed.weight", 1),
        ("layers.0.attn.wkv.weight", 2),
        ("layers.3.ffn.gate.bias", 5),
        ("head.weight", 6),
        ("hc_head_fn", 6),
        ("mtp.0.main_norm.weight", 7),
        ("mtp.2.norm.weight", 9),
    ] {
        let name = format!("model-{shard:05}-of-00009.safetensors");
        assert_eq!(index["weight_map"][tensor], json!(name), "{tensor}");
    }
}

#[test]
fn the_seed_decides_every_byte() {
    let write = |seed| {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("model");
        synth::write(CONFIG, seed, &out, |_| ()).expect("written");
        fs::read(out.join("model-00003-of-00007.safetensors")).expect("a shard")
    };
    assert_eq!(write(1), write(1));
    assert_ne!(write(1), write(2));
}

/// Inputs of size 1 give outputs of size 1, in every format.
#[test]
fn matrices_have_the_deviation_of_their_width() {
    let base = config_with(json!({
        "hidden_size": 512, "moe_intermediate_size": 256, "expert_dtype": "fp8",
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    }));
    let fp4 = config_with(json!({"hidden_size": 512, "moe_intermediate_size": 256}));
    for config in [base, fp4] {
        let checkpoint = Files::of(&config).open().expect("a checkpoint");
        for name in [
            "layers.1.ffn.experts.0.w1",
            "layers.1.ffn.shared_experts.w2",
            "layers.0.ffn.gate",
        ] {
            let matrix = checkpoint.matrix(name).expect(name);
            let scales = matrix.scales.unwrap_or_default();
            let (rows, columns) = (matrix.rows, matrix.columns);
            let values = decode_matrix(matrix.format, &matrix.weights, &scales, rows, columns);
            let square: f64 = values.iter().map(|value| (*value as f64).powi(2)).sum();
            let deviation = (square / values.len() as f64 * columns as f64).sqrt();
            assert!((0.6..1.6).contains(&deviation), "{name} {}: {deviation}", matrix.format);
        }
    }
}

#[test]
fn a_used_folder_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("letter.txt"), "dear").expect("a file");
    let error = synth::write(CONFIG, 1, folder.path(), |_| ()).expect_err("not empty");
    assert!(matches!(&error, Error::FolderNotEmpty { .. }), "{error}");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    // An empty one is taken, with or without a slash behind its name.
    let empty = folder.path().join("empty/");
    fs::create_dir(&empty).expect("a folder");
    synth::write(CONFIG, 1, &empty, |_| ()).expect("written");
    Checkpoint::open(&empty).expect("a checkpoint");
}

#[test]
fn a_full_disk_is_noticed_before_anything_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    // Some 200 TB: allowed by the limits of a configuration, and on no disk.
    let vast = config_with(json!({
        "hidden_size": 1 << 17, "moe_intermediate_size": 1 << 17, "n_routed_experts": 1 << 11,
    }));
    let out = folder.path().join("model");
    let error = synth::write(&vast, 1, &out, |_| ()).expect_err("too large");
    assert!(matches!(&error, Error::DiskFull { .. }), "{error}");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

#[test]
fn cutting_keeps_the_mix_of_layers() {
    for (name, layers, ratios, hashed) in [
        ("DeepSeek-V4-Flash", 1, vec![4], 0),
        ("DeepSeek-V4-Flash", 2, vec![0, 4], 1),
        ("DeepSeek-V4-Flash", 3, vec![0, 128, 4], 1),
        ("DeepSeek-V4-Flash", 8, vec![0, 0, 128, 4, 128, 4, 128, 4], 2),
        ("DeepSeek-V4-Pro", 3, vec![128, 128, 4], 1),
        ("DeepSeek-V4-Pro-Base", 4, vec![128, 4, 128, 4], 1),
    ] {
        let text = published::config(name).expect("built in");
        let cut = synth::with_layers(text, layers, Stages::Drop).expect("valid");
        let config = DeepseekV4Config::from_json(&cut, Path::new(name)).expect("valid");
        assert_eq!(
            (config.compress_ratios, config.num_hash_layers),
            (ratios, hashed),
            "{name}"
        );
        assert_eq!(config.dspark, None);
    }
    // As many layers as the model has, or more: the model itself.
    let text = published::config("DeepSeek-V4-Flash-0731").expect("built in");
    let whole = DeepseekV4Config::from_json(text, Path::new("whole")).expect("valid");
    for layers in [43, 1000] {
        let same = synth::with_layers(text, layers, Stages::Keep).expect("valid");
        assert_eq!(
            DeepseekV4Config::from_json(&same, Path::new("same")).expect("valid"),
            whole
        );
    }
    let kept = synth::with_layers(text, 5, Stages::Keep).expect("valid");
    let kept = DeepseekV4Config::from_json(&kept, Path::new("kept")).expect("valid");
    assert_eq!(kept.nextn_stage_count(), 3);
    assert_eq!(kept.dspark.expect("DSpark").target_layer_ids, [2, 3, 4]);
    assert!(synth::with_layers(text, 0, Stages::Drop).is_err());
}
