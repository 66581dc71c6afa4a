//! What goes wrong with a request, and how each protocol says so.

use std::time::Duration;

use cachalot_chat::{PromptError, TokenizerError};
use serde_json::{Value, json};

use crate::Protocol;

/// A request that is not answered, or an answer that broke off.
///
/// [`to_body`](Self::to_body) is the body to send with [`status`](Self::status); in a stream that has begun,
/// [`AnswerEncoder::fail`](crate::AnswerEncoder::fail) makes the frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ProtocolError {
    /// What kind of error it is; decides the status and the protocols' error types.
    pub kind: ErrorKind,
    /// What is wrong, what was expected and how to put it right.
    pub message: String,
    /// The field of the request at fault, like `messages[3].content`, if there is one.
    pub field: Option<String>,
    /// When it may be worth trying again, for a `Retry-After` header.
    pub retry_after: Option<Duration>,
}

/// Kinds of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is wrong: 400.
    InvalidRequest,
    /// The request asks for something that is not supported: 400.
    Unsupported,
    /// The prompt and the tokens asked for do not fit the model's context: 400.
    ContextTooLong,
    /// No valid key: 401.
    Authentication,
    /// The key may not do this: 403.
    Permission,
    /// There is no such model, response or route: 404.
    NotFound,
    /// The route takes another method: 405.
    MethodNotAllowed,
    /// The body is too large: 413.
    TooLarge,
    /// Too many requests: 429.
    RateLimited,
    /// Something failed within: 500.
    Internal,
    /// The server is draining or its queue is full: 503.
    Overloaded,
    /// The deadline passed: 504.
    Timeout,
}

impl ProtocolError {
    /// An error without a field.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            field: None,
            retry_after: None,
        }
    }

    /// An invalid `field`.
    pub fn invalid(field: impl Into<String>, message: impl std::fmt::Display) -> Self {
        Self::at(ErrorKind::InvalidRequest, field, message)
    }

    /// A `field` that asks for something that is not supported.
    pub fn unsupported(field: impl Into<String>, message: impl std::fmt::Display) -> Self {
        Self::at(ErrorKind::Unsupported, field, message)
    }

    fn at(kind: ErrorKind, field: impl Into<String>, message: impl std::fmt::Display) -> Self {
        let field = field.into();
        Self {
            kind,
            message: format!("{field}: {message}"),
            field: Some(field),
            retry_after: None,
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self.kind {
            ErrorKind::InvalidRequest | ErrorKind::Unsupported | ErrorKind::ContextTooLong => 400,
            ErrorKind::Authentication => 401,
            ErrorKind::Permission => 403,
            ErrorKind::NotFound => 404,
            ErrorKind::MethodNotAllowed => 405,
            ErrorKind::TooLarge => 413,
            ErrorKind::RateLimited => 429,
            ErrorKind::Internal => 500,
            ErrorKind::Overloaded => 503,
            ErrorKind::Timeout => 504,
        }
    }

    /// The body in the error format of `protocol`.
    pub fn to_body(&self, protocol: Protocol) -> Value {
        match protocol {
            Protocol::Messages => json!({
                "type": "error",
                "error": {"type": self.anthropic_type(), "message": self.message},
                "request_id": null,
            }),
            Protocol::ChatCompletions | Protocol::Completions | Protocol::Responses => json!({
                "error": {
                    "message": self.message,
                    "type": self.openai_type(),
                    "param": self.field,
                    "code": self.openai_code(),
                },
            }),
        }
    }

    pub(crate) fn openai_type(&self) -> &'static str {
        match self.kind {
            ErrorKind::Authentication => "authentication_error",
            ErrorKind::Permission => "permission_error",
            ErrorKind::RateLimited => "rate_limit_error",
            ErrorKind::Internal | ErrorKind::Overloaded | ErrorKind::Timeout => "server_error",
            _ => "invalid_request_error",
        }
    }

    pub(crate) fn openai_code(&self) -> &'static str {
        match self.kind {
            ErrorKind::InvalidRequest => "invalid_request",
            ErrorKind::Unsupported => "unsupported_parameter",
            ErrorKind::ContextTooLong => "context_length_exceeded",
            ErrorKind::Authentication => "invalid_api_key",
            ErrorKind::Permission => "forbidden",
            ErrorKind::NotFound => "not_found",
            ErrorKind::MethodNotAllowed => "method_not_allowed",
            ErrorKind::TooLarge => "request_too_large",
            ErrorKind::RateLimited => "rate_limit_exceeded",
            ErrorKind::Internal => "server_error",
            ErrorKind::Overloaded => "server_is_overloaded",
            ErrorKind::Timeout => "timeout",
        }
    }

    pub(crate) fn anthropic_type(&self) -> &'static str {
        match self.kind {
            ErrorKind::Authentication => "authentication_error",
            ErrorKind::Permission => "permission_error",
            ErrorKind::NotFound => "not_found_error",
            ErrorKind::TooLarge => "request_too_large",
            ErrorKind::RateLimited => "rate_limit_error",
            ErrorKind::Overloaded => "overloaded_error",
            ErrorKind::Timeout => "timeout_error",
            ErrorKind::Internal => "api_error",
            _ => "invalid_request_error",
        }
    }
}

impl From<PromptError> for ProtocolError {
    fn from(error: PromptError) -> Self {
        let kind = match &error {
            PromptError::Image { .. } | PromptError::NotInFormat { .. } => ErrorKind::Unsupported,
            PromptError::Tokenizer(TokenizerError::PieceTooLong { .. }) | PromptError::PrefixNotLast { .. } => {
                ErrorKind::InvalidRequest
            }
            PromptError::Tokenizer(_) => ErrorKind::Internal,
            _ => ErrorKind::InvalidRequest,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<TokenizerError> for ProtocolError {
    fn from(error: TokenizerError) -> Self {
        PromptError::from(error).into()
    }
}
