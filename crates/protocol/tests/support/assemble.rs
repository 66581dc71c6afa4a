//! Streams and bodies of the protocols, put together into the same shape by clients' rules.

use cachalot_protocol::{Frame, Protocol};
use serde_json::{Map, Value, json};

/// What a client ends up with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    pub reasoning: String,
    pub text: String,
    /// Names and arguments as they came; a custom tool's input.
    pub calls: Vec<(String, String)>,
    pub ids: Vec<String>,
    pub end: String,
    pub usage: Value,
}

pub fn stream(protocol: Protocol, frames: &[Frame]) -> Seen {
    let events: Vec<Value> = frames
        .iter()
        .filter_map(|frame| match frame {
            Frame::Event { name, data } if data != "[DONE]" => {
                let value: Value = serde_json::from_str(data).expect("JSON in every frame");
                assert!(name.is_none_or(|name| value["type"] == name), "names are types");
                assert!(!data.contains('\n'));
                Some(value)
            }
            Frame::Event { .. } | Frame::Comment(_) => None,
        })
        .collect();
    match protocol {
        Protocol::Messages => messages_stream(&events),
        Protocol::Responses => responses_stream(&events),
        Protocol::ChatCompletions | Protocol::Completions => chat_stream(&events),
    }
}

pub fn body(protocol: Protocol, body: &Value) -> Seen {
    match protocol {
        Protocol::Messages => messages_body(body),
        Protocol::Responses => responses_body(body),
        Protocol::ChatCompletions | Protocol::Completions => chat_body(body),
    }
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn chat_stream(events: &[Value]) -> Seen {
    let mut seen = Seen::default();
    for event in events {
        if !event["usage"].is_null() {
            seen.usage = event["usage"].clone();
        }
        for choice in event["choices"].as_array().expect("choices") {
            assert!(seen.end.is_empty(), "nothing follows the finish reason");
            let delta = &choice["delta"];
            seen.reasoning += &string(&delta["reasoning_content"]);
            seen.text += &string(&delta["content"]);
            seen.text += &string(&choice["text"]);
            for call in delta["tool_calls"].as_array().unwrap_or(&Vec::new()) {
                let index = call["index"].as_u64().expect("an index") as usize;
                if let Some(name) = call["function"]["name"].as_str() {
                    assert_eq!(index, seen.calls.len(), "calls are numbered in order");
                    seen.calls.push((name.to_owned(), String::new()));
                    seen.ids.push(string(&call["id"]));
                }
                seen.calls[index].1 += &string(&call["function"]["arguments"]);
            }
            seen.end = string(&choice["finish_reason"]);
        }
    }
    seen
}

fn chat_body(body: &Value) -> Seen {
    let choice = &body["choices"][0];
    let message = &choice["message"];
    let none = Vec::new();
    let calls = message["tool_calls"].as_array().unwrap_or(&none);
    Seen {
        reasoning: string(&message["reasoning_content"]),
        text: string(&message["content"]) + &string(&choice["text"]),
        calls: calls
            .iter()
            .map(|call| {
                (
                    string(&call["function"]["name"]),
                    string(&call["function"]["arguments"]),
                )
            })
            .collect(),
        ids: calls.iter().map(|call| string(&call["id"])).collect(),
        end: string(&choice["finish_reason"]),
        usage: body["usage"].clone(),
    }
}

/// The input that a client makes of JSON that may be unfinished: the members that are whole.
fn tolerant_input(json: &str) -> Value {
    let mut ends: Vec<usize> = json.match_indices(", ").map(|(at, _)| at).collect();
    ends.push(json.len());
    let parse = |text: &str| serde_json::from_str::<Map<String, Value>>(text).ok();
    if let Some(whole) = parse(json) {
        return whole.into();
    }
    let candidates = ends
        .iter()
        .rev()
        .filter_map(|end| parse(&format!("{}}}", &json[..*end])));
    candidates.into_iter().next().unwrap_or_default().into()
}

fn messages_stream(events: &[Value]) -> Seen {
    let mut seen = Seen::default();
    let mut open: Option<(u64, String)> = None;
    let mut input = String::new();
    let mut count = 0;
    assert_eq!(
        events.first().map(|event| string(&event["type"])).as_deref(),
        Some("message_start")
    );
    for event in events {
        match event["type"].as_str().expect("a type") {
            "content_block_start" => {
                assert!(open.is_none(), "blocks do not overlap");
                let block = &event["content_block"];
                let index = event["index"].as_u64().expect("an index");
                assert_eq!(index, count, "blocks are numbered in order");
                count += 1;
                open = Some((index, string(&block["type"])));
                if block["type"] == "tool_use" {
                    seen.calls.push((string(&block["name"]), String::new()));
                    seen.ids.push(string(&block["id"]));
                    input.clear();
                }
            }
            "content_block_delta" => {
                let (index, kind) = open.as_ref().expect("an open block");
                assert_eq!(event["index"].as_u64(), Some(*index));
                let delta = &event["delta"];
                let fits = match delta["type"].as_str().expect("a type") {
                    "thinking_delta" | "signature_delta" => "thinking",
                    "text_delta" => "text",
                    "input_json_delta" => "tool_use",
                    other => panic!("delta {other}"),
                };
                assert_eq!(kind, fits);
                seen.reasoning += &string(&delta["thinking"]);
                seen.text += &string(&delta["text"]);
                input += &string(&delta["partial_json"]);
            }
            "content_block_stop" => {
                let (_, kind) = open.take().expect("an open block");
                if kind == "tool_use" {
                    seen.calls.last_mut().expect("a call").1 = tolerant_input(&input).to_string();
                }
            }
            "message_delta" => {
                seen.end = string(&event["delta"]["stop_reason"]);
                seen.usage = event["usage"].clone();
            }
            "message_start" | "ping" | "message_stop" => {}
            other => panic!("event {other}"),
        }
    }
    assert!(open.is_none());
    assert_eq!(
        events.last().map(|event| string(&event["type"])).as_deref(),
        Some("message_stop")
    );
    seen
}

fn messages_body(body: &Value) -> Seen {
    let mut seen = Seen {
        end: string(&body["stop_reason"]),
        usage: body["usage"].clone(),
        ..Seen::default()
    };
    for block in body["content"].as_array().expect("content") {
        match block["type"].as_str().expect("a type") {
            "thinking" => seen.reasoning += &string(&block["thinking"]),
            "text" => seen.text += &string(&block["text"]),
            "tool_use" => {
                assert!(block["input"].is_object());
                seen.calls.push((string(&block["name"]), block["input"].to_string()));
                seen.ids.push(string(&block["id"]));
            }
            other => panic!("block {other}"),
        }
    }
    seen
}

fn responses_stream(events: &[Value]) -> Seen {
    let mut deltas: Vec<String> = Vec::new();
    let mut added = 0;
    for (number, event) in events.iter().enumerate() {
        assert_eq!(
            event["sequence_number"].as_u64(),
            Some(number as u64),
            "sequence numbers have no gap"
        );
        let index = event["output_index"].as_u64().unwrap_or_default() as usize;
        match event["type"].as_str().expect("a type") {
            "response.output_item.added" => {
                assert_eq!(index, added, "items are numbered in order");
                added += 1;
                deltas.push(String::new());
            }
            kind if kind.ends_with(".delta") => deltas[index] += event["delta"].as_str().expect("a delta"),
            "response.output_text.done" | "response.reasoning_text.done" => assert_eq!(event["text"], deltas[index]),
            "response.function_call_arguments.done" => assert_eq!(event["arguments"], deltas[index]),
            "response.custom_tool_call_input.done" => assert_eq!(event["input"], deltas[index]),
            _ => {}
        }
    }
    let last = events.last().expect("events");
    assert!(["response.completed", "response.incomplete"].contains(&last["type"].as_str().expect("a type")));
    let done = events
        .iter()
        .filter(|event| event["type"] == "response.output_item.done");
    let items: Vec<Value> = done.map(|event| event["item"].clone()).collect();
    assert_eq!(
        json!(items),
        last["response"]["output"],
        "done items are those of the response"
    );
    responses_body(&last["response"])
}

fn responses_body(body: &Value) -> Seen {
    let mut seen = Seen {
        end: string(&body["status"]),
        usage: body["usage"].clone(),
        ..Seen::default()
    };
    for item in body["output"].as_array().expect("output") {
        match item["type"].as_str().expect("a type") {
            "reasoning" => seen.reasoning += &string(&item["content"][0]["text"]),
            "message" => seen.text += &string(&item["content"][0]["text"]),
            "function_call" | "custom_tool_call" => {
                let arguments = string(&item["arguments"]) + &string(&item["input"]);
                seen.calls.push((string(&item["name"]), arguments));
                seen.ids.push(string(&item["call_id"]));
            }
            other => panic!("item {other}"),
        }
    }
    seen
}
