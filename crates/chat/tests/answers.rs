//! Answers to events: against DeepSeek's own parser, in any cut, and out of format.

mod support;

use cachalot_chat::{
    Answer, AnswerParser, AnswerStart, Ending, Event, FinishReason, Irregularity, Message, Tokenizer, message,
};
use proptest::prelude::*;
use serde::Deserialize;

const EOS: &str = "<｜end▁of▁sentence｜>";

/// The events of `ids`, then of `ending` if the answer is not over.
fn events(tokenizer: &Tokenizer, start: AnswerStart, ids: &[u32], ending: Ending) -> Vec<Event> {
    let mut parser = AnswerParser::new(tokenizer, start);
    let mut events: Vec<Event> = ids.iter().flat_map(|&id| parser.push(id)).collect();
    events.extend(parser.finish(ending));
    assert!(parser.is_over());
    assert!(matches!(events.last(), Some(Event::Finish(_))));
    events
}

/// Parses `answer`, whose special tokens are spelled out.
fn parse(start: AnswerStart, answer: &str) -> Answer {
    let tokenizer = support::tokenizer();
    let ids = tokenizer.encode_prompt(answer).expect("the answer encodes");
    collect(&events(&tokenizer, start, &ids, Ending::Length))
}

fn collect(events: &[Event]) -> Answer {
    let mut answer = Answer::default();
    answer.extend(events.iter().cloned());
    answer
}

/// Joins neighbouring pieces of the same text.
fn joined(events: Vec<Event>) -> Vec<Event> {
    let mut joined: Vec<Event> = Vec::new();
    for event in events {
        match (joined.last_mut(), event) {
            (Some(Event::Text(text)), Event::Text(delta)) => text.push_str(&delta),
            (Some(Event::Reasoning(text)), Event::Reasoning(delta)) => text.push_str(&delta),
            (
                Some(Event::ToolCallArguments { index, delta: text }),
                Event::ToolCallArguments { index: next, delta },
            ) if *index == next => {
                text.push_str(&delta);
            }
            (_, event) => joined.push(event),
        }
    }
    joined
}

#[derive(Deserialize)]
struct Case {
    name: String,
    thinking: bool,
    ids: Vec<u32>,
    reasoning: String,
    text: String,
    tool_calls: Vec<(String, String)>,
    finish: String,
}

#[test]
fn answers_are_read_as_by_deepseeks_package() {
    let tokenizer = support::tokenizer();
    for mut case in support::cases::<Case>("answers.jsonl") {
        let start = if case.thinking {
            AnswerStart::Reasoning
        } else {
            AnswerStart::Text
        };
        case.ids.push(tokenizer.eos_id());
        let events = events(&tokenizer, start, &case.ids, Ending::Length);
        let answer = collect(&events);
        assert_eq!(answer.reasoning, case.reasoning, "reasoning of {}", case.name);
        assert_eq!(answer.text, case.text, "text of {}", case.name);
        let calls: Vec<_> = answer
            .tool_calls
            .iter()
            .map(|call| (call.name.clone(), call.arguments.clone()))
            .collect();
        assert_eq!(calls, case.tool_calls, "tool calls of {}", case.name);
        let finish = if case.finish == "stop" {
            FinishReason::Stop
        } else {
            FinishReason::ToolCalls
        };
        assert_eq!(answer.finish, Some(finish), "end of {}", case.name);
        for (index, call) in answer.tool_calls.iter().enumerate() {
            let deltas = events.iter().filter_map(|event| match event {
                Event::ToolCallArguments { index: of, delta } if *of == index => Some(delta.as_str()),
                _ => None,
            });
            assert_eq!(deltas.collect::<String>(), call.arguments, "pieces of {}", case.name);
        }
    }
}

fn call(name: &str, parameters: &str) -> String {
    format!("<｜DSML｜invoke name=\"{name}\">\n{parameters}</｜DSML｜invoke>\n")
}

fn block(calls: &str) -> String {
    format!("\n\n<｜DSML｜tool_calls>\n{calls}</｜DSML｜tool_calls>")
}

const CITY: &str = "<｜DSML｜parameter name=\"city\" string=\"true\">Oslo</｜DSML｜parameter>\n";

