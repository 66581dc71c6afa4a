//! Answers to events and bodies.

use serde_json::{Map, Value, json};

use super::request::CARRIES_REASONING;
use super::{custom, items};
use crate::answer::block::{Block, CallState, Piece, TokenLogprob};
use crate::answer::choice::Choice;
use crate::answer::{Head, Outcome, Writer};
use crate::call::ToolShape;
use crate::chat_completions::response::token_logprobs;
use crate::error::ProtocolError;
use crate::frame::Frame;
use crate::warning;

/// Writes responses.
#[derive(Debug, Default)]
pub(crate) struct ResponseWriter {
    /// Number of the next event.
    sequence: u64,
    /// Where in a custom tool's input the open call is, and how many bytes of it are out.
    input: custom::InputStream,
    input_bytes: usize,
}

impl Writer for ResponseWriter {
    fn start(&mut self, head: &Head, choices: &[Choice]) -> Vec<Frame> {
        let response = response(head, choices, "in_progress");
        vec![
            self.event("response.created", json!({"response": response})),
            self.event("response.in_progress", json!({"response": response})),
        ]
    }

    fn piece(&mut self, head: &Head, choices: &[Choice], choice: usize, piece: &Piece) -> Vec<Frame> {
        let blocks = &choices[choice].state.blocks;
        match piece {
            Piece::Started { block } => self.started(head, *block, &blocks[*block]),
            Piece::Delta { block, text, logprobs } => self.delta(head, *block, &blocks[*block], text, logprobs),
            Piece::Ended { block } => self.ended(head, *block, &blocks[*block]),
        }
    }

    fn choice_over(&mut self, _head: &Head, _choices: &[Choice], _choice: usize) -> Vec<Frame> {
        Vec::new()
    }

    fn end(&mut self, head: &Head, choices: &[Choice]) -> Vec<Frame> {
        let status = status(choices);
        let name = if status == "completed" {
            "response.completed"
        } else {
            "response.incomplete"
        };
        vec![self.event(name, json!({"response": response(head, choices, status)}))]
    }

    fn fail(&mut self, head: &Head, choices: &[Choice], error: &ProtocolError) -> Vec<Frame> {
        let mut response = response(head, choices, "failed");
        // The only codes that clients know for this, and what Codex tries again after.
        let code = match error.openai_code() {
            code @ ("rate_limit_exceeded" | "context_length_exceeded" | "server_is_overloaded") => code,
            _ => "server_error",
        };
        response["error"] = json!({"code": code, "message": error.message});
        response["incomplete_details"] = Value::Null;
        vec![self.event("response.failed", json!({"response": response}))]
    }

    fn body(&self, head: &Head, choices: &[Choice]) -> Value {
        response(head, choices, status(choices))
    }
}

impl ResponseWriter {
    fn event(&mut self, name: &'static str, fields: Value) -> Frame {
        let mut value = json!({"type": name, "sequence_number": self.sequence});
        self.sequence += 1;
        if let (Value::Object(value), Value::Object(fields)) = (&mut value, fields) {
            value.extend(fields);
        }
        Frame::named(name, &value)
    }

    /// An event about the item at `index`, and its part if it has one.
    fn item_event(&mut self, name: &'static str, head: &Head, index: usize, block: &Block, mut fields: Value) -> Frame {
        fields["item_id"] = item_id(head, index, block).into();
        fields["output_index"] = index.into();
        if !matches!(block, Block::Call(_)) {
            fields["content_index"] = 0.into();
        }
        self.event(name, fields)
    }

    fn started(&mut self, head: &Head, index: usize, block: &Block) -> Vec<Frame> {
        self.input = custom::InputStream::default();
        self.input_bytes = 0;
        let added = json!({"output_index": index, "item": empty_item(head, index, block)});
        let mut frames = vec![self.event("response.output_item.added", added)];
        let part = match block {
            Block::Reasoning(_) => json!({"type": "reasoning_text", "text": ""}),
            Block::Text { .. } => text_part(head, "", &[]),
            Block::Call(_) => return frames,
        };
        frames.push(self.item_event("response.content_part.added", head, index, block, json!({"part": part})));
        frames
    }

