//! The bodies of requests, and answers made of any tokens.

use std::sync::LazyLock;

use cachalot_chat::{PromptEncoder, PromptFormat, Thinking, Tokenizer};
use cachalot_protocol::{
    AnswerEncoder, AnswerOptions, Call, EndReason, Limits, PrepareOptions, Prepared, Preparer, Protocol, ReplayStore,
    detokenize, parse, parse_tokenize, tokenize,
};
use serde_json::json;

#[path = "../../crates/protocol/tests/support/assemble.rs"]
mod assemble;

const PROTOCOLS: [Protocol; 4] =
    [Protocol::ChatCompletions, Protocol::Responses, Protocol::Messages, Protocol::Completions];

static PREPARER: LazyLock<Preparer> = LazyLock::new(|| {
    let json = include_bytes!("../../models/tiny/tokenizer.json");
    let tokenizer = Tokenizer::from_bytes(json, 2048).expect("the built-in tokenizer is valid");
    let encoder = PromptEncoder::new(tokenizer, PromptFormat::V4).expect("it has the format's tokens");
    let options = PrepareOptions {
        context_token_count: 1 << 16,
        thinking: Thinking::On,
    };
    Preparer::new(encoder, options)
});

/// A body never makes a parser panic, and what it accepts can be prepared, or is refused with a body of its protocol.
pub fn request(data: &[u8]) {
    let limits = Limits::default();
    let store = ReplayStore::new(0);
    for protocol in PROTOCOLS {
        let prepared = parse(protocol, data, &limits).and_then(|call| PREPARER.prepare(&call, &store, ""));
        if let Err(error) = prepared {
            assert!((400..600).contains(&error.status()) && error.to_body(protocol).is_object());
        }
    }
    if let Ok(request) = parse_tokenize(data, &limits) {
        let _ = tokenize(&request, &PREPARER, 1 << 16);
    }
    let _ = detokenize(data, &limits, PREPARER.encoder().tokenizer());
}

/// Calls of each protocol, with thinking and without, streaming; and their prompts.
static CALLS: LazyLock<Vec<(Call, Prepared)>> = LazyLock::new(|| {
    let mut calls = Vec::new();
    for protocol in PROTOCOLS {
        for thinks in [true, false] {
            let body = body(protocol, thinks).to_string();
            let call = parse(protocol, body.as_bytes(), &Limits::default()).expect("a valid request");
            let prepared = PREPARER.prepare(&call, &ReplayStore::new(0), "").expect("a valid prompt");
            calls.push((call, prepared));
        }
    }
    calls
});

fn body(protocol: Protocol, thinks: bool) -> serde_json::Value {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let effort = if thinks { "high" } else { "none" };
    let stop = json!(["END", "日本", "\n\n\n"]);
    match protocol {
        Protocol::ChatCompletions => json!({
            "model": "m", "messages": messages, "stream": true, "stream_options": {"include_usage": true}, "stop": stop,
            "tools": [{"type": "function", "function": {"name": "f"}}], "reasoning_effort": effort, "logprobs": true,
        }),
        Protocol::Responses => json!({
            "model": "m", "input": "Hi", "stream": true, "reasoning": {"effort": effort}, "stop": stop,
            "tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "g"}],
        }),
        Protocol::Messages => json!({
            "model": "m", "messages": messages, "max_tokens": 9, "stream": true, "stop_sequences": stop,
            "thinking": {"type": if thinks { "enabled" } else { "disabled" }},
            "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        }),
        Protocol::Completions => json!({
            "model": "m", "prompt": "Hi", "stream": true, "stream_options": {"include_usage": true}, "logprobs": 2,
        }),
    }
}

/// Pieces of answers that are worth more than single tokens.
const PIECES: &[&str] = &[
    "<think>", "</think>", "<｜DSML｜tool_calls>\n", "</｜DSML｜tool_calls>", "<｜DSML｜invoke name=\"f\">\n",
    "<｜DSML｜invoke name=\"g\">\n", "</｜DSML｜invoke>\n", "<｜DSML｜parameter name=\"input\" string=\"true\">",
    "<｜DSML｜parameter name=\"n\" string=\"false\">", "</｜DSML｜parameter>\n", "｜DSML｜", "<", "</", "\"", "\n\n",
    "[1, {\"a\": \"b\"}]", "EN", "D", "<｜User｜>", "<｜end▁of▁sentence｜>", "日", "本🤭", "\\", "Hm ",
];

static PIECE_TOKENS: LazyLock<Vec<Vec<u32>>> = LazyLock::new(|| {
    let tokenizer = PREPARER.encoder().tokenizer();
    let encode = |piece: &&str| tokenizer.encode_prompt(piece).expect("pieces encode");
    PIECES.iter().map(encode).collect()
});

/// Whatever is sampled, a stream ends once, says what the body says, and shows no markup in text.
///
/// The first byte chooses the protocol, the second how the answer ends; of the others those from 230 on are pieces, and
/// others with their successor a token.
pub fn answer(data: &[u8]) {
    let [kind, end, data @ ..] = data else { return };
    let (call, prepared) = &CALLS[usize::from(*kind) % CALLS.len()];
    let tokenizer = PREPARER.encoder().tokenizer();
    let mut ids = Vec::new();
    let mut bytes = data.iter();
    while let Some(&byte) = bytes.next() {
        match byte.checked_sub(230) {
            Some(piece) => ids.extend(&PIECE_TOKENS[usize::from(piece) % PIECES.len()]),
            None => ids.push(u32::from(byte) << 8 & 0x7FF | u32::from(*bytes.next().unwrap_or(&0))),
        }
    }
    let options = AnswerOptions {
        id_suffix: "1".into(),
        created: 0,
        model: "m".into(),
    };
    let mut encoder = AnswerEncoder::new(call, prepared, tokenizer, options);
    let mut frames = encoder.start(3);
    for id in ids {
        frames.extend(encoder.token(0, id, Some(-1.0), &[(id, -1.0), (0, f32::NEG_INFINITY)]));
    }
    frames.extend(encoder.finish(0, [EndReason::Stop, EndReason::Length, EndReason::Cancelled][usize::from(*end) % 3]));
    assert!(encoder.is_done() && encoder.finish(0, EndReason::Stop).is_empty());
    let seen = assemble::body(call.protocol, &encoder.body());
    let streamed = assemble::stream(call.protocol, &frames);
    assert_eq!(streamed.text, seen.text);
    assert_eq!(streamed.reasoning, seen.reasoning);
    assert_eq!(streamed.calls.len(), seen.calls.len());
    // A client may make more of unfinished arguments than we do.
    let whole = |arguments: &str| serde_json::from_str::<serde_json::Value>(arguments).is_ok();
    for (streamed, seen) in streamed.calls.iter().zip(&seen.calls) {
        assert!(streamed == seen || call.protocol == Protocol::Messages && whole(&seen.1));
    }
    assert_eq!((streamed.end, streamed.usage), (seen.end, seen.usage));
    if call.protocol != Protocol::Completions {
        assert!(!seen.text.contains("｜DSML｜") && !seen.reasoning.contains("｜DSML｜"));
    }
}
