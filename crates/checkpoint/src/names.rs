//! Names of stored tensors, in DeepSeek's spelling and in transformers'.
//!
//! Transformers 5 knows two spellings of a V4 model. Its own (`save_original_format=False`) renames modules
//! and stacks experts. Its default maps names back, but only in part: the prefix `model.` stays, the
//! embedding and the head's hyper-connection keep their new names, and `kv_norm` becomes `attn.norm`. One
//! table of module names therefore serves both, and names of either kind may be mixed.

use std::{borrow::Cow, collections::HashMap, sync::LazyLock};

/// What a stored name stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning<'a> {
    /// One tensor, by its official full name.
    Tensor(Cow<'a, str>),
    /// The tensors of all experts of a layer, one above the other: `[experts, rows, columns]`.
    Stack {
        /// Official name up to the expert's index: `layers.3.ffn.experts.`.
        prefix: String,
        /// Official names behind the index, one for each equal share of an expert's rows.
        leaves: &'static [&'static str],
    },
}

/// The meaning of a stored name. Names that the table does not know mean themselves.
pub(crate) fn meaning(stored: &str) -> Meaning<'_> {
    let name = stored.strip_prefix("model.").unwrap_or(stored);
    let Some((place, inner)) = split_place(name) else {
        return Meaning::Tensor(match translate(&GLOBAL, name) {
            Some(official) => official.into(),
            None => name.into(),
        });
    };
    let inner_experts = ["ffn.experts.", "mlp.experts."];
    if let Some(leaf) = inner_experts.iter().find_map(|prefix| inner.strip_prefix(prefix)) {
        return expert(name, place, leaf);
    }
    Meaning::Tensor(match translate(&LAYER, inner) {
        Some(official) => format!("{place}{official}").into(),
        None => name.into(),
    })
}

/// Splits `layers.3.attn.wq_a.weight` into `layers.3.` and the rest.
fn split_place(name: &str) -> Option<(&str, &str)> {
    let behind = name.strip_prefix("layers.").or_else(|| name.strip_prefix("mtp."))?;
    let dot = behind.find('.')?;
    let number = &behind[..dot];
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| name.split_at(name.len() - behind.len() + dot + 1))
}

/// `leaf` is what stands behind `experts.`.
fn expert<'a>(name: &'a str, place: &str, leaf: &str) -> Meaning<'a> {
    let leaves: &'static [&'static str] = match leaf {
        "gate_up_proj" | "gate_up_proj.weight" => &["w1.weight", "w3.weight"],
        "gate_up_proj_scale_inv" => &["w1.scale", "w3.scale"],
        "down_proj" | "down_proj.weight" => &["w2.weight"],
        "down_proj_scale_inv" => &["w2.scale"],
        _ => return single_expert(name, place, leaf),
    };
    Meaning::Stack {
        prefix: format!("{place}ffn.experts."),
        leaves,
    }
}

fn single_expert<'a>(name: &'a str, place: &str, leaf: &str) -> Meaning<'a> {
    let translated = leaf.split_once('.').and_then(|(index, module)| {
        let official = translate(&EXPERT, module)?;
        Some(format!("{place}ffn.experts.{index}.{official}"))
    });
    Meaning::Tensor(match translated {
        Some(official) => official.into(),
        None => name.into(),
    })
}

type Table = LazyLock<HashMap<&'static str, &'static str>>;

/// Translates a module path with or without suffix; `None` if nothing changes.
fn translate(table: &Table, path: &str) -> Option<String> {
    if let Some(official) = table.get(path) {
        return Some((*official).to_owned());
    }
    let (module, suffix) = [
        (".weight_scale_inv", ".scale"),
        (".scale", ".scale"),
        (".weight", ".weight"),
    ]
    .iter()
    .find_map(|(stored, official)| Some((path.strip_suffix(stored)?, *official)))?;
    match table.get(module) {
        Some(official) => Some(format!("{official}{suffix}")),
        None if path.len() != module.len() + suffix.len() => Some(format!("{module}{suffix}")),
        None => None,
    }
}

static GLOBAL: Table = LazyLock::new(|| {
    HashMap::from([
        ("embed_tokens", "embed"),
        ("lm_head", "head"),
        ("hc_head.hc_fn", "hc_head_fn"),
        ("hc_head.hc_base", "hc_head_base"),
        ("hc_head.hc_scale", "hc_head_scale"),
    ])
});

static EXPERT: Table = LazyLock::new(|| HashMap::from([("gate_proj", "w1"), ("down_proj", "w2"), ("up_proj", "w3")]));

