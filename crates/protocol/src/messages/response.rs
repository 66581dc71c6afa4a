//! Answers to events and bodies.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};

use crate::answer::arguments::{closing_with, whole_members};
use crate::answer::block::{AnswerState, Block, CallBlock, CallState, Piece};
use crate::answer::choice::Choice;
use crate::answer::{Head, Outcome, Writer};
use crate::error::ProtocolError;
use crate::frame::Frame;
use crate::warning;

/// Name of the argument that makes a call with unreadable markup visible to the tool's schema.
const MALFORMED: &str = "malformed_tool_call";

/// Writes messages.
#[derive(Debug)]
pub(crate) struct MessageWriter;

/// The event that keeps connections open.
pub(crate) fn ping() -> Frame {
    Frame::named("ping", &json!({"type": "ping"}))
}

impl Writer for MessageWriter {
    fn start(&mut self, head: &Head, choices: &[Choice]) -> Vec<Frame> {
        let mut message = message(head, Vec::new());
        message["usage"] = usage_json(head, choices);
        vec![
            Frame::named("message_start", &json!({"type": "message_start", "message": message})),
            ping(),
        ]
    }

    fn piece(&mut self, _head: &Head, choices: &[Choice], choice: usize, piece: &Piece) -> Vec<Frame> {
        let blocks = &choices[choice].state.blocks;
        match piece {
            Piece::Started { block } => {
                let content = match &blocks[*block] {
                    Block::Reasoning(_) => json!({"type": "thinking", "thinking": "", "signature": ""}),
                    Block::Text { .. } => json!({"type": "text", "text": ""}),
                    Block::Call(call) => json!({"type": "tool_use", "id": call.id, "name": call.name, "input": {}}),
                };
                let value = json!({"type": "content_block_start", "index": block, "content_block": content});
                vec![Frame::named("content_block_start", &value)]
            }
            Piece::Delta { block, text, .. } => {
                let delta = match &blocks[*block] {
                    Block::Reasoning(_) => json!({"type": "thinking_delta", "thinking": text}),
                    Block::Text { .. } => json!({"type": "text_delta", "text": text}),
                    Block::Call(_) => json!({"type": "input_json_delta", "partial_json": text}),
                };
                vec![delta_frame(*block, delta)]
            }
            Piece::Ended { block } => {
                let mut frames = Vec::new();
                match &blocks[*block] {
                    Block::Reasoning(text) => {
                        let delta = json!({"type": "signature_delta", "signature": signature(text)});
                        frames.push(delta_frame(*block, delta));
                    }
                    Block::Call(call) => frames
                        .extend(malformed_tail(call).map(|tail| {
                            delta_frame(*block, json!({"type": "input_json_delta", "partial_json": tail}))
                        })),
                    Block::Text { .. } => {}
                }
                let value = json!({"type": "content_block_stop", "index": block});
                frames.push(Frame::named("content_block_stop", &value));
                frames
            }
        }
    }

    fn choice_over(&mut self, _head: &Head, _choices: &[Choice], _choice: usize) -> Vec<Frame> {
        Vec::new()
    }

    fn end(&mut self, head: &Head, choices: &[Choice]) -> Vec<Frame> {
        let Some(choice) = choices.first() else {
            return Vec::new();
        };
        let (stop_reason, stop_sequence) = stop(&choice.state);
        let delta = json!({"stop_reason": stop_reason, "stop_sequence": stop_sequence, "container": null});
        let mut value = json!({"type": "message_delta", "delta": delta, "usage": usage_json(head, choices)});
        warning::attach(&mut value, &choice.state.warnings);
        vec![
            Frame::named("message_delta", &value),
            Frame::named("message_stop", &json!({"type": "message_stop"})),
        ]
    }

    fn fail(&mut self, _head: &Head, _choices: &[Choice], error: &ProtocolError) -> Vec<Frame> {
        vec![Frame::named("error", &error.to_body(crate::Protocol::Messages))]
    }

    fn body(&self, head: &Head, choices: &[Choice]) -> Value {
        let blocks = choices.iter().flat_map(|choice| &choice.state.blocks);
        let mut value = message(head, blocks.map(content).collect());
        if let Some(choice) = choices.first() {
            let (stop_reason, stop_sequence) = stop(&choice.state);
            value["stop_reason"] = stop_reason.into();
            value["stop_sequence"] = stop_sequence.into();
            warning::attach(&mut value, &choice.state.warnings);
        }
        value["usage"] = usage_json(head, choices);
        value
    }
}

fn message(head: &Head, content: Vec<Value>) -> Value {
    json!({
        "id": format!("msg_{}", head.id_suffix),
        "type": "message",
        "role": "assistant",
        "model": head.model,
        "content": content,
        "stop_reason": null,
        "stop_sequence": null,
    })
}

fn delta_frame(block: usize, delta: Value) -> Frame {
    Frame::named(
        "content_block_delta",
        &json!({"type": "content_block_delta", "index": block, "delta": delta}),
    )
}

fn content(block: &Block) -> Value {
    match block {
        Block::Reasoning(text) => json!({"type": "thinking", "thinking": text, "signature": signature(text)}),
        Block::Text { text, .. } => json!({"type": "text", "text": text}),
        Block::Call(call) => {
            let closed = malformed_tail(call).map(|tail| format!("{}{tail}", call.arguments));
            let input = whole_members(closed.as_deref().unwrap_or(&call.arguments));
            json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input})
        }
    }
}

/// What makes the arguments of a call with unreadable markup an object that says so.
///
/// A tool's input is an object here, and clients take an unfinished one for what it has; so it gets an argument that no
/// tool knows. What the token limit cut is left as it is: `max_tokens` says enough.
fn malformed_tail(call: &CallBlock) -> Option<String> {
    match &call.state {
        CallState::Malformed { .. } => {
            let note = "The call's markup could not be read; it must not be run. Ask the model to call again.";
            Some(closing_with(&call.arguments, MALFORMED, note))
        }
        CallState::Open | CallState::Whole | CallState::Cut => None,
    }
}

/// Something to hand back with the thinking. Nothing depends on it: thinking is taken as the client sends it.
fn signature(thinking: &str) -> String {
    let mut hasher = DefaultHasher::new();
    thinking.hash(&mut hasher);
    format!("cachalot{:016x}", hasher.finish())
}

fn stop(state: &AnswerState) -> (Option<&'static str>, Option<&str>) {
    match &state.outcome {
        None => (None, None),
        Some(Outcome::Stop) => (Some("end_turn"), None),
        Some(Outcome::StopString(stop)) => (Some("stop_sequence"), Some(stop)),
        Some(Outcome::ToolCalls) => (Some("tool_use"), None),
        Some(Outcome::Length | Outcome::Cancelled) => (Some("max_tokens"), None),
    }
}

fn usage_json(head: &Head, choices: &[Choice]) -> Value {
    let usage = crate::answer::usage(head, choices);
    json!({
        "input_tokens": usage.prompt_token_count - usage.cached_token_count,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_token_count,
        "output_tokens": usage.answer_token_count,
    })
}
