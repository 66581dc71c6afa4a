//! The second turn of a conversation begins with the tokens of the first, as they were sampled.

mod support;

use cachalot_protocol::{EndReason, Protocol, ReplayStore};
use serde_json::{Value, json};
use support::{EOS, call, encoder, preparer, tokenizer, tokens};

const CALL: &str = "\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"n\" string=\"false\">{\"a\":1,\"b\": [2]}</｜DSML｜parameter>\n<｜DSML｜parameter name=\"city\" string=\"true\">Oslo</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>";

/// The tokens of `answer`, each character of its plain text one or more tokens: a cut that no encoder makes.
fn sampled(answer: &str) -> Vec<u32> {
    let tokenizer = tokenizer();
    let split = |id: &u32| {
        if tokenizer.is_special(*id) {
            return vec![*id];
        }
        let text = tokenizer.decode(&[*id]);
        text.chars()
            .flat_map(|character| tokenizer.encode_plain(&character.to_string()).expect("encodes"))
            .collect()
    };
    tokens(answer).iter().flat_map(split).collect()
}

/// Asks with `body`, answers with `ids`, and returns the prompt's tokens and the answer's body.
fn turn(protocol: Protocol, body: &Value, ids: &[u32], store: &ReplayStore) -> (Vec<u32>, Value) {
    let call = call(protocol, body);
    let prepared = preparer().prepare(&call, store, "key").expect("a prompt");
    let mut encoder = encoder(&call, &prepared);
    for id in ids {
        encoder.token(0, *id, None, &[]);
    }
    encoder.finish(0, EndReason::Stop);
    encoder.record(store);
    (prepared.ids, encoder.body())
}

/// A request with the first answer sent back by `history`.
fn request(protocol: Protocol, history: Vec<Value>) -> Value {
    let mut messages = vec![json!({"role": "user", "content": "Hi"})];
    messages.extend(history);
    let schema = json!({"type": "object"});
    match protocol {
        Protocol::Responses => json!({"model": "m", "input": messages, "reasoning": {"effort": "high"},
            "include": ["reasoning.encrypted_content"], "tools": [{"type": "function", "name": "f", "parameters": schema}]}),
        Protocol::Messages => {
            json!({"model": "m", "messages": messages, "max_tokens": 9, "thinking": {"type": "enabled"},
            "tools": [{"name": "f", "input_schema": schema}]})
        }
        _ => {
            json!({"model": "m", "messages": messages, "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]})
        }
    }
}

/// The first answer as each protocol's client sends it back, with what follows.
fn sent_back(protocol: Protocol, body: &Value) -> Vec<Value> {
    match protocol {
        Protocol::Responses => {
            let mut items = body["output"].as_array().expect("output").clone();
            let call = items
                .iter()
                .find(|item| item["type"] == "function_call")
                .expect("a call");
            let id = call["call_id"].clone();
            items.retain(|item| item["type"] != "reasoning");
            items.push(json!({"type": "function_call_output", "call_id": id, "output": "rain"}));
            items
        }
        Protocol::Messages => {
            let id = &body["content"]
                .as_array()
                .and_then(|content| content.last())
                .expect("a call")["id"];
            vec![
                json!({"role": "assistant", "content": body["content"]}),
                json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "rain"}]}),
            ]
        }
        _ => {
            let mut message = body["choices"][0]["message"].clone();
            let id = message["tool_calls"][0]["id"].clone();
            // A client that leaves out the reasoning and writes the arguments anew.
            message.as_object_mut().expect("an object").remove("reasoning_content");
            let arguments = message["tool_calls"][0]["function"]["arguments"]
                .as_str()
                .expect("arguments");
            let value: Value = serde_json::from_str(arguments).expect("JSON");
            message["tool_calls"][0]["function"]["arguments"] = value.to_string().into();
            vec![message, json!({"role": "tool", "tool_call_id": id, "content": "rain"})]
        }
    }
}

#[test]
fn second_turn_begins_with_the_tokens_of_the_first() {
    for protocol in [Protocol::ChatCompletions, Protocol::Responses, Protocol::Messages] {
        let store = ReplayStore::new(1 << 20);
        let answer = sampled(&format!("Hm\n\nso</think>Look:{CALL}{EOS}"));
        let (first, body) = turn(protocol, &request(protocol, vec![]), &answer, &store);
        let expected: Vec<u32> = first.iter().chain(&answer).copied().collect();
        let history = sent_back(protocol, &body);

        let (second, _) = turn(protocol, &request(protocol, history.clone()), &[], &store);
        assert!(second.starts_with(&expected), "{protocol:?}");
        // Rendered anew, it is other tokens; of another user, too.
        for (store, scope) in [(&ReplayStore::new(1 << 20), "key"), (&store, "other")] {
            let call = call(protocol, &request(protocol, history.clone()));
            let rendered = preparer().prepare(&call, store, scope).expect("a prompt");
            assert!(!rendered.ids.starts_with(&expected), "{protocol:?}");
            assert_eq!(rendered.replayed_count, 0);
        }
    }
}

