//! Answers to chunks and bodies.

use serde_json::{Map, Value, json};

use crate::answer::block::{AnswerState, Block, Piece, TokenLogprob};
use crate::answer::choice::Choice;
use crate::answer::{Head, Outcome, Usage, Writer};
use crate::error::ProtocolError;
use crate::frame::Frame;
use crate::warning;

/// Writes chat completions.
#[derive(Debug, Default)]
pub(crate) struct ChatWriter;

impl Writer for ChatWriter {
    fn start(&mut self, head: &Head, choices: &[Choice]) -> Vec<Frame> {
        let delta = json!({"role": "assistant", "content": ""});
        (0..choices.len())
            .map(|choice| chunk(head, choice, delta.clone(), Value::Null, None))
            .collect()
    }

    fn piece(&mut self, head: &Head, choices: &[Choice], choice: usize, piece: &Piece) -> Vec<Frame> {
        let blocks = &choices[choice].state.blocks;
        match piece {
            Piece::Started { block } => match &blocks[*block] {
                Block::Call(call) => {
                    let function = json!({"name": call.name, "arguments": ""});
                    let call = json!({"index": call.index, "id": call.id, "type": "function", "function": function});
                    vec![chunk(head, choice, json!({"tool_calls": [call]}), Value::Null, None)]
                }
                Block::Reasoning(_) | Block::Text { .. } => Vec::new(),
            },
            Piece::Delta { block, text, logprobs } => {
                let delta = match &blocks[*block] {
                    Block::Reasoning(_) => json!({"reasoning_content": text}),
                    Block::Text { .. } => json!({"content": text}),
                    Block::Call(call) => {
                        json!({"tool_calls": [{"index": call.index, "function": {"arguments": text}}]})
                    }
                };
                let logprobs = match &blocks[*block] {
                    Block::Text { .. } => logprobs_json(head, logprobs),
                    Block::Reasoning(_) | Block::Call(_) => Value::Null,
                };
                vec![chunk(head, choice, delta, logprobs, None)]
            }
            Piece::Ended { .. } => Vec::new(),
        }
    }

    fn choice_over(&mut self, head: &Head, choices: &[Choice], choice: usize) -> Vec<Frame> {
        let state = &choices[choice].state;
        let mut value = chunk_value(head, choice, json!({}), Value::Null, Some(finish_reason(state)));
        warning::attach(&mut value, &state.warnings);
        vec![Frame::data(&value)]
    }

    fn end(&mut self, head: &Head, choices: &[Choice]) -> Vec<Frame> {
        let mut frames = Vec::new();
        if head.include_usage {
            let mut value = base(head, "chat.completion.chunk");
            value["choices"] = json!([]);
            value["usage"] = usage_json(&crate::answer::usage(head, choices));
            frames.push(Frame::data(&value));
        }
        frames.push(done());
        frames
    }

    fn fail(&mut self, _head: &Head, _choices: &[Choice], error: &ProtocolError) -> Vec<Frame> {
        vec![Frame::data(&error.to_body(crate::Protocol::ChatCompletions)), done()]
    }

    fn body(&self, head: &Head, choices: &[Choice]) -> Value {
        let mut value = base(head, "chat.completion");
        let choice = |(index, choice): (usize, &Choice)| {
            json!({
                "index": index,
                "message": message(&choice.state),
                "logprobs": logprobs_of(head, &choice.state),
                "finish_reason": finish_reason(&choice.state),
            })
        };
        value["choices"] = choices.iter().enumerate().map(choice).collect();
        value["usage"] = usage_json(&crate::answer::usage(head, choices));
        warning::attach(&mut value, choices.iter().flat_map(|choice| &choice.state.warnings));
        value
    }
}

/// The frame that ends streams of chat completions and completions.
pub(crate) fn done() -> Frame {
    Frame::Event {
        name: None,
        data: "[DONE]".into(),
    }
}

fn base(head: &Head, object: &str) -> Value {
    json!({
        "id": format!("chatcmpl-{}", head.id_suffix),
        "object": object,
        "created": head.created,
        "model": head.model,
        "system_fingerprint": null,
    })
}

fn chunk(head: &Head, choice: usize, delta: Value, logprobs: Value, finish_reason: Option<&str>) -> Frame {
    Frame::data(&chunk_value(head, choice, delta, logprobs, finish_reason))
}

fn chunk_value(head: &Head, choice: usize, delta: Value, logprobs: Value, finish_reason: Option<&str>) -> Value {
    let mut value = base(head, "chat.completion.chunk");
    value["choices"] = json!([{"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}]);
    if head.include_usage {
        value["usage"] = Value::Null;
    }
    value
}

fn message(state: &AnswerState) -> Value {
    let text = state.text();
    let reasoning = state.reasoning();
    let calls: Vec<Value> = state
        .calls()
        .map(|call| {
            let function = json!({"name": call.name, "arguments": call.arguments});
            json!({"id": call.id, "type": "function", "function": function})
        })
        .collect();
    let mut message = Map::new();
    message.insert("role".into(), "assistant".into());
    let content = if text.is_empty() && !calls.is_empty() {
        Value::Null
    } else {
        text.into()
    };
    message.insert("content".into(), content);
    message.insert("refusal".into(), Value::Null);
    if !reasoning.is_empty() {
        message.insert("reasoning_content".into(), reasoning.into());
    }
    if !calls.is_empty() {
        message.insert("tool_calls".into(), calls.into());
    }
    message.into()
}

pub(crate) fn finish_reason(state: &AnswerState) -> &'static str {
    match &state.outcome {
        Some(Outcome::ToolCalls) => "tool_calls",
        Some(Outcome::Length | Outcome::Cancelled) => "length",
        Some(Outcome::Stop | Outcome::StopString(_)) | None => "stop",
    }
}

pub(crate) fn usage_json(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_token_count,
        "completion_tokens": usage.answer_token_count,
        "total_tokens": usage.prompt_token_count + usage.answer_token_count,
        "prompt_tokens_details": {"cached_tokens": usage.cached_token_count},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_token_count},
    })
}

fn logprobs_of(head: &Head, state: &AnswerState) -> Value {
    let all = state.blocks.iter().flat_map(|block| match block {
        Block::Text { logprobs, .. } => logprobs.as_slice(),
        Block::Reasoning(_) | Block::Call(_) => &[],
    });
    let all: Vec<TokenLogprob> = all.cloned().collect();
    logprobs_json(head, &all)
}

fn logprobs_json(head: &Head, logprobs: &[TokenLogprob]) -> Value {
    if head.logprob_count.is_none() {
        return Value::Null;
    }
    json!({"content": token_logprobs(head, logprobs), "refusal": null})
}

/// OpenAI's list of tokens with bytes and alternatives.
pub(crate) fn token_logprobs(head: &Head, logprobs: &[TokenLogprob]) -> Value {
    let count = head.logprob_count.unwrap_or(0);
    let entry = |token: u32, logprob: f32| {
        let bytes = head.tokenizer.token_bytes(token);
        json!({
            "token": String::from_utf8_lossy(bytes),
            "logprob": finite(logprob),
            "bytes": bytes,
        })
    };
    let with_top = |logprob: &TokenLogprob| {
        let mut value = entry(logprob.token, logprob.logprob);
        value["top_logprobs"] = logprob
            .top
            .iter()
            .take(count)
            .map(|(token, logprob)| entry(*token, *logprob))
            .collect();
        value
    };
    logprobs.iter().map(with_top).collect()
}

/// JSON has no infinities; OpenAI writes -9999 for what is out of the question.
pub(crate) fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { -9999.0 }
}
