//! Opening checkpoints: what is read, and every way in which files can lie.

mod support;

use std::path::Path;

use cachalot_checkpoint::{Checkpoint, Error, inventory};
use cachalot_numerics::{Dtype, MatrixFormat};
use serde_json::{Value, json};
use support::{CONFIG, Files, Shard, Tensor, config_with, dspark_config, join, split};

const INDEX: &str = "model.safetensors.index.json";

#[test]
fn matrices_and_tensors_are_found_by_official_name() {
    let files = Files::of(CONFIG);
    let checkpoint = files.open().expect("a checkpoint");
    assert_eq!((checkpoint.name(), checkpoint.nextn_stage_count()), ("tiny", 1));
    assert!(checkpoint.extra_tensors().is_empty());
    for (name, rows, columns, format) in [
        ("embed", 48, 64, MatrixFormat::Bf16),
        ("layers.1.attn.compressor.wkv", 64, 64, MatrixFormat::Bf16),
        ("layers.2.attn.wq_b", 128, 32, MatrixFormat::FP8),
        ("layers.3.attn.wo_a", 32, 64, MatrixFormat::FP8),
        ("layers.3.ffn.experts.2.w2", 64, 32, MatrixFormat::FP4),
        ("mtp.0.e_proj", 64, 64, MatrixFormat::FP8),
    ] {
        let matrix = checkpoint.matrix(name).expect(name);
        assert_eq!(
            (matrix.rows, matrix.columns, matrix.format),
            (rows, columns, format),
            "{name}"
        );
        let stored = matrix.weights.len() + matrix.scales.map_or(0, |scales| scales.len());
        assert_eq!(stored, format.byte_count(rows, columns), "{name}");
    }
    let norm = checkpoint.tensor("layers.0.attn_norm.weight").expect("a norm");
    assert_eq!((norm.dtype, norm.shape.as_slice()), (Dtype::Bf16, &[64][..]));
    assert_eq!(norm.to_f32().expect("floats").len(), 64);
    let table = checkpoint.tensor("layers.0.ffn.gate.tid2eid").expect("a table");
    assert_eq!((table.dtype, table.shape.as_slice()), (Dtype::I64, &[48, 2][..]));
    assert!(checkpoint.contains("layers.1.ffn.gate.bias") && checkpoint.contains("layers.0.attn.wkv"));
    assert!(!checkpoint.contains("layers.0.ffn.gate.bias"));
    assert!(checkpoint.file("config.json").is_some() && checkpoint.file("../config.json").is_none());
    for name in ["layers.4.attn.wkv", "layers.0.attn.attn_sink"] {
        assert!(
            matches!(checkpoint.matrix(name), Err(Error::TensorUnknown { .. })),
            "{name}"
        );
    }
}

/// In any order of files and tensors, and with any alignment, the same tensors come out.
#[test]
fn one_file_without_index_is_the_same_checkpoint() {
    let files = Files::of(CONFIG);
    let mut merged = files.merged();
    merged.edit(|shard| shard.tensors.reverse());
    let (sharded, merged) = (files.open().expect("shards"), merged.open().expect("one file"));
    for spec in inventory::tensors(sharded.config()) {
        let (left, right) = (sharded.tensor(&spec.name), merged.tensor(&spec.name));
        assert_eq!(left.expect("stored").data, right.expect("stored").data, "{}", spec.name);
    }
}

/// Changes a merged checkpoint and tells what opening says.
fn damaged(change: impl FnOnce(&mut Shard)) -> String {
    let mut files = Files::of(CONFIG).merged();
    files.edit(change);
    files.refusal()
}

#[test]
fn all_missing_and_wrong_tensors_come_in_one_message() {
    let message = damaged(|shard| {
        shard.tensors.retain(|tensor| !tensor.name.ends_with("w2.scale"));
        shard.take("layers.1.attn.indexer.wq_b.weight");
        shard.tensor("norm.weight").shape = vec![1, 64];
        shard.tensor("layers.0.hc_attn_fn").dtype = "I32".into();
        shard.tensor("layers.2.ffn.gate.bias").dtype = "F8_E5M2".into();
        shard.tensor("layers.2.ffn.gate.bias").shape = vec![16];
    });
    // 4 layers and a stage with 4 experts each; the shared experts' scale in each of them.
    for line in [
        "tiny: 29 tensors do not fit config.json:",
        "layers.*.ffn.experts.*.w2.scale (16 tensors, first layers.0.ffn.experts.0.w2.scale): missing",
        "mtp.*.ffn.experts.*.w2.scale (4 tensors, first mtp.0.ffn.experts.0.w2.scale): missing",
        "layers.1.attn.indexer.wq_b.weight: missing",
        "norm.weight: shape [1, 64], expected [64]",
        "layers.0.hc_attn_fn: type I32, expected F32 or BF16",
        "layers.2.ffn.gate.bias: type F8_E5M2, expected F32 or BF16",
        "check that config.json and weights are of the same release",
    ] {
        assert!(message.contains(line), "{line}\nis not in\n{message}");
    }
}

