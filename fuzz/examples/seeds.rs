//! Writes the seeds of the corpora: `cargo run --example seeds`.

use std::{fs, path::Path, sync::atomic::AtomicBool};

use cachalot_checkpoint::published;
use cachalot_numerics::IntegerWidth;
use serde_json::{Value, json};

#[path = "../../crates/checkpoint/tests/support/mod.rs"]
mod support;

use support::{Files, Shard, Tensor};

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let configs = corpus.join("config");
    let headers = corpus.join("safetensors_header");
    fs::create_dir_all(&configs)?;
    fs::create_dir_all(&headers)?;

    let micro = micro_config();
    fs::write(configs.join("micro.json"), &micro)?;
    fs::write(configs.join("all_layers.json"), support::CONFIG)?;
    fs::write(configs.join("dspark.json"), support::dspark_config())?;
    for name in ["DeepSeek-V4-Flash", "DeepSeek-V4-Pro-Base", "DeepSeek-V4-Pro-DSpark"] {
        let text = published::config(name).expect("built in");
        fs::write(configs.join(format!("{name}.json")), text)?;
    }
    let transformers = "../crates/checkpoint/tests/fixtures/transformers_own/config.json";
    let transformers = Path::new(env!("CARGO_MANIFEST_DIR")).join(transformers);
    fs::copy(transformers, configs.join("transformers.json"))?;

    let sharded = Files::of(&micro);
    let mut merged = sharded.merged();
    let weights = merged.get("model.safetensors").clone();
    fs::write(headers.join("micro.safetensors"), &weights)?;
    fs::write(headers.join("micro_int4.safetensors"), low_bit(&merged, &configs)?)?;
    fs::write(headers.join("stacked.safetensors"), stacked(&weights))?;
    let names = Shard::parse(&weights).tensors.into_iter().map(|tensor| tensor.name);
    let map: serde_json::Map<String, Value> = names.map(|name| (name, json!("model.safetensors"))).collect();
    fs::write(headers.join("index.json"), json!({ "weight_map": map }).to_string())?;
    fs::write(headers.join("empty.safetensors"), support::join("{}", &[]))
}

/// One CSA layer as small as it can be.
fn micro_config() -> String {
    support::config_with(json!({
        "vocab_size": 2, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1,
        "head_dim": 4, "qk_rope_head_dim": 2, "q_lora_rank": 4, "o_lora_rank": 2, "o_groups": 1,
        "moe_intermediate_size": 32, "n_routed_experts": 1, "num_experts_per_tok": 1,
        "index_n_heads": 1, "index_head_dim": 2, "hc_mult": 1, "compress_ratios": [4],
    }))
}

/// The weights with their dense part as int4; writes the configuration that announces it.
fn low_bit(files: &Files, configs: &Path) -> std::io::Result<Vec<u8>> {
    let home = tempfile::tempdir()?;
    let out = home.path().join("int4");
    let checkpoint = files.open().expect("sound");
    let converted = checkpoint.convert(IntegerWidth::Int4, &out, &AtomicBool::new(false), |_| ());
    converted.expect("converts");
    fs::copy(out.join("config.json"), configs.join("low_bit.json"))?;
    fs::read(out.join("model.safetensors"))
}

/// The same with its expert named and stacked as transformers does.
fn stacked(weights: &[u8]) -> Vec<u8> {
    let mut shard = Shard::parse(weights);
    for (leaves, name) in [(&["w1", "w3"][..], "gate_up_proj"), (&["w2"], "down_proj")] {
        for (stored, ending) in [("weight", ""), ("scale", "_scale_inv")] {
            let parts: Vec<Tensor> = leaves
                .iter()
                .map(|leaf| shard.take(&format!("layers.0.ffn.experts.0.{leaf}.{stored}")))
                .collect();
            shard.tensors.push(Tensor {
                name: format!("model.layers.0.mlp.experts.{name}{ending}"),
                dtype: parts[0].dtype.clone(),
                shape: vec![1, parts[0].shape[0] * parts.len(), parts[0].shape[1]],
                data: parts.into_iter().flat_map(|part| part.data).collect(),
            });
        }
    }
    shard.bytes()
}
