//! Odd model outputs through all protocols, in any cut into tokens, streaming and not.

mod support;

use cachalot_protocol::{EndReason, Protocol};
use serde::Deserialize;
use serde_json::Value;
use support::assemble::{self, Seen};
use support::{request, run, tokenizer, tokens};

/// A line of `tools/protocol/answers.py`.
#[derive(Deserialize)]
struct Case {
    name: String,
    thinking: bool,
    answer: String,
    /// Whether the token limit ends it.
    cut: bool,
    reasoning: String,
    /// `None`: anything but nothing.
    text: Option<String>,
    /// Arguments `None`: anything that is no JSON object.
    calls: Vec<(String, Option<String>)>,
    end: String,
    /// `None`: any, but at least one.
    warnings: Option<Vec<String>>,
}

fn cases() -> Vec<Case> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/answers.jsonl");
    let lines = std::fs::read_to_string(path).expect("the corpus is there");
    lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("a case"))
        .collect()
}

const PROTOCOLS: [Protocol; 3] = [Protocol::ChatCompletions, Protocol::Responses, Protocol::Messages];

/// How the protocol says `end`.
fn spelled_end(protocol: Protocol, end: &str) -> &str {
    match (protocol, end) {
        (Protocol::ChatCompletions | Protocol::Completions, end) => end,
        (Protocol::Responses, "length") => "incomplete",
        (Protocol::Responses, _) => "completed",
        (Protocol::Messages, "length") => "max_tokens",
        (Protocol::Messages, "tool_calls") => "tool_use",
        (Protocol::Messages, _) => "end_turn",
    }
}

/// Runs `ids` and checks that stream and body agree.
fn seen(case: &Case, protocol: Protocol, ids: &[u32]) -> Seen {
    let end = if case.cut { EndReason::Length } else { EndReason::Stop };
    let (frames, streamed) = run(protocol, &request(protocol, case.thinking, true), ids, end);
    let (none, encoder) = run(protocol, &request(protocol, case.thinking, false), ids, end);
    assert!(none.is_empty());
    let body = encoder.body();
    let mut final_object = streamed.body();
    if protocol == Protocol::Responses {
        assert_eq!(final_object, body);
    }
    final_object["stream"] = Value::Null;
    let seen = assemble::body(protocol, &body);
    assert_eq!(
        assemble::stream(protocol, &frames),
        seen,
        "{}: stream and body differ",
        case.name
    );
    let codes: Vec<&str> = encoder.warnings().map(|warning| warning.code).collect();
    match &case.warnings {
        Some(warnings) => assert_eq!(&codes, warnings, "warnings of {}", case.name),
        None => assert!(!codes.is_empty(), "warnings of {}", case.name),
    }
    assert_eq!(body["warnings"].as_array().map_or(0, Vec::len), codes.len());
    seen
}

fn check(case: &Case, protocol: Protocol, seen: &Seen) {
    let name = format!("{} by {protocol:?}", case.name);
    assert_eq!(seen.reasoning, case.reasoning, "reasoning of {name}");
    match &case.text {
        Some(text) => assert_eq!(&seen.text, text, "text of {name}"),
        None => assert!(!seen.text.is_empty(), "text of {name}"),
    }
    assert!(
        !seen.text.contains("DSML") && !seen.reasoning.contains("DSML"),
        "markup in {name}"
    );
    assert_eq!(seen.end, spelled_end(protocol, &case.end), "end of {name}");
    let names: Vec<&String> = seen.calls.iter().map(|(name, _)| name).collect();
    let expected: Vec<&String> = case.calls.iter().map(|(name, _)| name).collect();
    assert_eq!(names, expected, "calls of {name}");
    for ((_, arguments), (_, expected)) in seen.calls.iter().zip(&case.calls) {
        let parse = |text: &str| serde_json::from_str::<Value>(text).ok();
        let whole = expected.as_deref().and_then(parse);
        match (protocol, whole) {
            // A whole call is the same in all protocols, down to the order of its arguments.
            (Protocol::Messages, Some(whole)) => assert_eq!(arguments, &whole.to_string(), "arguments of {name}"),
            (_, Some(_)) => assert_eq!(Some(arguments), expected.as_ref(), "arguments of {name}"),
            // What is not whole is no JSON, or has an argument that says so, unless the limit says enough.
            (Protocol::Messages, None) if case.cut => assert!(parse(arguments).is_some()),
            (Protocol::Messages, None) => assert!(arguments.contains("malformed_tool_call"), "arguments of {name}"),
            (_, None) => {
                assert_eq!(parse(arguments), None, "arguments of {name}");
                if let Some(expected) = expected {
                    assert_eq!(arguments, expected, "arguments of {name}");
                }
            }
        }
    }
}