#[test]
fn a_configuration_of_another_model_gives_a_short_message() {
    let mut files = Files::of(CONFIG);
    *files.get("config.json") = config_with(json!({"hidden_size": 96, "head_dim": 48})).into_bytes();
    let message = files.refusal();
    assert!(
        message.lines().count() <= 23 && message.contains(" more\n"),
        "{message}"
    );
}

#[test]
fn stages_may_be_absent_but_not_in_part() {
    for config in [CONFIG.to_owned(), dspark_config()] {
        let mut files = Files::of(&config).merged();
        let whole = files.open().expect("a checkpoint");
        assert_eq!(whole.nextn_stage_count(), whole.config().nextn_stage_count());
        let mut partly = files.clone();
        partly.edit(|shard| drop(shard.take("mtp.0.attn.wkv.weight")));
        assert!(partly.refusal().contains("mtp.0.attn.wkv.weight: missing"));
        files.edit(|shard| shard.tensors.retain(|tensor| !tensor.name.starts_with("mtp.")));
        assert_eq!(files.open().expect("a checkpoint").nextn_stage_count(), 0);
    }
}

#[test]
fn unknown_tensors_are_tolerated_and_listed() {
    let mut files = Files::of(CONFIG).merged();
    files.edit(|shard| {
        for (name, dtype, byte_count) in [("mtp.0.head.weight", "F16", 2), ("a.scale", "F4", 1)] {
            shard.tensors.push(Tensor {
                name: name.into(),
                dtype: dtype.into(),
                shape: vec![1, if dtype == "F4" { 2 } else { 1 }],
                data: vec![0; byte_count],
            });
        }
    });
    let checkpoint = files.open().expect("a checkpoint");
    assert_eq!(checkpoint.extra_tensors(), ["a.scale", "mtp.0.head.weight"]);
    assert!(
        checkpoint.tensor("mtp.0.head.weight").is_err(),
        "F16 is not a type of this engine"
    );
}

#[test]
fn formats_are_told_by_type_where_the_configuration_is_silent() {
    // The first releases announced no expert_dtype.
    let mut files = Files::of(CONFIG);
    *files.get("config.json") = config_with(json!({"expert_dtype": null})).into_bytes();
    let checkpoint = files.open().expect("a checkpoint");
    assert_eq!(
        checkpoint.matrix("layers.0.ffn.experts.0.w1").expect("FP4").format,
        MatrixFormat::FP4
    );
    // -Base: FP8 experts, F32 scales everywhere; the same files with a silent configuration.
    let base = config_with(json!({
        "expert_dtype": "fp8",
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    }));
    let mut files = Files::of(&base);
    for config in [base.as_str(), CONFIG] {
        *files.get("config.json") = config.as_bytes().to_vec();
        let checkpoint = files.open().expect("a checkpoint");
        for name in ["layers.0.ffn.experts.0.w1", "layers.0.attn.wkv"] {
            assert_eq!(
                checkpoint.matrix(name).expect(name).format,
                MatrixFormat::FP8_F32,
                "{name}"
            );
        }
    }
    // Not quantised at all.
    let plain = config_with(json!({"quantization_config": null, "expert_dtype": null}));
    let checkpoint = Files::of(&plain).open().expect("a checkpoint");
    assert_eq!(
        checkpoint.matrix("layers.0.ffn.experts.0.w1").expect("BF16").format,
        MatrixFormat::Bf16
    );
}

#[test]
fn transformers_spellings_hold_the_same_tensors() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let own = Checkpoint::open(&fixtures.join("transformers_own")).expect("its own names");
    let default = Checkpoint::open(&fixtures.join("transformers_default")).expect("its default");
    assert_eq!(own.config(), default.config());
    assert_eq!(own.tensor_count(), default.tensor_count());
    assert!(own.extra_tensors().is_empty() && default.extra_tensors().is_empty());
    let mut different = std::collections::HashSet::new();
    for slot in inventory::slots(own.config()) {
        let name = match slot.kind {
            inventory::SlotKind::Matrix { .. } => format!("{}.weight", slot.name),
            _ => slot.name,
        };
        let (left, right) = (own.tensor(&name).expect(&name), default.tensor(&name).expect(&name));
        assert_eq!((&left.shape, &left.data), (&right.shape, &right.data), "{name}");
        different.insert(left.data);
    }
    // All are random, so a tensor mistaken for another would show.
    assert_eq!(different.len(), own.tensor_count());
}

