//! Settings that several protocols spell alike.

use std::collections::HashSet;

use cachalot_chat::{ReasoningEffort, Thinking};
use serde_json::Value;

use crate::call::{Sampling, Tool};
use crate::error::ProtocolError;
use crate::fields::{Fields, wrong_type};

/// Most tokens that can be asked for; beyond any context.
const TOKEN_COUNT_MAX: usize = 1 << 30;

/// Token ids are below this.
const TOKEN_ID_MAX: i64 = u32::MAX as i64;

/// The sampling fields of the OpenAI protocols and their usual extensions.
pub(crate) fn sampling(fields: &Fields<'_>) -> Result<Sampling, ProtocolError> {
    let top_p = fields.number("top_p", 0.0..=1.0)?;
    if top_p == Some(0.0) && fields.number("temperature", 0.0..=100.0)? != Some(0.0) {
        return Err(fields.invalid(
            "top_p",
            "is 0, expected above 0; use temperature 0 for the likeliest token",
        ));
    }
    let repetition_penalty = fields.number("repetition_penalty", 0.0..=10.0)?;
    if repetition_penalty == Some(0.0) {
        return Err(fields.invalid("repetition_penalty", "is 0, expected above 0; 1 is no penalty"));
    }
    // Minus one is another way to say all.
    let top_k = fields
        .integer("top_k", -1..=i64::from(i32::MAX))?
        .map(|count| count.max(0) as usize);
    Ok(Sampling {
        temperature: fields.number("temperature", 0.0..=100.0)?,
        top_p: top_p.filter(|value| *value > 0.0),
        top_k,
        min_p: fields.number("min_p", 0.0..=1.0)?,
        presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?,
        frequency_penalty: fields.number("frequency_penalty", -2.0..=2.0)?,
        repetition_penalty,
        // Negative seeds are seeds, too.
        seed: fields.integer("seed", i64::MIN..=i64::MAX)?.map(|seed| seed as u64),
        logit_bias: logit_bias(fields)?,
    })
}

fn logit_bias(fields: &Fields<'_>) -> Result<Vec<(u32, f32)>, ProtocolError> {
    let Some(value) = fields.value("logit_bias") else {
        return Ok(Vec::new());
    };
    let Value::Object(entries) = value else {
        return Err(wrong_type(fields.path_of("logit_bias"), "an object", value));
    };
    let count_max = fields.limits.logit_bias_count;
    if entries.len() > count_max {
        return Err(fields.invalid(
            "logit_bias",
            format!("has {} entries, at most {count_max} are taken", entries.len()),
        ));
    }
    let biases = Fields::new(entries, fields.path_of("logit_bias"), fields.limits);
    entries
        .keys()
        .map(|key| {
            let token = key
                .parse::<u32>()
                .map_err(|_| fields.invalid("logit_bias", format!("has the key {key:?}, expected a token id")))?;
            Ok((token, biases.number(key, -100.0..=100.0)?.unwrap_or(0.0)))
        })
        .collect()
}

/// The token limit in the first of the fields `names` that is there.
pub(crate) fn token_count_max(fields: &Fields<'_>, names: &[&str]) -> Result<Option<usize>, ProtocolError> {
    for name in names {
        if let Some(count) = fields.count(name, 1..=TOKEN_COUNT_MAX)? {
            return Ok(Some(count));
        }
    }
    Ok(None)
}