    fn delta(&mut self, head: &Head, index: usize, block: &Block, text: &str, logprobs: &[TokenLogprob]) -> Vec<Frame> {
        let (name, fields) = match block {
            Block::Reasoning(_) => ("response.reasoning_text.delta", json!({"delta": text})),
            Block::Text { .. } => {
                let fields = json!({"delta": text, "logprobs": logprobs_json(head, logprobs)});
                ("response.output_text.delta", fields)
            }
            Block::Call(call) if call.shape == ToolShape::Custom => {
                return self.custom_delta(head, index, block, text);
            }
            Block::Call(_) => ("response.function_call_arguments.delta", json!({"delta": text})),
        };
        vec![self.item_event(name, head, index, block, fields)]
    }

    fn custom_delta(&mut self, head: &Head, index: usize, block: &Block, delta: &str) -> Vec<Frame> {
        // Where the pieces are not plain text, all of it goes out at the end.
        let input = self.input.push(delta);
        if input.is_empty() {
            return Vec::new();
        }
        self.input_bytes += input.len();
        vec![self.item_event(
            "response.custom_tool_call_input.delta",
            head,
            index,
            block,
            json!({"delta": input}),
        )]
    }

    fn ended(&mut self, head: &Head, index: usize, block: &Block) -> Vec<Frame> {
        let item = item(head, index, block);
        let mut frames = Vec::new();
        match block {
            Block::Reasoning(text) => {
                frames.push(self.item_event(
                    "response.reasoning_text.done",
                    head,
                    index,
                    block,
                    json!({"text": text}),
                ));
                let part = json!({"part": item["content"][0]});
                frames.push(self.item_event("response.content_part.done", head, index, block, part));
            }
            Block::Text { text, logprobs } => {
                let done = json!({"text": text, "logprobs": logprobs_json(head, logprobs)});
                frames.push(self.item_event("response.output_text.done", head, index, block, done));
                let part = json!({"part": item["content"][0]});
                frames.push(self.item_event("response.content_part.done", head, index, block, part));
            }
            Block::Call(call) if call.shape == ToolShape::Custom => {
                let input = custom::input(call);
                if let Some(rest) = input.get(self.input_bytes..).filter(|rest| !rest.is_empty()) {
                    let rest = json!({"delta": rest});
                    frames.push(self.item_event("response.custom_tool_call_input.delta", head, index, block, rest));
                }
                let done = json!({"input": input});
                frames.push(self.item_event("response.custom_tool_call_input.done", head, index, block, done));
            }
            Block::Call(call) => {
                let done = json!({"name": call.name, "arguments": call.arguments});
                frames.push(self.item_event("response.function_call_arguments.done", head, index, block, done));
            }
        }
        frames.push(self.event(
            "response.output_item.done",
            json!({"output_index": index, "item": item}),
        ));
        frames
    }
}

fn item_id(head: &Head, index: usize, block: &Block) -> String {
    let prefix = match block {
        Block::Reasoning(_) => "rs",
        Block::Text { .. } => "msg",
        Block::Call(call) if call.shape == ToolShape::Custom => "ctc",
        Block::Call(_) => "fc",
    };
    format!("{prefix}_{}{index:02}", head.id_suffix)
}

fn empty_item(head: &Head, index: usize, block: &Block) -> Value {
    let id = item_id(head, index, block);
    match block {
        Block::Reasoning(_) => {
            json!({"id": id, "type": "reasoning", "status": "in_progress", "summary": [], "content": []})
        }
        Block::Text { .. } => {
            json!({"id": id, "type": "message", "status": "in_progress", "role": "assistant", "content": []})
        }
        Block::Call(call) => {
            let (kind, field) = call_kind(call.shape);
            let mut item =
                json!({"id": id, "type": kind, "status": "in_progress", "call_id": call.id, "name": call.name});
            item[field] = "".into();
            item
        }
    }
}

