//! config.json: what is read, what is refused and how.

mod support;

use std::path::Path;

use cachalot_checkpoint::{
    AttentionKind, DeepseekV4Config, Error, ExpertDtype, ModelConfig, RopeScaling, ScaleFormat, published,
};
use serde_json::{Value, json};
use support::{config_with, dspark_config};

fn read(text: &str) -> Result<DeepseekV4Config, Error> {
    DeepseekV4Config::from_json(text, Path::new("model/config.json"))
}

#[test]
fn every_published_configuration_reads() {
    assert_eq!(published::names().count(), 17);
    let is_v4 = |name: &&str| name.contains("V4-");
    for name in published::names().filter(|name| !name.contains("V4")) {
        let text = published::config(name).expect("built in");
        let config = ModelConfig::from_json(text, Path::new("config.json")).expect("valid");
        let ModelConfig::V3(config) = config else {
            panic!("{name} is of the V3 family");
        };
        assert_eq!(config.indexer.is_some(), name.contains("V3.2"));
        let announced = config.quantization.expect("FP8").scale_fmt;
        assert_eq!(announced.is_some(), name.contains("V3.1") || name.contains("V3.2"));
    }
    for name in published::names().filter(is_v4) {
        let config = read(published::config(name).expect("built in")).expect("valid");
        let pro = name.contains("Pro");
        let dspark = ["DSpark", "0731", "0813"].iter().any(|word| name.ends_with(word));
        let base = name.ends_with("Base");
        assert_eq!(config.num_hidden_layers, if pro { 61 } else { 43 });
        assert_eq!(config.nextn_stage_count(), if dspark { 3 } else { 1 });
        assert_eq!(config.dspark.is_some(), dspark);
        let experts = if base { ExpertDtype::Fp8 } else { ExpertDtype::Fp4 };
        assert_eq!(config.expert_dtype, Some(experts));
        let kinds = |kind| {
            let layers = 0..config.num_hidden_layers;
            layers.filter(|layer| config.attention_kind(*layer) == kind).count()
        };
        let counts = [
            AttentionKind::SlidingWindow,
            AttentionKind::CompressedSparse,
            AttentionKind::HeavilyCompressed,
        ]
        .map(kinds);
        assert_eq!(counts, if pro { [0, 30, 31] } else { [2, 21, 20] });
        assert!(config.is_hash_layer(2) && !config.is_hash_layer(3));
    }
}

#[test]
fn releases_are_found_in_any_spelling() {
    let flash = published::config("deepseek-ai/DeepSeek-V4-Flash");
    assert!(flash.is_some());
    for name in [
        "DeepSeek-V4-Flash",
        "deepseek-v4-flash",
        "DeepSeek-AI/deepseek-v4-FLASH",
    ] {
        assert_eq!(published::config(name), flash, "{name}");
    }
    for name in ["somebody/DeepSeek-V4-Flash", "DeepSeek-V4", ""] {
        assert_eq!(published::config(name), None, "{name}");
    }
    assert_eq!(
        published::nearest("deepsek-v4-pro-bse")[0],
        "deepseek-ai/DeepSeek-V4-Pro-Base"
    );
}

#[test]
fn values_arrive_where_they_belong() {
    let config = read(&dspark_config()).expect("valid");
    let rope = RopeScaling {
        factor: 16.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original_max_position_embeddings: 65536,
    };
    assert_eq!(config.rope_scaling, Some(rope));
    assert_eq!((config.rope_theta, config.compress_rope_theta), (1e4, 1.6e5));
    assert_eq!((config.hc_eps, config.swiglu_limit), (1e-6, 10.0));
    let quantization = config.quantization.expect("quantised");
    assert_eq!(quantization.weight_block_size, [128, 128]);
    assert_eq!(quantization.scale_fmt, Some(ScaleFormat::Ue8m0));
    let dspark = config.dspark.as_ref().expect("DSpark");
    assert_eq!(
        (dspark.block_size, dspark.noise_token_id, dspark.markov_rank),
        (5, 47, 8)
    );
    assert_eq!(dspark.target_layer_ids, [1, 2, 3]);
    assert_eq!(config.nextn_stage_count(), 3);

    let several = read(&config_with(json!({"eos_token_id": [5, 1]}))).expect("valid");
    assert_eq!((several.eos_token_id, several.eos_token_ids), (5, vec![5, 1]));
}