/// Stop strings: one, or a list.
pub(crate) fn stops(fields: &Fields<'_>, name: &str) -> Result<Vec<String>, ProtocolError> {
    let items = match fields.value(name) {
        None => return Ok(Vec::new()),
        Some(Value::Array(items)) => items.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    let limits = fields.limits;
    if items.len() > limits.stop_count {
        let message = format!("has {} strings, at most {} are taken", items.len(), limits.stop_count);
        return Err(fields.invalid(name, message));
    }
    let mut stops = Vec::new();
    for item in items {
        match item {
            Value::String(stop) if stop.is_empty() => {
                return Err(fields.invalid(name, "has an empty string, which would end every answer at once"));
            }
            Value::String(stop) if stop.len() > limits.stop_bytes => {
                let message = format!(
                    "has a string of {} bytes, at most {} are taken",
                    stop.len(),
                    limits.stop_bytes
                );
                return Err(fields.invalid(name, message));
            }
            Value::String(stop) => stops.push(stop.clone()),
            other => {
                return Err(wrong_type(
                    fields.path_of(name),
                    "a string or an array of strings",
                    other,
                ));
            }
        }
    }
    Ok(stops)
}

/// An array of token ids, or `None` if `items` are anything else.
pub(crate) fn token_ids(items: &[Value]) -> Option<Vec<u32>> {
    items
        .iter()
        .map(|item| {
            item.as_u64()
                .and_then(|id| u32::try_from(id).ok())
                .filter(|id| i64::from(*id) < TOKEN_ID_MAX)
        })
        .collect()
}

/// What the efforts of the protocols mean here: minimal is low, medium is high.
pub(crate) fn effort(fields: &Fields<'_>, name: &str) -> Result<Option<Thinking>, ProtocolError> {
    let Some(effort) = fields.name(name)? else {
        return Ok(None);
    };
    let effort = match effort {
        "none" => return Ok(Some(Thinking::Off)),
        "minimal" | "low" => ReasoningEffort::Low,
        "medium" | "high" => ReasoningEffort::High,
        "xhigh" => ReasoningEffort::Xhigh,
        "max" | "ultra" => ReasoningEffort::Max,
        other => {
            let message = format!("is {other:?}, expected none, minimal, low, medium, high, xhigh or max");
            return Err(fields.invalid(name, message));
        }
    };
    Ok(Some(Thinking::Effort(effort)))
}

/// `thinking: {"type": "enabled" | "adaptive" | "disabled"}`.
pub(crate) fn thinking_switch(fields: &Fields<'_>) -> Result<Option<bool>, ProtocolError> {
    let Some(thinking) = fields.object("thinking")? else {
        return Ok(None);
    };
    match thinking.required_name("type")? {
        "enabled" | "adaptive" => Ok(Some(true)),
        "disabled" => Ok(Some(false)),
        other => Err(thinking.invalid("type", format!("is {other:?}, expected enabled, adaptive or disabled"))),
    }
}

/// Joins a switch and an effort: the switch decides whether, the effort how hard.
pub(crate) fn thinking(switch: Option<bool>, effort: Option<Thinking>) -> Option<Thinking> {
    match (switch, effort) {
        (Some(false), _) => Some(Thinking::Off),
        (Some(true), None | Some(Thinking::Off)) => Some(Thinking::On),
        (_, effort) => effort,
    }
}

/// Checks the tools as a whole: their number, and that no name comes twice.
pub(crate) fn check_tools(field: &str, tools: &[Tool]) -> Result<(), ProtocolError> {
    let mut names = HashSet::new();
    for tool in tools {
        let name = tool.definition.name.as_str();
        if !names.insert(name) {
            return Err(ProtocolError::invalid(
                field,
                format_args!("has the name {name:?} twice"),
            ));
        }
    }
    Ok(())
}

/// The name of a tool: what markup can carry.
pub(crate) fn tool_name<'b>(fields: &Fields<'b>) -> Result<&'b str, ProtocolError> {
    let name = fields.required_name("name")?;
    if name.contains(['"', '<', '>', '\n', '\r', '｜']) {
        return Err(fields.invalid(
            "name",
            format!("is {name:?}; quotes, angle brackets and line ends cannot be in a tool's name"),
        ));
    }
    Ok(name)
}

/// The JSON Schema in the field `name`, `None` if absent.
pub(crate) fn schema(fields: &Fields<'_>, name: &str) -> Result<Option<Value>, ProtocolError> {
    let Some(value) = fields.value(name) else {
        return Ok(None);
    };
    if !value.is_object() {
        return Err(wrong_type(fields.path_of(name), "a JSON Schema object", value));
    }
    let bytes = value.to_string().len();
    let bytes_max = fields.limits.schema_bytes;
    if bytes > bytes_max {
        return Err(fields.invalid(name, format!("has {bytes} bytes, at most {bytes_max} are taken")));
    }
    Ok(Some(value.clone()))
}

/// The schema of a tool without parameters.
pub(crate) fn no_parameters() -> Value {
    serde_json::json!({"type": "object", "properties": {}})
}