/// Quantised experts, stacked and named as transformers does.
#[test]
fn stacked_experts_come_apart() {
    let files = Files::of(CONFIG).merged();
    let original = files.open().expect("a checkpoint");
    let mut stacked = files.clone();
    stacked.edit(|shard| {
        for place in ["layers.0", "layers.1", "layers.2", "layers.3", "mtp.0"] {
            for (stored, suffix, ending) in [("weight", "", ""), ("scale", "", "_scale_inv")] {
                let mut stack = |name: &str, leaves: &[&str]| {
                    let mut parts = Vec::new();
                    for expert in 0..4 {
                        for leaf in leaves {
                            parts.push(shard.take(&format!("{place}.ffn.experts.{expert}.{leaf}.{stored}")));
                        }
                    }
                    let [rows, columns] = parts[0].shape[..] else {
                        panic!("a matrix");
                    };
                    shard.tensors.push(Tensor {
                        name: format!("model.{place}.mlp.experts.{name}{suffix}{ending}"),
                        dtype: parts[0].dtype.clone(),
                        shape: vec![4, rows * leaves.len(), columns],
                        data: parts.concat_data(),
                    });
                };
                stack("gate_up_proj", &["w1", "w3"]);
                stack("down_proj", &["w2"]);
            }
        }
    });
    let stacked = stacked.open().expect("a checkpoint");
    for spec in inventory::tensors(original.config()) {
        let (left, right) = (original.tensor(&spec.name), stacked.tensor(&spec.name));
        let (left, right) = (left.expect("stored"), right.expect("stored"));
        assert_eq!((left.shape, left.data), (right.shape, right.data), "{}", spec.name);
    }
}

trait ConcatData {
    fn concat_data(&self) -> Vec<u8>;
}

impl ConcatData for Vec<Tensor> {
    fn concat_data(&self) -> Vec<u8> {
        self.iter().flat_map(|tensor| tensor.data.clone()).collect()
    }
}

#[test]
fn a_tensor_stored_twice_is_refused() {
    let message = damaged(|shard| {
        let mut twin = shard.tensor("layers.0.attn.kv_norm.weight").clone();
        twin.name = "model.layers.0.self_attn.kv_norm.weight".into();
        shard.tensors.push(twin);
    });
    assert!(
        message.contains("layers.0.attn.kv_norm.weight is stored twice"),
        "{message}"
    );
}

#[test]
fn headers_that_lie_are_refused() {
    let good = Files::of(CONFIG).merged();
    let content = good.clone().get("model.safetensors").clone();
    let (header, data) = split(&content);
    let text = Value::Object(header.clone()).to_string();
    let with = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let mut header = header.clone();
        change(&mut header);
        join(&Value::Object(header).to_string(), data)
    };
    let first = header
        .iter()
        .find(|(_, info)| info["data_offsets"][0] == 0)
        .expect("a first tensor")
        .0;
    let last_end = data.len();
    let last = header
        .iter()
        .find(|(_, info)| info["data_offsets"][1] == last_end)
        .expect("a last one")
        .0;
    let doubled = format!("{},{}:{}}}", &text[..text.len() - 1], json!(first), header[first]);
    let cases = [
        (Vec::new(), "the file has 0 bytes"),
        (vec![0; 9], "the file has 9 bytes"),
        (content[..1000].to_vec(), "the header claims"),
        (
            [&[0xFF; 8][..], &content[8..]].concat(),
            "the header claims 18446744073709551615 bytes",
        ),
        (
            content[..content.len() - 1].to_vec(),
            "ends 1 bytes beyond the end of the file",
        ),
        ([&content[..], &[0]].concat(), "1 bytes behind the last tensor"),
        (join("[1, 2]", data), "not a safetensors header"),
        (join("{", data), "not a safetensors header"),
        (join(&text.replace("BF16", "BF17"), data), "not a safetensors header"),
        (join("\u{FF}\u{FE}", data), "not a safetensors header"),
        (join(&doubled, data), "overlap"),
        (with(&|header| header[first]["shape"] = json!([0, 4])), "no side of 0"),
        (
            with(&|header| header[first]["shape"] = json!([3, 5])),
            "does not fill its range",
        ),
        (
            with(&|header| header[first]["shape"] = json!([1u64 << 40, 1u64 << 40])),
            "does not fill its range",
        ),
        (
            with(&|header| header[first]["data_offsets"] = json!([8, 0])),
            "does not fill its range",
        ),
        (
            with(&|header| header[first]["data_offsets"] = json!([-1, 8])),
            "not a safetensors header",
        ),
        (with(&|header| drop(header.remove(first))), "belong to no tensor"),
        (
            with(&|header| drop(header.remove(last))),
            "behind the last tensor belong to no tensor",
        ),
    ];
    for (content, fragment) in cases {
        let mut files = good.clone();
        *files.get("model.safetensors") = content;
        let message = files.refusal();
        assert!(message.contains(fragment), "{fragment}: {message}");
        assert!(message.starts_with("tiny/model.safetensors: "), "{message}");
    }
}

