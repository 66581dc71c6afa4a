//! Input items to messages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cachalot_chat::{Message, ToolCall, message};
use serde_json::{Value, json};

use crate::chat_completions::NO_VISION;
use crate::error::ProtocolError;
use crate::fields::{Fields, wrong_type};
use crate::settings;

/// Begins what is handed out as `encrypted_content`.
const CARRIED: &str = "cachalot1:";

/// Reasoning as an opaque text that a client without `store` sends back. It is encoded, not secret.
pub(super) fn carry(reasoning: &str) -> String {
    format!("{CARRIED}{}", STANDARD.encode(reasoning))
}

fn carried(content: &str) -> Option<String> {
    let bytes = STANDARD.decode(content.strip_prefix(CARRIED)?).ok()?;
    String::from_utf8(bytes).ok()
}

/// The messages in the field `input`: a text, or items.
pub(super) fn messages(fields: &Fields<'_>, ignored: &mut Vec<String>) -> Result<Vec<Message>, ProtocolError> {
    match fields.value("input") {
        None => Ok(Vec::new()),
        Some(Value::String(_)) => {
            let text = fields.text("input")?.unwrap_or_default();
            Ok(if text.is_empty() {
                Vec::new()
            } else {
                vec![message::user(text)]
            })
        }
        Some(Value::Array(_)) => {
            let mut turns = Turns::default();
            for item in fields.objects("input", fields.limits.message_count)? {
                turns.item(&item, ignored)?;
            }
            turns.close();
            Ok(turns.messages)
        }
        Some(other) => Err(wrong_type(
            fields.path_of("input"),
            "a string or an array of items",
            other,
        )),
    }
}

/// Puts the items of one answer together: reasoning, text, then calls.
#[derive(Default)]
struct Turns {
    messages: Vec<Message>,
    reasoning: Option<String>,
    text: String,
    calls: Vec<ToolCall>,
}

impl Turns {
    fn item(&mut self, item: &Fields<'_>, ignored: &mut Vec<String>) -> Result<(), ProtocolError> {
        let role = item.name("role")?;
        let kind = item.name("type")?.or(role.map(|_| "message"));
        match kind.ok_or_else(|| item.invalid("type", "is missing"))? {
            "message" => self.message(item, role.unwrap_or_default())?,
            "reasoning" => {
                if !self.text.is_empty() || !self.calls.is_empty() {
                    self.close();
                }
                if let Some(reasoning) = reasoning(item)? {
                    self.reasoning.get_or_insert_default().push_str(&reasoning);
                }
            }
            "function_call" => {
                let arguments = item.text("arguments")?.unwrap_or("{}");
                self.call(item, arguments.to_owned())?;
            }
            "custom_tool_call" => {
                let input = item.text("input")?.unwrap_or_default();
                self.call(item, json!({ "input": input }).to_string())?;
            }
            "function_call_output" | "custom_tool_call_output" | "local_shell_call_output" | "tool_search_output" => {
                let id = item.name("call_id")?.or(item.name("id")?).unwrap_or_default();
                let output = content(item, "output")?.unwrap_or_default();
                self.close();
                self.messages.push(message::tool_result(id, output));
            }
            "item_reference" => {
                let message = "item references are not supported; send the items, or use previous_response_id";
                return Err(item.unsupported("type", message));
            }
            // Calls of tools that run at OpenAI, compactions and whatever comes next.
            other => ignored.push(format!("{} of type {other}", item.path())),
        }
        Ok(())
    }

    fn message(&mut self, item: &Fields<'_>, role: &str) -> Result<(), ProtocolError> {
        let text = content(item, "content")?.unwrap_or_default();
        match role {
            "assistant" => {
                if !self.calls.is_empty() {
                    self.close();
                }
                self.text.push_str(&text);
                if text.is_empty() && self.reasoning.is_none() && self.text.is_empty() {
                    self.messages.push(message::assistant(None, "", Vec::new()));
                }
            }
            "user" => {
                self.close();
                self.messages.push(message::user(text));
            }
            "system" | "developer" => {
                self.close();
                self.messages.push(message::system(text));
            }
            other => {
                let message = format!("is {other:?}, expected user, assistant, system or developer");
                return Err(item.invalid("role", message));
            }
        }
        Ok(())
    }

    fn call(&mut self, item: &Fields<'_>, arguments: String) -> Result<(), ProtocolError> {
        let id = item.name("call_id")?.or(item.name("id")?).unwrap_or_default();
        if id.is_empty() {
            return Err(item.invalid("call_id", "is missing"));
        }
        self.calls.push(ToolCall {
            id: id.to_owned(),
            name: settings::tool_name(item)?.to_owned(),
            arguments,
        });
        Ok(())
    }

    /// Ends the answer that is being put together.
    fn close(&mut self) {
        let reasoning = self.reasoning.take();
        let (text, calls) = (std::mem::take(&mut self.text), std::mem::take(&mut self.calls));
        if reasoning.is_some() || !text.is_empty() || !calls.is_empty() {
            self.messages.push(message::assistant(reasoning, text, calls));
        }
    }
}

/// The reasoning of an item: its own text, or what it carries.
fn reasoning(item: &Fields<'_>) -> Result<Option<String>, ProtocolError> {
    let parts = item.objects("content", item.limits.message_count)?;
    if parts.is_empty() {
        return Ok(item.text("encrypted_content")?.and_then(carried));
    }
    let mut text = String::new();
    for part in parts {
        text.push_str(part.text("text")?.unwrap_or_default());
    }
    Ok(Some(text))
}

/// The text of a string or of parts, which are joined by blank lines; of an answer's own parts without.
fn content(item: &Fields<'_>, name: &str) -> Result<Option<String>, ProtocolError> {
    match item.value(name) {
        None | Some(Value::String(_)) => Ok(item.text(name)?.map(str::to_owned)),
        Some(Value::Array(_)) => {
            let mut text = String::new();
            for part in item.objects(name, item.limits.message_count)? {
                let kind = part.required_name("type")?;
                let piece = match kind {
                    "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text" => part.text("text")?,
                    "refusal" => part.text("refusal")?,
                    "input_image" | "image_url" => return Err(part.unsupported("type", NO_VISION)),
                    "input_audio" => return Err(part.unsupported("type", "audio input is not supported by this model")),
                    "input_file" => return Err(part.unsupported("type", "files are not supported; send their text")),
                    other => return Err(part.invalid("type", format!("is {other:?}, expected input_text"))),
                };
                if !text.is_empty() && kind != "output_text" {
                    text.push_str("\n\n");
                }
                text.push_str(piece.unwrap_or_default());
            }
            Ok(Some(text))
        }
        // Some clients send a result as bare JSON.
        Some(other) if name == "output" => Ok(Some(other.to_string())),
        Some(other) => Err(wrong_type(item.path_of(name), "a string or an array of parts", other)),
    }
}
