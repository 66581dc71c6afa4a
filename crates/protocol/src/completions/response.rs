//! Answers to chunks and bodies.

use serde_json::{Map, Value, json};

use crate::answer::block::{Block, Piece, TokenLogprob};
use crate::answer::choice::Choice;
use crate::answer::{Head, Writer};
use crate::chat_completions::response::{done, finish_reason, finite, usage_json};
use crate::error::ProtocolError;
use crate::frame::Frame;

/// Writes completions.
#[derive(Debug)]
pub(crate) struct CompletionWriter {
    /// For each answer, how many characters its log-probabilities have covered.
    offsets: Vec<usize>,
}

impl CompletionWriter {
    pub(crate) fn new(answer_count: usize) -> Self {
        Self {
            offsets: vec![0; answer_count],
        }
    }
}

impl Writer for CompletionWriter {
    fn start(&mut self, _head: &Head, _choices: &[Choice]) -> Vec<Frame> {
        Vec::new()
    }

    fn piece(&mut self, head: &Head, _choices: &[Choice], choice: usize, piece: &Piece) -> Vec<Frame> {
        match piece {
            Piece::Delta { text, logprobs, .. } => {
                let logprobs = classic_logprobs(head, logprobs, &mut self.offsets[choice]);
                vec![Frame::data(&chunk(head, choice, text, logprobs, None))]
            }
            Piece::Started { .. } | Piece::Ended { .. } => Vec::new(),
        }
    }

    fn choice_over(&mut self, head: &Head, choices: &[Choice], choice: usize) -> Vec<Frame> {
        let reason = finish_reason(&choices[choice].state);
        vec![Frame::data(&chunk(head, choice, "", Value::Null, Some(reason)))]
    }

    fn end(&mut self, head: &Head, choices: &[Choice]) -> Vec<Frame> {
        let mut frames = Vec::new();
        if head.include_usage {
            let mut value = base(head);
            value["choices"] = json!([]);
            value["usage"] = usage_json(&crate::answer::usage(head, choices));
            frames.push(Frame::data(&value));
        }
        frames.push(done());
        frames
    }

    fn fail(&mut self, _head: &Head, _choices: &[Choice], error: &ProtocolError) -> Vec<Frame> {
        vec![Frame::data(&error.to_body(crate::Protocol::Completions)), done()]
    }

    fn body(&self, head: &Head, choices: &[Choice]) -> Value {
        let choice = |(index, choice): (usize, &Choice)| {
            let mut text = String::new();
            let mut all: Vec<TokenLogprob> = Vec::new();
            for block in &choice.state.blocks {
                if let Block::Text { text: more, logprobs } = block {
                    text.push_str(more);
                    all.extend(logprobs.iter().cloned());
                }
            }
            json!({
                "index": index,
                "text": text,
                "logprobs": classic_logprobs(head, &all, &mut 0),
                "finish_reason": finish_reason(&choice.state),
            })
        };
        let mut value = base(head);
        value["choices"] = choices.iter().enumerate().map(choice).collect();
        value["usage"] = usage_json(&crate::answer::usage(head, choices));
        value
    }
}

fn base(head: &Head) -> Value {
    json!({
        "id": format!("cmpl-{}", head.id_suffix),
        "object": "text_completion",
        "created": head.created,
        "model": head.model,
        "system_fingerprint": null,
    })
}

fn chunk(head: &Head, choice: usize, text: &str, logprobs: Value, finish_reason: Option<&str>) -> Value {
    let mut value = base(head);
    value["choices"] = json!([{"index": choice, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}]);
    if head.include_usage {
        value["usage"] = Value::Null;
    }
    value
}

/// The lists of the old format. `offset` counts the characters of the tokens so far, of cut characters a part each.
fn classic_logprobs(head: &Head, logprobs: &[TokenLogprob], offset: &mut usize) -> Value {
    let Some(count) = head.logprob_count else {
        return Value::Null;
    };
    let text = |token: u32| String::from_utf8_lossy(head.tokenizer.token_bytes(token)).into_owned();
    let (mut tokens, mut values, mut tops, mut offsets) = (vec![], vec![], vec![], vec![]);
    for logprob in logprobs {
        let token = text(logprob.token);
        offsets.push(*offset);
        *offset += token.chars().count();
        tokens.push(token);
        values.push(finite(logprob.logprob));
        let top = logprob.top.iter().take(count);
        let top: Map<String, Value> = top
            .map(|(token, logprob)| (text(*token), finite(*logprob).into()))
            .collect();
        tops.push(Value::Object(top));
    }
    json!({"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets})
}
