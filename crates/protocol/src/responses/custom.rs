//! Custom tools: functions with the one text argument `input`, which clients get bare.

use serde_json::{Value, json};

use crate::answer::arguments::whole_members;
use crate::answer::block::{CallBlock, CallState};

/// How the arguments of a call begin, as the answer parser writes them.
const BEGINNING: &str = "{\"input\": \"";

/// Added to the input of a call with unreadable markup, so that the tool cannot take it for whole.
const MALFORMED: &str = "\n[The markup of this tool call could not be read; it must not be run.]";

/// The schema of a custom tool.
pub(super) fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {"input": {"type": "string"}},
        "required": ["input"],
        "additionalProperties": false,
    })
}

/// The input of a call, as far as it goes.
pub(super) fn input(call: &CallBlock) -> String {
    let mut input = match call.arguments.strip_prefix(BEGINNING) {
        Some(rest) => unescape(&rest[..string_len(rest)]),
        None => match whole_members(&call.arguments).get("input") {
            Some(Value::String(input)) => input.clone(),
            _ => call.arguments.clone(),
        },
    };
    if matches!(call.state, CallState::Malformed { .. }) {
        input.push_str(MALFORMED);
    }
    input
}

/// Reads the input from the pieces of the arguments, as long as they are those of one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum InputStream {
    /// Before the first piece.
    #[default]
    Before,
    /// Within the text.
    Inside,
    /// Behind it, or in arguments of another form.
    Over,
}

impl InputStream {
    /// The piece of the input in `delta`; nothing where it has to wait for the rest.
    pub(super) fn push(&mut self, delta: &str) -> String {
        let (next, input) = match (*self, delta) {
            (Self::Before, BEGINNING) => (Self::Inside, String::new()),
            // Quotes in the text are escaped, and pieces never cut an escape.
            (Self::Inside, text) if text != "\"" => (Self::Inside, unescape(text)),
            _ => (Self::Over, String::new()),
        };
        *self = next;
        input
    }
}

/// Length of the inside of a JSON string up to its quote, or the end.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at,
            _ => {}
        }
    }
    text.len()
}

fn unescape(inside: &str) -> String {
    serde_json::from_str(&format!("\"{inside}\"")).unwrap_or_default()
}
