//! How answers left the format, told to the client and the log.

use cachalot_chat::Irregularity;
use serde_json::{Value, json};

/// Longest stretch of the model's own words in a warning, in bytes.
const RAW_BYTES_MAX: usize = 4096;

/// Something odd about an answer. Bodies carry them in a field `warnings`, only when there are any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// A fixed name of the kind, for metrics.
    pub code: &'static str,
    /// What happened, and what was made of it.
    pub message: String,
    /// What the model wrote, shortened to 4 KiB; may be empty.
    pub raw: String,
}

impl Warning {
    pub(crate) fn new(code: &'static str, message: impl Into<String>, raw: &str) -> Self {
        let mut end = raw.len().min(RAW_BYTES_MAX);
        while !raw.is_char_boundary(end) {
            end -= 1;
        }
        Self {
            code,
            message: message.into(),
            raw: raw[..end].to_owned(),
        }
    }

    pub(crate) fn of(irregularity: &Irregularity) -> Self {
        match irregularity {
            Irregularity::ToolCallInReasoning => Self::new(
                "tool_call_in_reasoning",
                "a tool was called before the reasoning was closed; the call counts",
                "",
            ),
            Irregularity::ReasoningNotClosed => Self::new(
                "reasoning_not_closed",
                "the answer ended within the reasoning, it may have no text",
                "",
            ),
            Irregularity::ToolCallCut { raw, .. } => Self::new(
                "tool_call_cut",
                "the answer ended within a tool call; its arguments are unfinished, do not run it",
                raw,
            ),
            Irregularity::ToolCallMalformed { raw, .. } => Self::new(
                "tool_call_malformed",
                "the markup of a tool call could not be read; it must not be run as it is",
                raw,
            ),
            Irregularity::ValueNotJson { parameter, value, .. } => Self::new(
                "value_not_json",
                format!("the value of {parameter:?} was announced as JSON and is none; it was passed on as a string"),
                value,
            ),
            Irregularity::Skipped { raw } => {
                Self::new("skipped", "a marker or text was left out where it means nothing", raw)
            }
            Irregularity::ForeignTurn { marker } => Self::new(
                "foreign_turn",
                "the model began a turn of somebody else; the answer ends before it",
                marker,
            ),
            _ => Self::new("irregular", format!("{irregularity:?}"), ""),
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({"code": self.code, "message": self.message, "raw": self.raw})
    }
}

/// Puts `warnings` into the object `body`, if there are any.
pub(crate) fn attach<'w>(body: &mut Value, warnings: impl IntoIterator<Item = &'w Warning>) {
    let warnings: Vec<Value> = warnings.into_iter().map(Warning::to_json).collect();
    if !warnings.is_empty() {
        body["warnings"] = Value::Array(warnings);
    }
}
