//! Refusals: errors in the format that each protocol's clients read.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use serde_json::{Value, json};

use crate::Protocol;

/// Why a request is not answered, before it is put into a protocol's words.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The HTTP status, 400 to 599.
    pub status: u16,
    /// What is wrong and what to do, for people.
    pub message: String,
    /// A stable name for programs, such as `invalid_api_key`.
    pub code: Option<&'static str>,
    /// When to try again, for 429 and 503.
    pub retry_after_seconds: Option<u64>,
    /// The body where the protocol has formatted it already.
    pub body: Option<Box<Value>>,
}

impl Refusal {
    /// A refusal with `status`, without a code.
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Refusal {
            status,
            message: message.into(),
            code: None,
            retry_after_seconds: None,
            body: None,
        }
    }

    /// The same with a name for programs.
    pub fn with_code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// The same with a time to wait.
    pub fn with_retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds.max(1));
        self
    }

    /// The body in the format of `protocol`.
    pub fn to_body(&self, protocol: Protocol) -> Value {
        if let Some(body) = &self.body {
            return Value::clone(body);
        }
        match protocol {
            Protocol::Messages => json!({
                "type": "error",
                "error": { "type": messages_type(self.status), "message": self.message },
            }),
            Protocol::ChatCompletions | Protocol::Responses | Protocol::Completions => json!({
                "error": {
                    "message": self.message,
                    "type": openai_type(self.status),
                    "param": null,
                    "code": self.code,
                },
            }),
        }
    }

    /// The event that ends a stream which had begun.
    pub fn to_event(&self, protocol: Protocol) -> String {
        let body = self.to_body(protocol);
        match protocol {
            Protocol::Messages => format!("event: error\ndata: {body}\n\n"),
            Protocol::Responses => {
                let error = &body["error"];
                let event = json!({
                    "type": "error",
                    "code": error["code"],
                    "message": error["message"],
                    "param": error["param"],
                    "sequence_number": 0,
                });
                format!("event: error\ndata: {event}\n\n")
            }
            Protocol::ChatCompletions | Protocol::Completions => format!("data: {body}\n\n"),
        }
    }

    /// The whole HTTP response.
    pub fn to_response(&self, protocol: Protocol) -> Response<Body> {
        let mut response = Response::new(Body::from(self.to_body(protocol).to_string()));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == 401 {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The names of Anthropic's errors.
fn messages_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

/// The names of OpenAI's errors.
fn openai_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_has_its_own_format() {
        let refusal = Refusal::new(429, "the queue is full").with_code("queue_full");
        let openai = json!({"error": {
            "message": "the queue is full", "type": "rate_limit_error", "param": null, "code": "queue_full"}});
        assert_eq!(refusal.to_body(Protocol::ChatCompletions), openai);
        assert_eq!(refusal.to_body(Protocol::Responses), openai);
        let anthropic = json!({"type": "error", "error": {"type": "rate_limit_error", "message": "the queue is full"}});
        assert_eq!(refusal.to_body(Protocol::Messages), anthropic);
        for (status, name) in [
            (404, "not_found_error"),
            (413, "request_too_large"),
            (405, "invalid_request_error"),
        ] {
            assert_eq!(
                Refusal::new(status, "").to_body(Protocol::Messages)["error"]["type"],
                name
            );
        }
    }

    #[test]
    fn waiting_times_are_at_least_a_second() {
        let response = Refusal::new(429, "")
            .with_retry_after(0)
            .to_response(Protocol::Messages);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }
}