/// A name twice in one header, each with bytes of its own.
#[test]
fn a_name_twice_in_a_header_is_refused() {
    let mut files = Files::of(CONFIG).merged();
    let content = files.get("model.safetensors");
    let (header, data) = split(content);
    let text = Value::Object(header).to_string();
    let range = json!([data.len(), data.len() + 8]);
    let extra = json!({"dtype": "I64", "shape": [1], "data_offsets": range});
    let doubled = format!("{},\"norm.weight\":{extra}}}", &text[..text.len() - 1]);
    *content = join(&doubled, &[data, &[0; 8]].concat());
    assert!(files.refusal().contains("norm.weight is stored twice"));
}

#[test]
fn indexes_that_lie_are_refused() {
    let good = Files::of(CONFIG);
    let mut index: Value = serde_json::from_slice(good.clone().get(INDEX)).expect("JSON");
    let map = index["weight_map"].as_object_mut().expect("an object");
    let with = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let mut map = map.clone();
        change(&mut map);
        json!({ "weight_map": map }).to_string()
    };
    let cases = [
        ("{".to_owned(), "not valid JSON"),
        ("{}".to_owned(), "\"weight_map\" is not an object"),
        (
            json!({"weight_map": {"a": 1}}).to_string(),
            "\"weight_map\" is not an object",
        ),
        (
            r#"{"weight_map": {"a": "b.safetensors", "a": "c.safetensors"}}"#.to_owned(),
            "\"a\" appears twice",
        ),
        (
            with(&|map| map["embed.weight"] = json!("../secret.safetensors")),
            "somebody changed it",
        ),
        (
            with(&|map| map["embed.weight"] = json!("/etc/x.safetensors")),
            "somebody changed it",
        ),
        (
            with(&|map| map["embed.weight"] = json!("config.json")),
            "somebody changed it",
        ),
        (
            with(&|map| map["embed.weight"] = json!("x.safetensors")),
            "1 of 7 shards are missing, first \"x.safetensors\"",
        ),
        (
            with(&|map| map["embed.weight"] = json!("model-00002-of-00007.safetensors")),
            "1 tensors are not in the shard that the index names, first \"embed.weight\" in model-00002",
        ),
        (
            with(&|map| drop(map.insert("new".into(), json!("model-00001-of-00007.safetensors")))),
            "first \"new\" in model-00001",
        ),
        (
            with(&|map| drop(map.remove("norm.weight"))),
            "1 tensors of the shards are not in the index, first \"norm.weight\" of model-00006",
        ),
    ];
    for (text, fragment) in cases {
        let mut files = good.clone();
        *files.get(INDEX) = text.into_bytes();
        let message = files.refusal();
        assert!(message.contains(fragment), "{fragment}: {message}");
        assert!(message.starts_with("tiny/model.safetensors.index.json"), "{message}");
    }
}

#[test]
fn missing_files_are_named_with_a_remedy() {
    let good = Files::of(CONFIG);
    for (name, fragment) in [
        ("config.json", "config.json is missing from tiny"),
        (
            INDEX,
            "model.safetensors.index.json is missing from tiny; it is needed where there are several",
        ),
        (
            "model-00003-of-00007.safetensors",
            "1 of 7 shards are missing, first \"model-00003-of-00007",
        ),
    ] {
        let mut files = good.clone();
        files.remove(name);
        let message = files.refusal();
        assert!(message.contains(fragment), "{message}");
    }
    let mut files = good.merged();
    files.remove("model.safetensors");
    assert!(
        files
            .refusal()
            .contains("model.safetensors is missing from tiny; download the weights")
    );

    let empty = tempfile::tempdir().expect("a folder");
    let error = Checkpoint::open(empty.path()).expect_err("nothing in it");
    assert!(
        matches!(&error, Error::FileMissing { name, .. } if name == "config.json"),
        "{error}"
    );
}