fn item(head: &Head, index: usize, block: &Block) -> Value {
    let mut item = empty_item(head, index, block);
    item["status"] = "completed".into();
    match block {
        Block::Reasoning(text) => {
            item["content"] = json!([{"type": "reasoning_text", "text": text}]);
            if head.echo.contains_key(CARRIES_REASONING) {
                item["encrypted_content"] = items::carry(text).into();
            }
        }
        Block::Text { text, logprobs } => item["content"] = json!([text_part(head, text, logprobs)]),
        Block::Call(call) => {
            let (_, field) = call_kind(call.shape);
            item[field] = match call.shape {
                ToolShape::Function => call.arguments.clone(),
                ToolShape::Custom => custom::input(call),
            }
            .into();
            if call.state != CallState::Whole {
                item["status"] = "incomplete".into();
            }
        }
    }
    item
}

/// Type of a call's item, and the field of its arguments.
fn call_kind(shape: ToolShape) -> (&'static str, &'static str) {
    match shape {
        ToolShape::Function => ("function_call", "arguments"),
        ToolShape::Custom => ("custom_tool_call", "input"),
    }
}

fn text_part(head: &Head, text: &str, logprobs: &[TokenLogprob]) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs_json(head, logprobs)})
}

fn logprobs_json(head: &Head, logprobs: &[TokenLogprob]) -> Value {
    match head.logprob_count {
        Some(_) => token_logprobs(head, logprobs),
        None => json!([]),
    }
}

fn status(choices: &[Choice]) -> &'static str {
    match choices.first().and_then(|choice| choice.state.outcome.as_ref()) {
        None => "in_progress",
        Some(Outcome::Length | Outcome::Cancelled) => "incomplete",
        Some(Outcome::Stop | Outcome::StopString(_) | Outcome::ToolCalls) => "completed",
    }
}

fn response(head: &Head, choices: &[Choice], status: &str) -> Value {
    let mut response = Map::new();
    response.insert("id".into(), format!("resp_{}", head.id_suffix).into());
    response.insert("object".into(), "response".into());
    response.insert("created_at".into(), head.created.into());
    response.insert("status".into(), status.into());
    response.insert("error".into(), Value::Null);
    let details = match choices.first().and_then(|choice| choice.state.outcome.as_ref()) {
        Some(Outcome::Length | Outcome::Cancelled) => json!({"reason": "max_output_tokens"}),
        _ => Value::Null,
    };
    response.insert("incomplete_details".into(), details);
    response.insert("model".into(), head.model.clone().into());
    let blocks = choices.iter().flat_map(|choice| &choice.state.blocks).enumerate();
    let output: Vec<Value> = if status == "in_progress" {
        Vec::new()
    } else {
        blocks.map(|(index, block)| item(head, index, block)).collect()
    };
    response.insert("output".into(), output.into());
    let echo = head.echo.iter().filter(|(name, _)| *name != CARRIES_REASONING);
    response.extend(echo.map(|(name, value)| (name.clone(), value.clone())));
    let usage = if status == "in_progress" {
        Value::Null
    } else {
        usage_json(head, choices)
    };
    response.insert("usage".into(), usage);
    let mut response = Value::Object(response);
    warning::attach(&mut response, choices.iter().flat_map(|choice| &choice.state.warnings));
    response
}

fn usage_json(head: &Head, choices: &[Choice]) -> Value {
    let usage = crate::answer::usage(head, choices);
    json!({
        "input_tokens": usage.prompt_token_count,
        "input_tokens_details": {"cached_tokens": usage.cached_token_count, "cache_write_tokens": 0},
        "output_tokens": usage.answer_token_count,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_token_count},
        "total_tokens": usage.prompt_token_count + usage.answer_token_count,
    })
}