static LAYER: Table = LazyLock::new(|| {
    HashMap::from([
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("attn_hc.fn", "hc_attn_fn"),
        ("attn_hc.base", "hc_attn_base"),
        ("attn_hc.scale", "hc_attn_scale"),
        ("ffn_hc.fn", "hc_ffn_fn"),
        ("ffn_hc.base", "hc_ffn_base"),
        ("ffn_hc.scale", "hc_ffn_scale"),
        ("self_attn.q_a_proj", "attn.wq_a"),
        ("self_attn.q_a_norm", "attn.q_norm"),
        ("self_attn.q_b_proj", "attn.wq_b"),
        ("self_attn.kv_proj", "attn.wkv"),
        ("self_attn.kv_norm", "attn.kv_norm"),
        // What transformers makes of kv_norm when it maps names back.
        ("attn.norm", "attn.kv_norm"),
        ("self_attn.o_a_proj", "attn.wo_a"),
        ("self_attn.o_b_proj", "attn.wo_b"),
        ("self_attn.sinks", "attn.attn_sink"),
        // V3 and V3.2, whose releases have these names.
        ("self_attn.q_a_layernorm", "attn.q_norm"),
        ("self_attn.kv_a_proj_with_mqa", "attn.wkv_a"),
        ("self_attn.kv_a_layernorm", "attn.kv_norm"),
        ("self_attn.kv_b_proj", "attn.wkv_b"),
        ("self_attn.o_proj", "attn.wo"),
        ("self_attn.indexer.wq_b", "attn.indexer.wq_b"),
        ("self_attn.indexer.wk", "attn.indexer.wk"),
        ("self_attn.indexer.k_norm", "attn.indexer.k_norm"),
        ("self_attn.indexer.k_norm.bias", "attn.indexer.k_norm.bias"),
        ("self_attn.indexer.weights_proj", "attn.indexer.weights_proj"),
        ("mlp.gate_proj", "ffn.w1"),
        ("mlp.down_proj", "ffn.w2"),
        ("mlp.up_proj", "ffn.w3"),
        ("self_attn.compressor.kv_proj", "attn.compressor.wkv"),
        ("self_attn.compressor.gate_proj", "attn.compressor.wgate"),
        ("self_attn.compressor.position_bias", "attn.compressor.ape"),
        ("self_attn.compressor.kv_norm", "attn.compressor.norm"),
        ("self_attn.compressor.indexer.q_b_proj", "attn.indexer.wq_b"),
        (
            "self_attn.compressor.indexer.scorer.weights_proj",
            "attn.indexer.weights_proj",
        ),
        ("self_attn.compressor.indexer.kv_proj", "attn.indexer.compressor.wkv"),
        (
            "self_attn.compressor.indexer.gate_proj",
            "attn.indexer.compressor.wgate",
        ),
        (
            "self_attn.compressor.indexer.position_bias",
            "attn.indexer.compressor.ape",
        ),
        ("self_attn.compressor.indexer.kv_norm", "attn.indexer.compressor.norm"),
        ("mlp.gate", "ffn.gate"),
        ("mlp.gate.e_score_correction_bias", "ffn.gate.bias"),
        ("mlp.gate.tid2eid", "ffn.gate.tid2eid"),
        ("mlp.shared_experts.gate_proj", "ffn.shared_experts.w1"),
        ("mlp.shared_experts.down_proj", "ffn.shared_experts.w2"),
        ("mlp.shared_experts.up_proj", "ffn.shared_experts.w3"),
    ])
});

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{config::DeepseekV4Config, inventory, published};

    #[test]
    fn official_names_mean_themselves() {
        for name in ["DeepSeek-V4-Flash", "DeepSeek-V4-Flash-DSpark"] {
            let text = published::config(name).expect("built in");
            let config = DeepseekV4Config::from_json(text, Path::new(name)).expect("valid");
            for tensor in inventory::tensors(&config) {
                assert_eq!(meaning(&tensor.name), Meaning::Tensor(tensor.name.as_str().into()));
            }
        }
    }

    /// Names that transformers 5.23 writes for a quantised model.
    #[test]
    fn scales_follow_their_weights() {
        for (stored, official) in [
            (
                "model.layers.2.self_attn.q_a_proj.weight_scale_inv",
                "layers.2.attn.wq_a.scale",
            ),
            (
                "model.layers.2.self_attn.compressor.indexer.q_b_proj.weight_scale_inv",
                "layers.2.attn.indexer.wq_b.scale",
            ),
            (
                "model.layers.1.mlp.shared_experts.down_proj.weight_scale_inv",
                "layers.1.ffn.shared_experts.w2.scale",
            ),
            ("model.layers.2.attn.wo_a.scale", "layers.2.attn.wo_a.scale"),
            ("layers.2.attn.wo_a.weight_scale_inv", "layers.2.attn.wo_a.scale"),
            (
                "model.layers.2.ffn.experts.0.w3.scale",
                "layers.2.ffn.experts.0.w3.scale",
            ),
            (
                "layers.2.mlp.experts.11.up_proj.weight_scale_inv",
                "layers.2.ffn.experts.11.w3.scale",
            ),
            ("model.layers.0.attn_hc.scale", "layers.0.hc_attn_scale"),
            ("model.hc_head.hc_scale", "hc_head_scale"),
        ] {
            assert_eq!(meaning(stored), Meaning::Tensor(official.into()), "{stored}");
        }
        let stack = Meaning::Stack {
            prefix: "layers.1.ffn.experts.".into(),
            leaves: &["w1.scale", "w3.scale"],
        };
        assert_eq!(meaning("model.layers.1.mlp.experts.gate_up_proj_scale_inv"), stack);
    }
}
