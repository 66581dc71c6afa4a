//! What a stream says, in each protocol.

use std::time::Instant;

use serde_json::Value;

use crate::Protocol;

/// Reads an answer's events and checks that it is whole.
#[derive(Debug)]
pub struct StreamReader {
    protocol: Protocol,
    rest: Vec<u8>,
    has_finish: bool,
    is_over: bool,
    /// When the first piece of the answer came.
    pub first: Option<Instant>,
    /// When the last piece came.
    pub last: Option<Instant>,
    /// Tokens of the answer, as the server counts.
    pub output_tokens: Option<u64>,
    /// Tokens of the prompt, as the server counts.
    pub prompt_tokens: u64,
    /// Those of them that were reused.
    pub reused_tokens: u64,
    /// What the server says went wrong.
    pub error: Option<String>,
}

impl StreamReader {
    /// Reads a stream in the form of `protocol`.
    pub fn new(protocol: Protocol) -> Self {
        StreamReader {
            protocol,
            rest: Vec::new(),
            has_finish: false,
            is_over: false,
            first: None,
            last: None,
            output_tokens: None,
            prompt_tokens: 0,
            reused_tokens: 0,
            error: None,
        }
    }

    /// Takes bytes.
    ///
    /// # Errors
    /// What the protocol does not know.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.rest.extend_from_slice(bytes);
        let mut begin = 0;
        let rest = std::mem::take(&mut self.rest);
        while let Some(length) = rest[begin..].windows(2).position(|pair| pair == b"\n\n") {
            let event = std::str::from_utf8(&rest[begin..begin + length]).map_err(|_| "an event is not UTF-8")?;
            for data in event.lines().filter_map(|line| line.strip_prefix("data:")) {
                self.take(data.trim_start())?;
            }
            begin += length + 2;
        }
        self.rest = rest[begin..].to_vec();
        Ok(())
    }

    /// Checks that the stream ended as the protocol says.
    ///
    /// # Errors
    /// What is missing.
    pub fn end(&self) -> Result<(), String> {
        if self.error.is_some() {
            return Ok(());
        }
        if !self.rest.is_empty() {
            return Err("the stream ended within an event".to_owned());
        }
        if !self.is_over {
            return Err("the stream ended without its last event".to_owned());
        }
        match self.has_finish && self.output_tokens.is_some() {
            true => Ok(()),
            false => Err("the stream ended without a reason or without usage".to_owned()),
        }
    }

    fn take(&mut self, data: &str) -> Result<(), String> {
        if self.is_over {
            return Err("an event came after the last one".to_owned());
        }
        if data == "[DONE]" {
            self.is_over = true;
            return Ok(());
        }
        let event: Value = serde_json::from_str(data).map_err(|error| format!("an event is no JSON: {error}"))?;
        if let Some(message) = event["error"]["message"].as_str() {
            self.error = Some(message.to_owned());
            return Ok(());
        }
        match self.protocol {
            Protocol::ChatCompletions | Protocol::Completions => self.take_chunk(&event),
            Protocol::Responses => self.take_response_event(&event),
            Protocol::Messages => self.take_message_event(&event),
        }
        Ok(())
    }

    fn take_chunk(&mut self, event: &Value) {
        let choice = &event["choices"][0];
        let delta = &choice["delta"];
        let is_piece = ["content", "reasoning_content", "reasoning"]
            .iter()
            .any(|field| delta[field].as_str().is_some_and(|text| !text.is_empty()));
        if is_piece || delta["tool_calls"].is_array() {
            self.piece();
        }
        self.has_finish |= choice["finish_reason"].is_string();
        let usage = &event["usage"];
        if usage.is_object() {
            self.output_tokens = usage["completion_tokens"].as_u64();
            self.prompt_tokens = usage["prompt_tokens"].as_u64().unwrap_or(0);
            self.reused_tokens = usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0);
        }
    }

    fn take_response_event(&mut self, event: &Value) {
        let kind = event["type"].as_str().unwrap_or_default();
        match kind {
            "response.completed" | "response.incomplete" => {
                self.has_finish = true;
                self.is_over = true;
                let usage = &event["response"]["usage"];
                self.output_tokens = usage["output_tokens"].as_u64();
                self.prompt_tokens = usage["input_tokens"].as_u64().unwrap_or(0);
                self.reused_tokens = usage["input_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0);
            }
            "response.failed" => {
                let message = event["response"]["error"]["message"].as_str();
                self.error = Some(message.unwrap_or("the response failed").to_owned());
            }
            "error" => self.error = Some(event["message"].as_str().unwrap_or("an error").to_owned()),
            kind if kind.ends_with(".delta") => self.piece(),
            _ => {}
        }
    }

    fn take_message_event(&mut self, event: &Value) {
        match event["type"].as_str().unwrap_or_default() {
            "message_start" => self.count_message(&event["message"]["usage"]),
            "content_block_delta" => self.piece(),
            "message_delta" => {
                self.has_finish = event["delta"]["stop_reason"].is_string();
                self.count_message(&event["usage"]);
                self.output_tokens = event["usage"]["output_tokens"].as_u64();
            }
            "message_stop" => self.is_over = true,
            _ => {}
        }
    }

    fn count_message(&mut self, usage: &Value) {
        let count = |field: &str| usage[field].as_u64().unwrap_or(0);
        let reused = count("cache_read_input_tokens");
        let prompt = count("input_tokens") + reused + count("cache_creation_input_tokens");
        if prompt > 0 {
            (self.prompt_tokens, self.reused_tokens) = (prompt, reused);
        }
    }

    fn piece(&mut self) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.last = Some(now);
    }
}