#[test]
fn edited_answers_are_rendered() {
    let store = ReplayStore::new(1 << 20);
    let protocol = Protocol::ChatCompletions;
    let answer = sampled(&format!("Hm</think>Look:{CALL}{EOS}"));
    let (_, body) = turn(protocol, &request(protocol, vec![]), &answer, &store);
    let original = sent_back(protocol, &body);
    let replayed = |history: &[Value]| {
        let call = call(protocol, &request(protocol, history.to_vec()));
        preparer()
            .prepare(&call, &store, "key")
            .expect("a prompt")
            .replayed_count
    };
    assert_eq!(replayed(&original), 1);
    for (path, value) in [
        ("/0/content", "Look here:"),
        ("/0/reasoning_content", "Another thought"),
        ("/0/tool_calls/0/function/arguments", "{\"city\": \"Bergen\"}"),
        ("/0/tool_calls/0/function/name", "g"),
    ] {
        let mut edited = Value::Array(original.clone());
        if path.ends_with("reasoning_content") {
            edited[0]["reasoning_content"] = Value::Null;
        }
        *edited.pointer_mut(path).expect("a field") = value.into();
        assert_eq!(replayed(edited.as_array().expect("an array")), 0, "{path}");
    }
}

#[test]
fn plain_answers_are_found_after_the_same_tokens_only() {
    let store = ReplayStore::new(1 << 20);
    let protocol = Protocol::ChatCompletions;
    let answer = sampled(&format!("Hm</think>Done.{EOS}"));
    let (first, _) = turn(protocol, &request(protocol, vec![]), &answer, &store);
    let back = |first_words: &str| {
        let mut body = request(
            protocol,
            vec![
                json!({"role": "assistant", "content": "Done."}),
                json!({"role": "user", "content": "Go on"}),
            ],
        );
        body["messages"][0]["content"] = first_words.into();
        preparer()
            .prepare(&call(protocol, &body), &store, "key")
            .expect("a prompt")
    };
    let expected: Vec<u32> = first.iter().chain(&answer).copied().collect();
    assert!(back("Hi").ids.starts_with(&expected));
    assert_eq!(back("Hello").replayed_count, 0);
}

#[test]
fn answers_out_of_format_and_unfinished_ones_are_not_kept_and_the_store_is_bounded() {
    let store = ReplayStore::new(1 << 20);
    let protocol = Protocol::ChatCompletions;
    for answer in [
        "Hm</think>A<｜DSML｜foo>B",
        "Hm\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>",
    ] {
        turn(
            protocol,
            &request(protocol, vec![]),
            &tokens(&format!("{answer}{EOS}")),
            &store,
        );
    }
    assert_eq!(store.answer_count(), 0);
    let small = ReplayStore::new(2000);
    for number in 0..50 {
        turn(
            protocol,
            &request(protocol, vec![]),
            &tokens(&format!("Hm</think>{number}{EOS}")),
            &small,
        );
        assert!(small.byte_count() <= 2000);
    }
    assert!((1..50).contains(&small.answer_count()));
}

#[test]
fn previous_response_goes_on() {
    let protocol = Protocol::Responses;
    let first = json!({"model": "m", "input": "Hi", "instructions": "Be brief.", "reasoning": {"effort": "none"}});
    let asked = call(protocol, &first);
    let store = ReplayStore::new(1 << 20);
    let prepared = preparer().prepare(&asked, &store, "").expect("a prompt");
    let mut answer = encoder(&asked, &prepared);
    for id in tokens(&format!("Yes{EOS}")) {
        answer.token(0, id, None, &[]);
    }
    let history = answer.history().expect("it is stored");
    assert!(history.byte_count() > 5);
    let second =
        json!({"model": "m", "input": "And?", "previous_response_id": answer.id(), "reasoning": {"effort": "none"}});
    let mut asked = call(protocol, &second);
    asked.continue_from(&history);
    let text = preparer().prepare(&asked, &store, "").expect("a prompt").text;
    assert_eq!(
        text,
        "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜></think>Yes<｜end▁of▁sentence｜><｜User｜>And?<｜Assistant｜></think>"
    );
    let unstored = call(protocol, &json!({"model": "m", "input": "Hi", "store": false}));
    assert!(encoder(&unstored, &support::prepared(&unstored)).history().is_none());
}