#[test]
fn odd_answers_lose_no_call_and_show_no_markup() {
    let cases = cases();
    assert!(cases.len() >= 40);
    for case in &cases {
        for protocol in PROTOCOLS {
            check(case, protocol, &seen(case, protocol, &tokens(&case.answer)));
        }
    }
}

/// Tokens of `answer` whose plain text is cut into pieces by `pieces`.
fn cut(answer: &str, pieces: impl Fn(usize, &str) -> Vec<String>) -> Vec<u32> {
    let tokenizer = tokenizer();
    let mut ids = Vec::new();
    let mut offset = 0;
    for run in tokens(answer).chunk_by(|a, b| !tokenizer.is_special(*a) && !tokenizer.is_special(*b)) {
        let text = tokenizer.decode(run);
        if tokenizer.is_special(run[0]) {
            ids.extend_from_slice(run);
        } else {
            for piece in pieces(offset, &text) {
                ids.extend(tokenizer.encode_plain(&piece).expect("plain text"));
            }
        }
        offset += text.len();
    }
    ids
}

#[test]
fn cuts_into_tokens_do_not_matter() {
    let usage_apart = |mut seen: Seen| {
        seen.usage = Value::Null;
        seen
    };
    for case in cases().iter().filter(|case| case.answer.len() < 2000) {
        let characters = |_: usize, text: &str| text.chars().map(String::from).collect();
        for protocol in PROTOCOLS {
            let whole = usage_apart(seen(case, protocol, &tokens(&case.answer)));
            let single = cut(&case.answer, characters);
            assert_eq!(
                usage_apart(seen(case, protocol, &single)),
                whole,
                "{} by characters",
                case.name
            );
            let bytes = single.iter().flat_map(|id| single_bytes(*id)).collect::<Vec<u32>>();
            assert_eq!(
                usage_apart(seen(case, protocol, &bytes)),
                whole,
                "{} by bytes",
                case.name
            );
        }
        // Each single cut, in the protocol with the most states; each is a token border somewhere.
        for at in (1..case.answer.len()).filter(|at| case.answer.is_char_boundary(*at)) {
            let pieces = |offset: usize, text: &str| match at.checked_sub(offset) {
                Some(at) if at > 0 && at < text.len() => vec![text[..at].to_owned(), text[at..].to_owned()],
                _ => vec![text.to_owned()],
            };
            let protocol = PROTOCOLS[at % 3];
            let whole = usage_apart(seen(case, protocol, &tokens(&case.answer)));
            let cut = cut(&case.answer, pieces);
            assert_eq!(
                usage_apart(seen(case, protocol, &cut)),
                whole,
                "{} cut at {at}",
                case.name
            );
        }
    }
}

/// The tokens of single bytes that spell `id`.
fn single_bytes(id: u32) -> Vec<u32> {
    let tokenizer = tokenizer();
    if tokenizer.is_special(id) {
        return vec![id];
    }
    let of = |byte: &u8| {
        let found = (0..tokenizer.vocabulary_size() as u32).find(|id| tokenizer.token_bytes(*id) == [*byte]);
        found.expect("every byte has a token")
    };
    tokenizer.token_bytes(id).iter().map(of).collect()
}
