//! Requests in the shapes that clients send, and those that are refused.

mod support;

use std::path::Path;

use cachalot_protocol::{
    AnswerFormat, Call, ErrorKind, Limits, Protocol, ReplayStore, ToolSelection, ToolShape, parse,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::preparer;

fn recorded(name: &str) -> (Protocol, Vec<u8>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/requests");
    let bytes = std::fs::read(folder.join(format!("{name}.json"))).expect("a recorded request");
    let protocol = match name.split('.').next() {
        Some("responses") => Protocol::Responses,
        Some("messages") => Protocol::Messages,
        Some("completions") => Protocol::Completions,
        _ => Protocol::ChatCompletions,
    };
    (protocol, bytes)
}

fn parsed(name: &str) -> Call {
    let (protocol, body) = recorded(name);
    parse(protocol, &body, &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The prompt as people read it.
fn prompt(name: &str) -> String {
    let prepared = preparer().prepare(&parsed(name), &ReplayStore::new(0), "");
    prepared.unwrap_or_else(|error| panic!("{name}: {error}")).text
}

#[test]
fn every_recorded_request_becomes_a_prompt() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/requests");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the corpus is there") {
        let path = entry.expect("an entry").path();
        prompt(path.file_stem().and_then(|name| name.to_str()).expect("a name"));
        count += 1;
    }
    assert!(count >= 12);
}

#[test]
fn codex_is_understood() {
    let call = parsed("responses.codex");
    let dialogue = call.dialogue().expect("a conversation");
    let names: Vec<_> = dialogue
        .tools
        .iter()
        .map(|tool| (tool.definition.name.as_str(), tool.shape))
        .collect();
    assert_eq!(
        names,
        [("shell", ToolShape::Function), ("apply_patch", ToolShape::Custom)]
    );
    assert_eq!(call.ignored.len(), 5, "{:?}", call.ignored);
    assert!(!call.store && !dialogue.parallel_calls);
    let text = prompt("responses.codex");
    let turn = "<｜Assistant｜><think>Hm</think>Looking.\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"shell\">\n\
        <｜DSML｜parameter name=\"command\" string=\"false\">[\"ls\"]</｜DSML｜parameter>\n</｜DSML｜invoke>\n\
        <｜DSML｜invoke name=\"apply_patch\">\n<｜DSML｜parameter name=\"input\" string=\"true\">*** Begin Patch\n*** End Patch\
        </｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls><｜end▁of▁sentence｜>\
        <｜User｜><tool_result>{\"output\":\"a.py\",\"metadata\":{}}</tool_result>\n\n<tool_result>Done!</tool_result>\
        <｜Assistant｜><think>";
    assert!(text.ends_with(turn), "{text}");
    assert_eq!(
        prompt("responses.codex_probe"),
        "<｜begin▁of▁sentence｜><｜Assistant｜><think>"
    );
    assert_eq!(parsed("responses.codex_probe").token_count_max, Some(1));
}

#[test]
fn claude_code_is_understood() {
    let text = prompt("messages.claude_code");
    assert!(text.contains("You are Claude Code.\n\nTools …"));
    // Results come in the order of the calls, not in that of the client.
    assert!(
        text.contains("<tool_result>no such file</tool_result>\n\n<tool_result>a\n\nb</tool_result>"),
        "{text}"
    );
    assert!(text.contains("<think>Hm</think>Looking."));
    let title = prompt("messages.claude_code_title");
    assert!(title.ends_with("<｜User｜>Fix it<｜Assistant｜></think>{"), "{title}");
    let sdk = parsed("messages.sdk");
    let dialogue = sdk.dialogue().expect("a conversation");
    assert_eq!(
        (&dialogue.selection, dialogue.parallel_calls),
        (&ToolSelection::Required, false)
    );
}

#[test]
fn settings_arrive() {
    let call = parsed("chat.sdk");
    assert_eq!(
        (call.answer_count, call.logprob_count, call.token_count_max),
        (2, Some(3), Some(10))
    );
    assert_eq!(
        (call.sampling.seed, &call.sampling.logit_bias),
        (Some(u64::MAX), &vec![(50, -100.0)])
    );
    assert!(call.stream && call.include_usage);
    assert!(matches!(parsed("chat.json_schema").format, AnswerFormat::JsonSchema(_)));
    assert!(matches!(parsed("responses.sdk").format, AnswerFormat::JsonSchema(_)));
    assert_eq!(parsed("responses.sdk").previous_response_id.as_deref(), Some("resp_1"));
    let named = parsed("chat.langchain");
    assert_eq!(
        named.dialogue().expect("a conversation").selection,
        ToolSelection::Among(vec!["weather".into()])
    );
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    use ErrorKind::{InvalidRequest, Unsupported};
    let user = |content: Value| json!([{"role": "user", "content": content}]);
    let image = json!([{"type": "image_url", "image_url": {"url": "data:"}}]);
    let tool = json!([{"type": "function", "function": {"name": "f"}}]);
    let chat: Vec<(Value, ErrorKind, &str)> = vec![
        (
            json!({"messages": user(image)}),
            Unsupported,
            "messages[0].content[0].type",
        ),
        (
            json!({"messages": user(json!([{"type": "input_audio"}]))}),
            Unsupported,
            "messages[0].content[0].type",
        ),
        (json!({"messages": []}), InvalidRequest, "messages"),
        (
            json!({"messages": [{"role": "robot"}]}),
            InvalidRequest,
            "messages[0].role",
        ),
        (json!({"temperature": -1}), InvalidRequest, "temperature"),
        (json!({"temperature": "hot"}), InvalidRequest, "temperature"),
        (json!({"n": 17}), InvalidRequest, "n"),
        (json!({"n": 0}), InvalidRequest, "n"),
        (json!({"best_of": 2}), Unsupported, "best_of"),
        (json!({"functions": [{"name": "f"}]}), Unsupported, "functions"),
        (json!({"modalities": ["text", "audio"]}), Unsupported, "modalities"),
        (
            json!({"logprobs": true, "top_logprobs": 21}),
            InvalidRequest,
            "top_logprobs",
        ),
        (json!({"top_logprobs": 2}), InvalidRequest, "top_logprobs"),
        (json!({"stop": ["a", ""]}), InvalidRequest, "stop"),
        (json!({"stop": vec!["a"; 17]}), InvalidRequest, "stop"),
        (json!({"logit_bias": {"a": 1}}), InvalidRequest, "logit_bias"),
        (json!({"logit_bias": {"1": 101}}), InvalidRequest, "logit_bias.1"),
        (json!({"tool_choice": "required"}), InvalidRequest, "tool_choice"),
        (
            json!({"tools": tool, "tool_choice": {"type": "function", "function": {"name": "g"}}}),
            InvalidRequest,
            "tool_choice",
        ),
        (json!({"tools": [tool[0], tool[0]]}), InvalidRequest, "tools"),
        (
            json!({"response_format": {"type": "xml"}}),
            InvalidRequest,
            "response_format.type",
        ),
        (
            json!({"response_format": {"type": "json_schema"}}),
            InvalidRequest,
            "response_format.json_schema",
        ),
        (json!({"reasoning_effort": "huge"}), InvalidRequest, "reasoning_effort"),
        (json!({"max_tokens": 0}), InvalidRequest, "max_tokens"),
        (json!({"model": null}), InvalidRequest, "model"),
    ];
    for (change, kind, field) in chat {
        let mut body = json!({"model": "m", "messages": user(json!("Hi"))});
        body.as_object_mut()
            .expect("an object")
            .extend(change.as_object().expect("an object").clone());
        refused(Protocol::ChatCompletions, &body, kind, field);
    }
    let message = json!({"model": "m", "max_tokens": 1, "messages": user(json!([{"type": "image"}]))});
    refused(Protocol::Messages, &message, Unsupported, "messages[0].content[0].type");
    let bash = json!([{"type": "bash_20250124", "name": "bash"}]);
    let message = json!({"model": "m", "max_tokens": 1, "messages": user(json!("Hi")), "tools": bash});
    refused(Protocol::Messages, &message, Unsupported, "tools[0].type");
    refused(
        Protocol::Responses,
        &json!({"model": "m", "background": true}),
        Unsupported,
        "background",
    );
    let reference = json!({"model": "m", "input": [{"type": "item_reference", "id": "msg_1"}]});
    refused(Protocol::Responses, &reference, Unsupported, "input[0].type");
    let many = json!({"model": "m", "prompt": ["a", "b"]});
    refused(Protocol::Completions, &many, Unsupported, "prompt");
    refused(
        Protocol::Completions,
        &json!({"model": "m", "prompt": "a", "echo": true}),
        Unsupported,
        "echo",
    );
}

fn refused(protocol: Protocol, body: &Value, kind: ErrorKind, field: &str) {
    let error = parse(protocol, body.to_string().as_bytes(), &Limits::default()).expect_err("refused");
    assert_eq!((error.kind, error.field.as_deref()), (kind, Some(field)), "{body}");
    let sent = error.to_body(protocol);
    let message = sent["error"]["message"].as_str().expect("a message");
    assert!(message.starts_with(field), "{message}");
    match protocol {
        Protocol::Messages => assert_eq!(sent["type"], "error"),
        _ => assert_eq!(sent["error"]["param"], field),
    }
}

#[test]
fn bounds_hold() {
    let limits = Limits {
        message_count: 2,
        text_bytes: 8,
        schema_bytes: 40,
        tool_count: 1,
        ..Limits::default()
    };
    let ask = |body: Value| parse(Protocol::ChatCompletions, body.to_string().as_bytes(), &limits);
    let hi = json!({"role": "user", "content": "Hi"});
    assert!(ask(json!({"model": "m", "messages": [hi, hi]})).is_ok());
    for body in [
        json!({"model": "m", "messages": [hi, hi, hi]}),
        json!({"model": "m", "messages": [{"role": "user", "content": "123456789"}]}),
        json!({"model": "m", "messages": [hi], "tools": [{"function": {"name": "f"}}, {"function": {"name": "g"}}]}),
        json!({"model": "m", "messages": [hi], "tools": [{"function": {"name": "f", "parameters": {"x": "0123456789012345678901234567890123456789"}}}]}),
        json!({"model": "m", "messages": [hi], "user": "u".repeat(600)}),
    ] {
        assert!(ask(body.clone()).is_err(), "{body}");
    }
    for depth in [65, 100_000] {
        let deep = format!("{{\"model\": {}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(Protocol::Messages, deep.as_bytes(), &Limits::default()).is_err());
    }
}

/// Bodies near to right ones: recorded requests with a value swapped.
fn damaged() -> impl Strategy<Value = (Protocol, Vec<u8>)> {
    let names = [
        "responses.codex",
        "messages.claude_code",
        "chat.sdk",
        "chat.langchain",
        "completions.sdk",
    ];
    let values = prop_oneof![
        Just("null"),
        Just("0"),
        Just("-1"),
        Just("1e400"),
        Just("\"\""),
        Just("[]"),
        Just("{}"),
        Just("[null]"),
        Just("{\"type\": \"text\"}"),
        Just("\"\\ud800\""),
        Just("]"),
    ];
    (
        proptest::sample::select(names.to_vec()),
        any::<proptest::sample::Index>(),
        values,
    )
        .prop_map(|(name, place, value)| {
            let (protocol, bytes) = recorded(name);
            let text = String::from_utf8(bytes).expect("UTF-8");
            let starts: Vec<usize> = text.match_indices(": ").map(|(at, _)| at + 2).collect();
            let start = starts[place.index(starts.len())];
            let end = text[start..].find([',', '\n']).map_or(text.len(), |len| start + len);
            (
                protocol,
                format!("{}{value}{}", &text[..start], &text[end..]).into_bytes(),
            )
        })
}

proptest! {
    #[test]
    fn no_body_makes_a_parser_panic((protocol, body) in damaged()) {
        if let Ok(call) = parse(protocol, &body, &Limits::default()) {
            let _ = preparer().prepare(&call, &ReplayStore::new(0), "");
        }
    }

    #[test]
    fn no_bytes_make_a_parser_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        for protocol in [Protocol::ChatCompletions, Protocol::Responses, Protocol::Messages, Protocol::Completions] {
            let _ = parse(protocol, &body, &Limits::default());
        }
    }
}