#[test]
fn transformers_spelling_means_the_same() {
    let deepseek = config_with(json!({"compress_ratios": [0, 4, 128, 4]}));
    let transformers = config_with(json!({
        "compress_ratios": null, "num_hash_layers": null, "rope_scaling": null,
        "qk_rope_head_dim": null, "partial_rotary_factor": 0.5, "expert_dtype": null,
        "layer_types": ["sliding_attention", "compressed_sparse_attention",
            "heavily_compressed_attention", "compressed_sparse_attention"],
        "mlp_layer_types": ["hash_moe", "moe", "moe", "moe"],
        "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128},
        "rope_parameters": {
            "main": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
            "compress": {"rope_type": "yarn", "type": "yarn", "attention_factor": 1.0, "rope_theta": 160000.0,
                "factor": 16, "beta_fast": 32, "beta_slow": 1, "original_max_position_embeddings": 65536}},
        "quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic", "expert_dtype": "fp4",
            "scale_fmt": "ue8m0", "weight_block_size": [128, 128], "modules_to_not_convert": null},
    }));
    assert_eq!(read(&deepseek).expect("valid"), read(&transformers).expect("valid"));
}

#[test]
fn impossible_values_are_refused_by_name() {
    let cases = [
        ("vocab_size", json!(0), "from 1 to"),
        ("vocab_size", json!(1u64 << 40), "from 1 to"),
        ("vocab_size", json!(-5), "from 1 to"),
        ("vocab_size", json!(64.0), "an integer"),
        ("vocab_size", json!("64"), "an integer"),
        ("num_hidden_layers", json!(100_000), "from 1 to 1024"),
        ("num_hidden_layers", json!(6), "compress_ratios"),
        ("hidden_size", json!(0), "from 1 to"),
        ("qk_rope_head_dim", json!(15), "even number"),
        ("qk_rope_head_dim", json!(64), "from 1 to 32"),
        ("index_head_dim", json!(8), "at most 8 (index_head_dim)"),
        ("index_head_dim", json!(24), "power of two"),
        ("num_experts_per_tok", json!(5), "at most 4 (n_routed_experts)"),
        ("num_attention_heads", json!(3), "a multiple of 2 (o_groups)"),
        ("num_hash_layers", json!(5), "from 0 to 4"),
        ("n_shared_experts", json!(2), "expected 1"),
        ("num_key_value_heads", json!(4), "expected 1"),
        (
            "compress_ratios",
            json!([0, 4, 128, 8, 0]),
            "0 (window only), 4 (CSA) and 128 (HCA)",
        ),
        ("compress_ratios", json!([0, 4, 128]), "one for each of the 4 layers"),
        (
            "compress_ratios",
            json!([0, 4, 128, 4, 4]),
            "0 behind the 4 main layers",
        ),
        ("compress_ratios", json!(4), "a list of"),
        ("sliding_window", json!(0), "from 1 to"),
        ("index_topk", json!(1 << 30), "from 1 to 65536"),
        ("hc_eps", json!(-1e-6), "above 0"),
        ("hc_eps", json!(1e-300), "32 bits"),
        ("rms_norm_eps", json!(null), "missing"),
        ("rope_theta", json!(0.5), "above 1"),
        ("swiglu_limit", json!(0.0), "above 0"),
        ("routed_scaling_factor", json!("1.5"), "a number"),
        ("norm_topk_prob", json!(1), "true or false"),
        ("bos_token_id", json!(48), "from 0 to 47"),
        ("eos_token_id", json!([]), "at least one"),
        ("eos_token_id", json!([1, 48]), "token ids below 48"),
        ("expert_dtype", json!("int4"), "\"fp4\" or \"fp8\""),
        ("scoring_func", json!("softmax"), "sqrtsoftplus"),
        ("hidden_act", json!("gelu"), "silu"),
        ("tie_word_embeddings", json!(true), "false"),
        ("attention_bias", json!(true), "false"),
        ("rope_scaling", json!({"type": "linear", "factor": 2}), "\"yarn\""),
        (
            "rope_scaling",
            json!({"type": "yarn", "factor": 16}),
            "rope_scaling.beta_fast",
        ),
        ("rope_scaling", json!([1]), "an object"),
        (
            "quantization_config",
            json!({"quant_method": "gptq"}),
            "quantization_config.quant_method",
        ),
        (
            "quantization_config",
            json!({"quant_method": "fp8", "weight_block_size": [128, 100]}),
            "powers of two",
        ),
        ("quantization_config", json!({}), "quantization_config.quant_method"),
        ("layer_types", json!(["moe"]), "compress_ratios"),
    ];
    for (key, value, fragment) in cases {
        let mut changes = json!({ key: value });
        if key == "layer_types" {
            changes["compress_ratios"] = json!([0]);
        }
        let error = read(&config_with(changes)).expect_err(key);
        let typed = matches!(&error, Error::ConfigValue { .. } | Error::ConfigKeyMissing { .. });
        let message = error.to_string();
        assert!(typed && message.contains(fragment), "{key} {value}: {message}");
        assert!(message.starts_with("model/config.json: "), "{message}");
        // The remedy stands behind the semicolon.
        assert!(message.contains("; "), "{message}");
    }
}

