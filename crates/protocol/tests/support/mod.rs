//! What the tests share: the built-in model's tokenizer, and answers run through a protocol.

#![allow(dead_code)]

pub mod assemble;

use std::sync::LazyLock;

use cachalot_chat::{PromptEncoder, PromptFormat, Thinking, Tokenizer};
use cachalot_protocol::{
    AnswerEncoder, AnswerOptions, Call, EndReason, Frame, Limits, PrepareOptions, Prepared, Preparer, Protocol,
    ReplayStore, parse,
};
use serde_json::{Value, json};

pub const EOS: &str = "<｜end▁of▁sentence｜>";

/// The built-in model's tokenizer.
pub fn tokenizer() -> Tokenizer {
    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny/tokenizer.json");
        let json = std::fs::read(path).expect("the built-in model has a tokenizer");
        Tokenizer::from_bytes(&json, 2048).expect("the built-in tokenizer is valid")
    });
    TOKENIZER.clone()
}

pub fn preparer() -> Preparer {
    let encoder = PromptEncoder::new(tokenizer(), PromptFormat::V4).expect("the tokenizer has the format's tokens");
    let options = PrepareOptions {
        context_token_count: 1 << 20,
        thinking: Thinking::On,
    };
    Preparer::new(encoder, options)
}

pub fn call(protocol: Protocol, body: &Value) -> Call {
    parse(protocol, body.to_string().as_bytes(), &Limits::default()).expect("a valid request")
}

pub fn prepared(call: &Call) -> Prepared {
    preparer()
        .prepare(call, &ReplayStore::new(0), "")
        .expect("a valid prompt")
}

pub fn encoder(call: &Call, prepared: &Prepared) -> AnswerEncoder {
    let options = AnswerOptions {
        id_suffix: "0123456789abcdef".into(),
        created: 1_750_000_000,
        model: call.model.clone(),
    };
    AnswerEncoder::new(call, prepared, &tokenizer(), options)
}

/// The tokens of an answer whose special tokens are spelled out.
pub fn tokens(answer: &str) -> Vec<u32> {
    tokenizer().encode_prompt(answer).expect("the answer encodes")
}

/// All frames, and the encoder afterwards.
pub fn run(protocol: Protocol, body: &Value, tokens: &[u32], end: EndReason) -> (Vec<Frame>, AnswerEncoder) {
    let call = call(protocol, body);
    let prepared = prepared(&call);
    let mut encoder = encoder(&call, &prepared);
    let mut frames = encoder.start(0);
    for choice in 0..call.answer_count {
        for token in tokens {
            frames.extend(encoder.token(choice, *token, Some(-0.5), &[(*token, -0.5), (5, -3.0)]));
        }
        frames.extend(encoder.finish(choice, end));
    }
    assert!(encoder.is_done());
    (frames, encoder)
}

/// The data of frames that are JSON.
pub fn data(frames: &[Frame]) -> Vec<Value> {
    let data = frames.iter().filter_map(|frame| match frame {
        Frame::Event { data, .. } if data != "[DONE]" => Some(data),
        Frame::Event { .. } | Frame::Comment(_) => None,
    });
    data.map(|data| serde_json::from_str(data).expect("JSON in every frame"))
        .collect()
}

/// A request that offers the tools `f` and `g`.
pub fn request(protocol: Protocol, thinking: bool, stream: bool) -> Value {
    let message = json!([{"role": "user", "content": "Hi"}]);
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let tools = ["f", "g"].iter();
    match protocol {
        Protocol::ChatCompletions | Protocol::Completions => json!({
            "model": "m", "messages": message, "stream": stream, "stream_options": {"include_usage": true},
            "tools": tools.map(|name| json!({"type": "function", "function": {"name": name, "parameters": schema}})).collect::<Vec<_>>(),
            "reasoning_effort": if thinking { "high" } else { "none" },
        }),
        Protocol::Responses => json!({
            "model": "m", "input": message, "stream": stream,
            "tools": tools.map(|name| json!({"type": "function", "name": name, "parameters": schema})).collect::<Vec<_>>(),
            "reasoning": {"effort": if thinking { "high" } else { "none" }},
        }),
        Protocol::Messages => json!({
            "model": "m", "messages": message, "stream": stream, "max_tokens": 1000,
            "tools": tools.map(|name| json!({"name": name, "input_schema": schema})).collect::<Vec<_>>(),
            "thinking": {"type": if thinking { "enabled" } else { "disabled" }, "budget_tokens": 1024},
        }),
    }
}