/// Checks that a refusal is in its protocol's form and tells its kind.
///
/// # Errors
/// What is wrong with it.
pub fn read_refusal(protocol: Protocol, status: u16, body: &[u8]) -> Result<String, String> {
    let wrong = || {
        let text: String = String::from_utf8_lossy(body).chars().take(120).collect();
        format!("a refusal with status {status} is not in the protocol's form: {text}")
    };
    let value: Value = serde_json::from_slice(body).map_err(|_| wrong())?;
    let error = &value["error"];
    let has_form = protocol != Protocol::Messages || value["type"] == "error";
    match (&error["type"], &error["message"]) {
        (Value::String(kind), Value::String(_)) if has_form => Ok(format!("{status} {kind}")),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &str = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n: comment\n\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n\
        data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\
        \"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\ndata: [DONE]\n\n";
    const RESPONSES: &str = "event: response.created\ndata: {\"type\":\"response.created\"}\n\n\
        event: x\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"a\"}\n\n\
        event: x\ndata: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":9,\
        \"output_tokens\":2,\"input_tokens_details\":{\"cached_tokens\":4}}}}\n\n";
    const MESSAGES: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\
        \"input_tokens\":5,\"cache_read_input_tokens\":4}}}\n\n\
        event: content_block_delta\ndata: {\"type\":\"content_block_delta\"}\n\n\
        event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\
        \"usage\":{\"output_tokens\":2}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

    #[test]
    fn each_protocol_is_read_in_any_pieces() {
        for (protocol, text) in [
            (Protocol::ChatCompletions, CHAT),
            (Protocol::Responses, RESPONSES),
            (Protocol::Messages, MESSAGES),
        ] {
            for size in [1, 7, 10_000] {
                let mut reader = StreamReader::new(protocol);
                text.as_bytes()
                    .chunks(size)
                    .for_each(|bytes| reader.feed(bytes).unwrap());
                assert_eq!(reader.end(), Ok(()), "{protocol:?}");
                assert!(reader.first.is_some());
                let counts = (reader.output_tokens, reader.prompt_tokens, reader.reused_tokens);
                assert_eq!(counts, (Some(2), 9, 4), "{protocol:?}");
            }
            // Whatever is cut off at the end is noticed.
            let events: Vec<&str> = text.split_inclusive("\n\n").collect();
            for count in 0..events.len() {
                let mut reader = StreamReader::new(protocol);
                reader.feed(events[..count].concat().as_bytes()).unwrap();
                assert!(reader.end().is_err(), "{protocol:?} {count}");
            }
        }
    }

    #[test]
    fn refusals_have_their_protocols_form() {
        let openai = br#"{"error": {"message": "no", "type": "invalid_request_error"}}"#;
        let anthropic = br#"{"type": "error", "error": {"type": "not_found_error", "message": "no"}}"#;
        assert_eq!(
            read_refusal(Protocol::Responses, 400, openai),
            Ok("400 invalid_request_error".to_owned())
        );
        assert_eq!(
            read_refusal(Protocol::Messages, 404, anthropic),
            Ok("404 not_found_error".to_owned())
        );
        assert!(read_refusal(Protocol::Messages, 400, openai).is_err());
        assert!(read_refusal(Protocol::ChatCompletions, 502, b"<html>").is_err());
    }
}
