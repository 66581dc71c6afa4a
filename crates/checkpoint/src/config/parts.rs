//! Values that config.json has in every family.

use cachalot_numerics::{IntegerWidth, integer};
use serde_json::{Value, json};

use super::{
    ExpertDtype, LOW_BIT_KEY, Quantization, RopeScaling, ScaleFormat,
    fields::{DOWNLOAD_AGAIN, Fields},
    limits,
};
use crate::Error;

/// A positive number that stays positive as `f32`.
pub(super) fn single(fields: &Fields<'_>, key: &str, most: f64) -> Result<f32, Error> {
    let number = fields.positive(key, most)? as f32;
    match number >= f32::MIN_POSITIVE {
        true => Ok(number),
        false => Err(fields.wrong(key, fields.require(key)?, "a number that fits in 32 bits".into())),
    }
}

pub(super) fn token_id(fields: &Fields<'_>, key: &str, vocab_size: usize) -> Result<u32, Error> {
    // The vocabulary's limit is far below 2^32.
    Ok(fields.integer(key, 0, vocab_size - 1)? as u32)
}

pub(super) fn eos_token_ids(fields: &Fields<'_>, vocab_size: usize) -> Result<Vec<u32>, Error> {
    let key = "eos_token_id";
    if !fields.require(key)?.is_array() {
        return Ok(vec![token_id(fields, key, vocab_size)?]);
    }
    let expected = format!("token ids below {vocab_size}");
    let ids = fields.integers(key, limits::STOP_TOKENS, &expected, |id| id < vocab_size)?;
    match ids.is_empty() {
        true => Err(fields.refuse(key, "[]".into(), "at least one token id".into(), DOWNLOAD_AGAIN)),
        false => Ok(ids.into_iter().map(|id| id as u32).collect()),
    }
}

pub(super) fn optional_theta(fields: &Fields<'_>, key: &str) -> Result<Option<f64>, Error> {
    let Some(value) = fields.get(key) else {
        return Ok(None);
    };
    let theta = fields.positive_of(key, value, limits::THETA)?;
    // At 1 every channel would turn at the same speed and YaRN divide by ln 1 = 0.
    match theta > 1.0 {
        true => Ok(Some(theta)),
        false => Err(fields.wrong(key, value, "a number above 1".into())),
    }
}

pub(super) fn rope_scaling(fields: &Fields<'_>) -> Result<Option<RopeScaling>, Error> {
    let kind = match fields.text("rope_type")? {
        Some(kind) => Some(kind),
        None => fields.text("type")?,
    };
    match kind {
        None | Some("default") => return Ok(None),
        Some("yarn") => {}
        Some(other) => {
            let expected = "\"yarn\" or \"default\"".into();
            return Err(fields.wrong("type", &Value::from(other), expected));
        }
    }
    // V4 never scales cosine and sine.
    fields.fixed("attention_factor", json!(1.0))?;
    Ok(Some(RopeScaling {
        factor: fields.positive("factor", limits::ROPE_FACTOR)?,
        beta_fast: fields.positive("beta_fast", limits::ROPE_FACTOR)?,
        beta_slow: fields.positive("beta_slow", limits::ROPE_FACTOR)?,
        original_max_position_embeddings: fields.count("original_max_position_embeddings", limits::POSITIONS)?,
    }))
}

pub(super) fn expert_dtype(fields: &Fields<'_>) -> Result<Option<ExpertDtype>, Error> {
    let key = "expert_dtype";
    let word = match (fields.text(key)?, fields.object("quantization_config")?) {
        (None, Some(quantization)) => quantization.text(key)?,
        (word, _) => word,
    };
    match word {
        None => Ok(None),
        Some("fp4") => Ok(Some(ExpertDtype::Fp4)),
        Some("fp8") => Ok(Some(ExpertDtype::Fp8)),
        Some(other) => Err(fields.wrong(key, &Value::from(other), "\"fp4\" or \"fp8\"".into())),
    }
}

pub(super) fn low_bit(fields: &Fields<'_>) -> Result<Option<IntegerWidth>, Error> {
    let Some(fields) = fields.object(LOW_BIT_KEY)? else {
        return Ok(None);
    };
    fields.fixed("group_size", json!(integer::GROUP))?;
    let key = "format";
    let Some(word) = fields.text(key)? else {
        return Err(fields.missing(key));
    };
    match word.parse() {
        Ok(width) => Ok(Some(width)),
        Err(_) => Err(fields.wrong(key, &Value::from(word), "\"int8\", \"int6\" or \"int4\"".into())),
    }
}

pub(super) fn quantization(fields: &Fields<'_>) -> Result<Option<Quantization>, Error> {
    let Some(fields) = fields.object("quantization_config")? else {
        return Ok(None);
    };
    if fields.get("quant_method").is_none() {
        return Err(fields.missing("quant_method"));
    }
    fields.fixed("quant_method", json!("fp8"))?;
    fields.fixed("fmt", json!("e4m3"))?;
    fields.fixed("activation_scheme", json!("dynamic"))?;
    let key = "weight_block_size";
    let expected = format!("two powers of two up to {}", limits::BLOCK);
    let sides = fields.integers(key, 2, &expected, |side| {
        side.is_power_of_two() && side <= limits::BLOCK
    })?;
    let Ok(weight_block_size) = <[usize; 2]>::try_from(sides) else {
        return Err(fields.wrong(key, fields.require(key)?, expected));
    };
    let scale_fmt = match fields.text("scale_fmt")? {
        None => None,
        Some("ue8m0") => Some(ScaleFormat::Ue8m0),
        // Transformers' word for F32 scales.
        Some("float") => None,
        Some(other) => {
            return Err(fields.wrong("scale_fmt", &Value::from(other), "\"ue8m0\"".into()));
        }
    };
    Ok(Some(Quantization {
        weight_block_size,
        scale_fmt,
    }))
}

/// Refuses settings whose slow channels would begin before its fast ones end.
pub(super) fn check_ramp(scaling: Option<RopeScaling>, fields: &Fields<'_>) -> Result<(), Error> {
    if let Some(scaling) = scaling
        && scaling.beta_fast <= scaling.beta_slow
    {
        let expected = format!("above {} (beta_slow)", scaling.beta_slow);
        return Err(fields.refuse(
            "rope_scaling.beta_fast",
            scaling.beta_fast.to_string(),
            expected,
            DOWNLOAD_AGAIN,
        ));
    }
    Ok(())
}
