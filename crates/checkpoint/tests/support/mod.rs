//! A tiny checkpoint in memory that tests can damage in one place.
#![allow(dead_code)] // Each test file uses a part.

use bytes::Bytes;
use cachalot_checkpoint::{Checkpoint, Error, synth};
use serde_json::{Map, Value, json};

/// A configuration with every kind of layer, small enough that a checkpoint takes some 200 KB.
pub const CONFIG: &str = r#"{
    "model_type": "deepseek_v4", "architectures": ["DeepseekV4ForCausalLM"],
    "vocab_size": 48, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 1, "head_dim": 32, "qk_rope_head_dim": 16, "q_lora_rank": 32,
    "o_lora_rank": 16, "o_groups": 2, "moe_intermediate_size": 32, "n_routed_experts": 4,
    "n_shared_experts": 1, "num_experts_per_tok": 2, "num_hash_layers": 1, "index_n_heads": 2,
    "index_head_dim": 16, "index_topk": 8, "hc_mult": 4, "hc_sinkhorn_iters": 20, "hc_eps": 1e-6,
    "rms_norm_eps": 1e-6, "rope_theta": 10000, "compress_rope_theta": 160000,
    "rope_scaling": {"type": "yarn", "factor": 16, "beta_fast": 32, "beta_slow": 1,
        "original_max_position_embeddings": 65536},
    "compress_ratios": [0, 4, 128, 4, 0], "sliding_window": 16, "swiglu_limit": 10.0,
    "routed_scaling_factor": 1.5, "norm_topk_prob": true, "max_position_embeddings": 4096,
    "bos_token_id": 0, "eos_token_id": 1, "expert_dtype": "fp4",
    "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
        "scale_fmt": "ue8m0", "weight_block_size": [128, 128]}
}"#;

/// [`CONFIG`] with some keys changed; `null` removes a key.
pub fn config_with(changes: Value) -> String {
    let mut config: Map<String, Value> = serde_json::from_str(CONFIG).expect("valid JSON");
    let Value::Object(changes) = changes else {
        panic!("changes are an object");
    };
    for (key, value) in changes {
        match value {
            Value::Null => config.remove(&key),
            value => config.insert(key, value),
        };
    }
    Value::Object(config).to_string()
}

/// [`CONFIG`] with DSpark stages instead of the MTP layer.
pub fn dspark_config() -> String {
    config_with(json!({
        "compress_ratios": [0, 4, 128, 4, 0, 0, 0],
        "dspark_block_size": 5, "dspark_markov_rank": 8, "dspark_noise_token_id": 47,
        "dspark_target_layer_ids": [1, 2, 3],
    }))
}

/// The files of a checkpoint.
#[derive(Clone)]
pub struct Files(pub Vec<(String, Vec<u8>)>);

impl Files {
    /// A random checkpoint.
    pub fn of(config: &str) -> Files {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let out = folder.path().join("model");
        synth::write(config, 1, &out, |_| ()).expect("a written checkpoint");
        let mut files = Vec::new();
        for item in std::fs::read_dir(out).expect("a folder") {
            let path = item.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
            files.push((name.to_owned(), std::fs::read(&path).expect("a file")));
        }
        files.sort();
        Files(files)
    }

    pub fn open(&self) -> Result<Checkpoint, Error> {
        let files = self
            .0
            .iter()
            .map(|(name, data)| (name.clone(), Bytes::from(data.clone())));
        Checkpoint::from_files("tiny", files.collect())
    }

    /// The message of the error that opening gives.
    pub fn refusal(&self) -> String {
        self.open().expect_err("a refusal").to_string()
    }

    pub fn get(&mut self, name: &str) -> &mut Vec<u8> {
        let file = self.0.iter_mut().find(|(other, _)| other == name);
        &mut file.unwrap_or_else(|| panic!("no file {name}")).1
    }

    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(other, _)| other != name);
    }

    /// All shards merged in one file without index.
    pub fn merged(&self) -> Files {
        let mut merged = Shard::default();
        let shards = self.0.iter().filter(|(name, _)| name.ends_with(".safetensors"));
        for (_, content) in shards {
            merged.tensors.extend(Shard::parse(content).tensors);
        }
        let config = self
            .0
            .iter()
            .find(|(name, _)| name == "config.json")
            .expect("a configuration");
        Files(vec![config.clone(), ("model.safetensors".into(), merged.bytes())])
    }

    /// Changes the only shard of a merged checkpoint.
    pub fn edit(&mut self, change: impl FnOnce(&mut Shard)) {
        let content = self.get("model.safetensors");
        let mut shard = Shard::parse(content);
        change(&mut shard);
        *content = shard.bytes();
    }
}

/// A tensor on its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub name: String,
    pub dtype: String,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

/// A safetensors file taken apart.
#[derive(Default)]
pub struct Shard {
    pub tensors: Vec<Tensor>,
}

impl Shard {
    pub fn parse(content: &[u8]) -> Shard {
        let (header, data) = split(content);
        let mut tensors: Vec<(usize, Tensor)> = Vec::new();
        for (name, info) in header {
            if name == "__metadata__" {
                continue;
            }
            let side = |value: &Value| value.as_u64().expect("an integer") as usize;
            let range = side(&info["data_offsets"][0])..side(&info["data_offsets"][1]);
            let shape = info["shape"].as_array().expect("a list").iter().map(side).collect();
            let tensor = Tensor {
                name,
                dtype: info["dtype"].as_str().expect("a text").into(),
                shape,
                data: data[range.clone()].to_vec(),
            };
            tensors.push((range.start, tensor));
        }
        tensors.sort_by_key(|(start, _)| *start);
        Shard {
            tensors: tensors.into_iter().map(|(_, tensor)| tensor).collect(),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut header = Map::new();
        let mut data = Vec::new();
        for tensor in &self.tensors {
            let start = data.len();
            data.extend_from_slice(&tensor.data);
            let info = json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, data.len()]});
            header.insert(tensor.name.clone(), info);
        }
        join(&Value::Object(header).to_string(), &data)
    }

    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        let found = self.tensors.iter_mut().find(|tensor| tensor.name == name);
        found.unwrap_or_else(|| panic!("no tensor {name}"))
    }

    pub fn take(&mut self, name: &str) -> Tensor {
        let position = self.tensors.iter().position(|tensor| tensor.name == name);
        self.tensors
            .remove(position.unwrap_or_else(|| panic!("no tensor {name}")))
    }
}

/// Header and data of a safetensors file.
pub fn split(content: &[u8]) -> (Map<String, Value>, &[u8]) {
    let length = u64::from_le_bytes(content[..8].try_into().expect("eight bytes")) as usize;
    let header = serde_json::from_slice(&content[8..8 + length]).expect("a header");
    (header, &content[8 + length..])
}

/// A safetensors file of any header text.
pub fn join(header: &str, data: &[u8]) -> Vec<u8> {
    let mut content = (header.len() as u64).to_le_bytes().to_vec();
    content.extend_from_slice(header.as_bytes());
    content.extend_from_slice(data);
    content
}
