//! Chat completions from bytes to bytes.

mod support;

use cachalot_protocol::{EndReason, Outcome, Protocol};
use serde_json::{Value, json};
use support::{EOS, data, run, tokens};

fn request(extra: Value) -> Value {
    let mut request = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    for (key, value) in extra.as_object().expect("an object") {
        request[key] = value.clone();
    }
    request
}

const CALL: &str = "\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"city\" string=\"true\">Oslo</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>";

#[test]
fn thinking_text_and_calls_in_body_and_stream() {
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    let extra = json!({"tools": tools, "stream": true, "stream_options": {"include_usage": true}});
    let answer = tokens(&format!("Hm</think>Look:{CALL}{EOS}"));
    let (frames, encoder) = run(Protocol::ChatCompletions, &request(extra), &answer, EndReason::Stop);
    let body = encoder.body();
    let message = &body["choices"][0]["message"];
    assert_eq!(message["reasoning_content"], "Hm");
    assert_eq!(message["content"], "Look:");
    assert_eq!(
        message["tool_calls"][0]["function"],
        json!({"name": "f", "arguments": "{\"city\": \"Oslo\"}"})
    );
    assert_eq!(body["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(body["usage"]["completion_tokens"], answer.len());
    assert_eq!(encoder.outcome(0), Some(&Outcome::ToolCalls));

    let chunks = data(&frames);
    assert_eq!(
        chunks[0]["choices"][0]["delta"],
        json!({"role": "assistant", "content": ""})
    );
    let last = &chunks[chunks.len() - 1];
    assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &body["usage"]));
    let finish = &chunks[chunks.len() - 2]["choices"][0];
    assert_eq!(
        (&finish["delta"], &finish["finish_reason"]),
        (&json!({}), &json!("tool_calls"))
    );
    assert_eq!(frames.last().expect("frames").to_string(), "data: [DONE]\n\n");
}

#[test]
fn stop_strings_end_the_text_and_several_answers_are_numbered() {
    let extra = json!({"n": 2, "stop": ["END"], "thinking": {"type": "disabled"}, "stream": true});
    let (frames, encoder) = run(
        Protocol::ChatCompletions,
        &request(extra),
        &tokens("one EN twoEND three"),
        EndReason::Cancelled,
    );
    for choice in encoder.body()["choices"].as_array().expect("choices") {
        assert_eq!(
            (&choice["message"]["content"], &choice["finish_reason"]),
            (&json!("one EN two"), &json!("stop"))
        );
    }
    let second = data(&frames)
        .into_iter()
        .filter(|chunk| chunk["choices"][0]["index"] == 1);
    let text: String = second
        .filter_map(|chunk| Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned()))
        .collect();
    assert_eq!(text, "one EN two");
}

#[test]
fn logprobs_go_with_the_text() {
    let extra = json!({"logprobs": true, "top_logprobs": 1, "stop": "!!"});
    let answer = tokens("Hm</think>Yes, 日本 it is!!");
    let (_, encoder) = run(
        Protocol::ChatCompletions,
        &request(extra),
        &answer,
        EndReason::Cancelled,
    );
    let choice = &encoder.body()["choices"][0];
    assert_eq!(choice["message"]["content"], "Yes, 日本 it is");
    let content = choice["logprobs"]["content"].as_array().expect("a list");
    let bytes: Vec<u8> = content
        .iter()
        .flat_map(|token| token["bytes"].as_array().expect("bytes"))
        .map(|byte| byte.as_u64().expect("a byte") as u8)
        .collect();
    assert_eq!(String::from_utf8_lossy(&bytes), "Yes, 日本 it is");
    assert_eq!(content[0]["top_logprobs"].as_array().map(Vec::len), Some(1));
}