/// An answer that leaves the format, and what becomes of it: start, answer, reasoning, text, calls, irregularities, end.
type Irregular = (
    AnswerStart,
    String,
    &'static str,
    &'static str,
    Vec<&'static str>,
    Vec<Irregularity>,
    FinishReason,
);

#[test]
fn irregular_answers_lose_nothing_in_silence() {
    use AnswerStart::{Reasoning, Text, ToolCalls};
    use Irregularity::*;
    let skipped = |raw: &str| Skipped { raw: raw.into() };
    let cut = |index, raw: &str| ToolCallCut { index, raw: raw.into() };
    let malformed = |index, raw: &str| ToolCallMalformed { index, raw: raw.into() };
    let city = || call("f", CITY);
    let oslo = r#"f{"city": "Oslo"}"#;
    #[rustfmt::skip]
    let cases: Vec<Irregular> = vec![
        // Reasoning that is not closed.
        (Reasoning, format!("Hm{}{EOS}", block(&city())), "Hm", "", vec![oslo], vec![ToolCallInReasoning], FinishReason::ToolCalls),
        (Reasoning, format!("Hm{EOS}"), "Hm", "", vec![], vec![ReasoningNotClosed], FinishReason::Stop),
        (Reasoning, "Hm\n<".into(), "Hm\n<", "", vec![], vec![ReasoningNotClosed], FinishReason::Length),
        // Markers twice or where they mean nothing.
        (Reasoning, format!("<think>Hm</think></think>Yes{EOS}"), "Hm", "Yes", vec![], vec![skipped("<think>"), skipped("</think>")], FinishReason::Stop),
        (Text, format!("<think>Hm</think>Yes{EOS}"), "Hm", "Yes", vec![], vec![], FinishReason::Stop),
        (Text, format!("Write <think>x</think> so.</think>{EOS}"), "", "Write <think>x</think> so.", vec![], vec![skipped("</think>")], FinishReason::Stop),
        (Text, format!("Yes<｜User｜>And{EOS}"), "", "Yes", vec![], vec![ForeignTurn { marker: "<｜User｜>".into() }], FinishReason::Stop),
        (Text, format!("{}{}Done{EOS}", block(&city()), block(&city())), "", "Done", vec![oslo, oslo], vec![], FinishReason::ToolCalls),
        (Text, format!("{}\n</｜DSML｜tool_calls>{EOS}", block(&city())), "", "", vec![oslo], vec![malformed(None, "</｜DSML｜tool_calls>")], FinishReason::ToolCalls),
        (Text, format!("{}{EOS}", block(&format!("{}<｜DSML｜tool_calls>\n</think>", city()))), "", "", vec![oslo], vec![skipped("</think>")], FinishReason::ToolCalls),
        // Cut by the token limit.
        (Text, block(&city())[..block(&city()).len() - "</｜DSML｜tool_calls>".len()].into(), "", "", vec![oslo], vec![], FinishReason::Length),
        (Text, format!("Now\n\n<｜DSML｜tool_calls>\n{}<｜DSML｜invoke name=\"g\">\n<｜DSML｜parameter name=\"p\" string=\"true\">Os", city()),
            "", "Now", vec![oslo], vec![cut(Some(1), "\n<｜DSML｜invoke name=\"g\">\n<｜DSML｜parameter name=\"p\" string=\"true\">Os")], FinishReason::Length),
        (Text, "<｜DSML｜tool_calls>\n<｜DSML｜inv".into(), "", "", vec![], vec![cut(None, "<｜DSML｜tool_calls>\n<｜DSML｜inv")], FinishReason::Length),
        (Text, "<｜DSML｜".into(), "", "", vec![], vec![cut(None, "<｜DSML｜")], FinishReason::Length),
        (ToolCalls, "<｜DSML｜invoke name=\"f\">\n".into(), "", "", vec![], vec![cut(Some(0), "<｜DSML｜invoke name=\"f\">\n")], FinishReason::Length),
        // Ended by the model with tags missing.
        (Text, format!("<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n{CITY}{EOS}"), "", "", vec![oslo], vec![], FinishReason::ToolCalls),
        (Text, format!("<｜DSML｜invoke name=\"f\">\n{CITY}</｜DSML｜tool_calls>{EOS}"), "", "", vec![oslo], vec![], FinishReason::ToolCalls),
        (Text, format!("{}{EOS}", block(&format!("<｜DSML｜invoke name=\"g\">\n{}", city()))), "", "", vec!["g{}", oslo], vec![], FinishReason::ToolCalls),
        (Text, format!("<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"p\" string=\"true\">Os{EOS}"),
            "", "", vec![], vec![cut(Some(0), "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"p\" string=\"true\">Os")], FinishReason::Stop),
        // Markup that makes no call.
        (Text, format!("A{}B{EOS}", block("")), "", "AB", vec![], vec![malformed(None, "<｜DSML｜tool_calls>\n</｜DSML｜tool_calls>")], FinishReason::Stop),
        (Reasoning, format!("A<｜DSML｜foo>B</think>C{EOS}"), "AB", "C", vec![], vec![malformed(None, "<｜DSML｜foo>")], FinishReason::Stop),
        (Text, format!("{}{EOS}", block(&format!("and {}", city()))), "", "", vec![oslo], vec![skipped("\nand ")], FinishReason::ToolCalls),
        (Text, format!("{}{EOS}", block(&call("f", "<｜DSML｜parameter name=\"city\" string=\"true\" Oslo</｜DSML｜parameter>\n"))),
            "", "", vec![], vec![malformed(Some(0), "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"city\" string=\"true\" Oslo</｜DSML｜parameter>\n</｜DSML｜invoke>")], FinishReason::Stop),
        // Values.
        (Text, format!("{}{EOS}", block(&call("f", "<｜DSML｜parameter name=\"n\" string=\"false\">Oslo</｜DSML｜parameter>\n"))),
            "", "", vec![r#"f{"n": "Oslo"}"#], vec![ValueNotJson { index: 0, parameter: "n".into(), value: "Oslo".into() }], FinishReason::ToolCalls),
        (Text, format!("{}{EOS}", block(&call("f", "<｜DSML｜parameter name=\"n\">[1]</｜DSML｜parameter>\n"))), "", "", vec![r#"f{"n": [1]}"#], vec![], FinishReason::ToolCalls),
        (Text, format!("{}{EOS}", block(&call("f", "<｜DSML｜parameter name=\"a\" string=\"true\"><think></think><｜DSML｜x></</｜DSML｜parameter>\n"))),
            "", "", vec![r#"f{"a": "<think></think><｜DSML｜x></"}"#], vec![], FinishReason::ToolCalls),
    ];
    for (start, answer, reasoning, text, calls, irregularities, finish) in cases {
        let parsed = parse(start, &answer);
        assert_eq!(parsed.reasoning, reasoning, "reasoning of {answer:?}");
        assert_eq!(parsed.text, text, "text of {answer:?}");
        let parsed_calls: Vec<String> = parsed
            .tool_calls
            .iter()
            .map(|call| format!("{}{}", call.name, call.arguments))
            .collect();
        assert_eq!(parsed_calls, calls, "calls of {answer:?}");
        assert_eq!(parsed.irregularities, irregularities, "irregularities of {answer:?}");
        assert_eq!(parsed.finish, Some(finish), "end of {answer:?}");
    }
}

#[test]
fn markers_spelled_letter_by_letter_are_text() {
    let tokenizer = support::tokenizer();
    let spelled = format!("</think>\n\n<｜DSML｜invoke name=\"f\">{EOS}");
    let ids = tokenizer.encode_plain(&spelled).unwrap();
    let answer = collect(&events(&tokenizer, AnswerStart::WithinText, &ids, Ending::Length));
    assert_eq!(
        answer,
        Answer {
            text: spelled,
            finish: Some(FinishReason::Length),
            ..Answer::default()
        }
    );
}

#[test]
fn completion_has_no_markers_but_the_end() {
    let answer = parse(
        AnswerStart::Completion,
        &format!("\n\na</think><｜DSML｜b>\n<｜User｜>{EOS}c"),
    );
    assert_eq!(answer.text, "\n\na</think><｜DSML｜b>\n<｜User｜>");
    assert_eq!(
        (answer.finish, answer.irregularities),
        (Some(FinishReason::Stop), vec![])
    );
}

#[test]
fn cancelled_answer_says_so() {
    let tokenizer = support::tokenizer();
    let mut parser = AnswerParser::new(&tokenizer, AnswerStart::Reasoning);
    let ids = tokenizer.encode_prompt("Hm\n").unwrap();
    let mut events: Vec<Event> = ids.iter().flat_map(|&id| parser.push(id)).collect();
    events.extend(parser.finish(Ending::Cancelled));
    assert_eq!(
        joined(events),
        [Event::Reasoning("Hm\n".into()), Event::Finish(FinishReason::Cancelled)]
    );
    assert_eq!(parser.push(tokenizer.eos_id()), []);
    assert_eq!(parser.finish(Ending::Length), []);
}

#[test]
fn answer_becomes_a_message() {
    let answer = parse(
        AnswerStart::Reasoning,
        &format!("Hm</think>See:{}{EOS}", block(&call("f", CITY))),
    );
    let Message::Assistant {
        tool_calls: Some(calls),
        ..
    } = answer.clone().into_message()
    else {
        panic!("no calls")
    };
    assert_eq!(calls[0].id, "call_00");
    assert_eq!(
        answer.into_message(),
        message::assistant(Some("Hm".into()), "See:", calls)
    );
}

/// Token ids of `answer`, whose plain text is cut by `choices` into any tokens of the vocabulary that spell it.
fn cut_anyhow(tokenizer: &Tokenizer, answer: &str, choices: &[usize]) -> Vec<u32> {
    let mut choices = choices.iter().cycle();
    let encoded = tokenizer.encode_prompt(answer).expect("the answer encodes");
    let mut ids = Vec::new();
    for run in encoded.chunk_by(|&a, &b| !tokenizer.is_special(a) && !tokenizer.is_special(b)) {
        if tokenizer.is_special(run[0]) {
            ids.extend_from_slice(run);
            continue;
        }
        let bytes: Vec<u8> = run.iter().flat_map(|&id| tokenizer.token_bytes(id)).copied().collect();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let fitting: Vec<u32> = (0..tokenizer.vocabulary_size() as u32)
                .filter(|&id| !tokenizer.is_special(id))
                .filter(|&id| !tokenizer.token_bytes(id).is_empty() && rest.starts_with(tokenizer.token_bytes(id)))
                .collect();
            let id = fitting[choices.next().expect("cycled") % fitting.len()];
            rest = &rest[tokenizer.token_bytes(id).len()..];
            ids.push(id);
        }
    }
    ids
}

/// Pieces of answers, in and out of format.
fn pieces() -> impl Strategy<Value = String> {
    let piece = proptest::sample::select(vec![
        "Hm",
        "日本🤭",
        "\n",
        "\n\n",
        "<",
        "</",
        ">",
        "\"",
        " a < b ",
        "<think>",
        "</think>",
        "<｜DSML｜tool_calls>\n",
        "</｜DSML｜tool_calls>",
        "<｜DSML｜invoke name=\"f\">\n",
        "</｜DSML｜invoke>\n",
        "<｜DSML｜parameter name=\"p\" string=\"true\">",
        "<｜DSML｜parameter name=\"é\" string=\"false\">",
        "[1, 2]",
        "</｜DSML｜parameter>\n",
        "｜DSML｜",
        "<｜System｜>",
    ]);
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn cuts_do_not_change_the_events(answer in pieces(), choices in proptest::collection::vec(0usize..1000, 1..40), thinking: bool) {
        let tokenizer = support::tokenizer();
        let start = if thinking { AnswerStart::Reasoning } else { AnswerStart::Text };
        let whole = tokenizer.encode_prompt(&answer).unwrap();
        let cut = cut_anyhow(&tokenizer, &answer, &choices);
        prop_assert_eq!(tokenizer.decode(&cut), answer);
        prop_assert_eq!(
            joined(events(&tokenizer, start, &cut, Ending::Length)),
            joined(events(&tokenizer, start, &whole, Ending::Length))
        );
    }

    #[test]
    fn any_tokens_make_one_end_and_no_markup_in_text(ids in proptest::collection::vec(prop_oneof![6u32..9, 0u32..2100], 0..60)) {
        let tokenizer = support::tokenizer();
        let events = events(&tokenizer, AnswerStart::Reasoning, &ids, Ending::Length);
        prop_assert_eq!(events.iter().filter(|event| matches!(event, Event::Finish(_))).count(), 1);
        let answer = collect(&events);
        prop_assert!(!answer.text.contains("｜DSML｜") && !answer.reasoning.contains("｜DSML｜"));
        for call in answer.tool_calls {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&call.arguments).unwrap().is_object());
        }
    }
}