#[test]
fn values_that_are_fine_alone_may_be_too_large_together() {
    let layers = 1024;
    let text = config_with(json!({
        "num_hidden_layers": layers, "compress_ratios": vec![4; layers], "n_routed_experts": 1 << 14,
    }));
    assert!(read(&text).unwrap_err().to_string().contains("at most 2097152 tensors"));
    let text = config_with(json!({
        "o_groups": 1 << 14, "num_attention_heads": 1 << 14, "o_lora_rank": 1 << 18, "hidden_size": 1 << 18,
    }));
    assert!(read(&text).unwrap_err().to_string().contains("2^48 elements"));
}

#[test]
fn dspark_keys_come_together() {
    for key in ["dspark_block_size", "dspark_markov_rank", "dspark_target_layer_ids"] {
        let mut config: Value = serde_json::from_str(&dspark_config()).expect("valid JSON");
        config.as_object_mut().expect("an object").remove(key);
        let error = read(&config.to_string()).expect_err(key);
        assert!(matches!(&error, Error::ConfigKeyMissing { key: named, .. } if named == key));
    }
    let mut config: Value = serde_json::from_str(&dspark_config()).expect("valid JSON");
    config["dspark_target_layer_ids"] = json!([1, 4]);
    assert!(
        read(&config.to_string())
            .unwrap_err()
            .to_string()
            .contains("layers below 4")
    );
}

#[test]
fn other_models_are_named() {
    for (model_type, verdict) in [
        ("deepseek_v2", "not supported yet"),
        ("qwen2", "not supported: the R1-Distill models"),
        ("llama", "not supported: the R1-Distill models"),
        ("gpt2", "not supported;"),
    ] {
        let text = config_with(json!({ "model_type": model_type }));
        let error = ModelConfig::from_json(&text, Path::new("model/config.json")).expect_err(model_type);
        let message = error.to_string();
        assert!(message.contains(&format!("{model_type:?} is {verdict}")), "{message}");
        assert!(message.contains("deepseek_v4\""), "{message}");
    }
    let error = read(&config_with(json!({ "model_type": "deepseek_v3" }))).expect_err("a V3 model");
    assert!(error.to_string().contains("of another family"), "{error}");
    let reference = r#"{"dim": 4096, "n_layers": 43}"#;
    assert!(
        read(reference)
            .unwrap_err()
            .to_string()
            .contains("inference/config.json")
    );
}

#[test]
fn broken_text_is_refused() {
    for (text, fragment) in [
        ("", "not valid JSON"),
        ("[1]", "expected an object"),
        (
            r#"{"model_type": "deepseek_v4", "model_type": "x"}"#,
            "\"model_type\" appears twice",
        ),
        (r#"{"hc_eps": NaN}"#, "not valid JSON"),
        (r#"{"hc_eps": 1e999}"#, "not valid JSON"),
    ] {
        let message = read(text).expect_err(text).to_string();
        assert!(message.contains(fragment), "{text}: {message}");
    }
    assert!(read(&"[".repeat(100_000)).is_err());
}
