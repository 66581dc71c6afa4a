//! Fewer layers of V4.1, whose layers lean on each other.

use serde_json::{Map, Value, json};

use super::Stages;
use crate::config::{DeepseekV41Config, LayerRole, TOKEN_MAP_KEY};

/// Where the primes of smaller Engram tables begin: 24 of them are 0.4 M rows, 0.1 GB.
const TABLE_START: usize = 16_384;

/// Keeps `count` layers with their roles. Without a vision tower: random weights are for text.
///
/// `map` is the outer object.
pub(super) fn cut_v41(map: &mut Map<String, Value>, config: &DeepseekV41Config, count: usize, stages: Stages) {
    let kept = kept_layers(config, count);
    let is_cut = count < config.num_hidden_layers;
    // Written at the outermost level for the other families.
    map.remove("num_hidden_layers");
    map.remove("num_nextn_predict_layers");
    if is_cut {
        map.remove("vision_config");
        map.remove("image_token_id");
    }
    // Random weights come without a tokenizer.
    if config.engram.is_some() {
        map.insert(TOKEN_MAP_KEY.into(), json!("modulo"));
    }
    let Some(Value::Object(text)) = map.get_mut("text_config") else {
        unreachable!("it has just been read as an object");
    };
    let among = |layers: &[usize]| -> Vec<usize> {
        let places = kept.iter().enumerate().filter(|(_, layer)| layers.contains(layer));
        places.map(|(place, _)| place).collect()
    };
    let mut ratios: Vec<usize> = kept.iter().map(|layer| config.compress_ratios[*layer]).collect();
    if stages == Stages::Keep {
        ratios.extend(&config.compress_ratios[config.num_hidden_layers..]);
    }
    text.insert("num_hidden_layers".into(), json!(count));
    text.insert("compress_ratios".into(), json!(ratios));
    text.insert("kv_source_layer_ids".into(), json!(among(&config.kv_source_layer_ids)));
    text.insert(
        "index_source_layer_ids".into(),
        json!(among(&config.index_source_layer_ids)),
    );
    match config
        .candidates
        .and_then(|c| among(&[c.source_layer]).first().copied())
    {
        Some(place) => text.insert("candidate_source_layer_id".into(), json!(place)),
        None => text.remove("candidate_source_layer_id"),
    };
    if is_cut {
        cut_engram(text, config, &kept);
    }
    match (&config.dspark, stages) {
        (Some(drafter), Stages::Keep) => {
            let first = count.saturating_sub(drafter.dspark.target_layer_ids.len());
            let taps: Vec<usize> = (first..count).collect();
            text.insert("dspark_target_layer_ids".into(), json!(taps));
        }
        _ => {
            text.insert("num_nextn_predict_layers".into(), json!(0));
            text.retain(|key, _| !key.starts_with("dspark_"));
        }
    }
}

/// The layers that stay, ascending: sources first, then one follower of each kind, then the others from the front.
fn kept_layers(config: &DeepseekV41Config, count: usize) -> Vec<usize> {
    let layers = 0..config.num_hidden_layers;
    let mut kept: Vec<usize> = Vec::new();
    let mut keep = |layer: Option<usize>| {
        if let Some(layer) = layer.filter(|layer| !kept.contains(layer) && kept.len() < count) {
            kept.push(layer);
        }
    };
    let in_candidates = |layer: &usize| {
        let role = config.layer_role(*layer);
        matches!(
            role,
            LayerRole::Shared {
                in_candidates: true,
                ..
            }
        )
    };
    keep(config.kv_source_layer_ids.last().copied());
    keep(config.kv_source_layer_ids.first().copied());
    let tables = config.engram.as_ref().map_or(&[][..], |engram| &engram.layer_ids);
    keep(layers.clone().find(|layer| {
        let is_window = config.layer_role(*layer) == LayerRole::Window;
        is_window && (tables.contains(layer) || tables.is_empty())
    }));
    keep(layers.clone().find(in_candidates));
    let is_follower = |layer: &usize| !config.is_kv_source(*layer) && config.compress_ratios[*layer] > 0;
    keep(layers.clone().find(|layer| is_follower(layer) && !in_candidates(layer)));
    keep(
        layers
            .clone()
            .find(|layer| in_candidates(layer) && !config.is_index_source(*layer)),
    );
    layers.for_each(|layer| keep(Some(layer)));
    kept.sort_unstable();
    kept
}

fn cut_engram(text: &mut Map<String, Value>, config: &DeepseekV41Config, kept: &[usize]) {
    let Some(engram) = &config.engram else {
        return;
    };
    let mut smaller = engram.clone();
    let places = kept.iter().enumerate();
    let with_table = places.filter(|(_, layer)| engram.layer_ids.contains(layer));
    smaller.layer_ids = with_table.map(|(place, _)| place).collect();
    smaller.vocab_size = engram.vocab_size.min(TABLE_START);
    let rows: Vec<usize> = smaller.primes().iter().map(|primes| primes.iter().sum()).collect();
    text.insert("engram_layer_ids".into(), json!(smaller.layer_ids));
    text.insert("engram_num_embeddings".into(), json!(rows));
    text.insert("engram_vocab_size".into(), json!(smaller.vocab_size));
}
