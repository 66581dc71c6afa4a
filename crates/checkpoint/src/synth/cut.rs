//! A smaller model from a published configuration.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::cut_v41::cut_v41;
use crate::{
    Error,
    config::{DeepseekV4Config, LOW_BIT_KEY, ModelConfig},
    json,
};

/// What happens to MTP layer or DSpark stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stages {
    /// They go. The usual choice: the model runs without them.
    Drop,
    /// They stay; DSpark then taps the last layers.
    Keep,
}

/// The configuration `json` cut to `layers` main layers of true size, as JSON.
///
/// V4: of `n` layers, a quarter (at least 1, at most those that look experts up by token) come from the front
/// and keep looking up, the others from the end of the model. That keeps the mix: V4-Flash cut to 3 has a
/// window-only layer with looked-up experts, an HCA and a CSA layer; V4-Pro HCA with lookup, HCA and CSA. A
/// single layer is the model's last (CSA), which routes by score. No more layers than the model has are
/// given. V3: the same, with dense layers in the place of those that look up. V4.1: one layer of each role first, in the
/// order that the next layer needs them; Engram tables keep their shape with 16,384 rows a prime.
///
/// # Errors
/// Those of [`ModelConfig::from_json`], and [`Error::ConfigValue`] for 0 layers.
pub fn with_layers(json: &str, layers: usize, stages: Stages) -> Result<String, Error> {
    let origin = Path::new("config.json");
    let config = ModelConfig::from_json(json, origin)?;
    if layers == 0 {
        return Err(Error::ConfigValue {
            origin: origin.to_owned(),
            key: "num_hidden_layers".into(),
            value: "0".into(),
            expected: format!("1 to {} layers", config.layer_count()),
            remedy: "ask for at least one layer",
        });
    }
    let count = layers.min(config.layer_count());
    // Of the layers that only the front of a model has.
    let front = |special: usize| match count {
        1 => 0,
        count if count == config.layer_count() => special,
        count => (count / 4).max(1).min(special),
    };
    let Ok(Value::Object(mut map)) = json::parse(json) else {
        unreachable!("it has just been read as an object");
    };
    map.insert("num_hidden_layers".into(), json!(count));
    // Random weights are drawn in the released formats.
    map.remove(LOW_BIT_KEY);
    if stages == Stages::Drop {
        drop_stages(&mut map);
    }
    match &config {
        ModelConfig::V3(config) => {
            let dense = front(config.first_k_dense_replace);
            map.insert("first_k_dense_replace".into(), json!(dense));
            // Transformers' words for the same.
            map.remove("mlp_layer_types");
            map.remove("layer_types");
        }
        ModelConfig::V41(config) => cut_v41(&mut map, config, count, stages),
        ModelConfig::V4(config) => cut_v4(&mut map, config, count, front(config.num_hash_layers), stages),
    }
    let text = serde_json::to_string_pretty(&map).expect("a JSON object");
    ModelConfig::from_json(&text, origin).map(|_| text)
}

/// `front` layers from the front, the others from the end.
fn cut_v4(map: &mut Map<String, Value>, config: &DeepseekV4Config, count: usize, front: usize, stages: Stages) {
    let back = config.num_hidden_layers - (count - front);
    let mut ratios = config.compress_ratios[..front].to_vec();
    ratios.extend(&config.compress_ratios[back..config.num_hidden_layers]);
    if stages == Stages::Keep {
        ratios.extend(&config.compress_ratios[config.num_hidden_layers..]);
    }
    map.insert("num_hash_layers".into(), json!(front));
    map.insert("compress_ratios".into(), json!(ratios));
    // Transformers' words for the two.
    map.remove("layer_types");
    map.remove("mlp_layer_types");
    if stages == Stages::Keep {
        move_taps(map, config, count);
    }
}

fn drop_stages(map: &mut Map<String, Value>) {
    map.insert("num_nextn_predict_layers".into(), json!(0));
    map.retain(|key, _| !key.starts_with("dspark_"));
}

/// DSpark taps the last layers of the smaller model, as many as before where there are that many.
fn move_taps(map: &mut Map<String, Value>, config: &DeepseekV4Config, count: usize) {
    if let Some(dspark) = &config.dspark {
        let first = count.saturating_sub(dspark.target_layer_ids.len());
        let taps: Vec<usize> = (first..count).collect();
        map.insert("dspark_target_layer_ids".into(), json!(taps));
    }
}
