//! Errors of the engine and the protocols as refusals.

use cachalot_engine::Error;
use cachalot_protocol::{ErrorKind, Protocol, ProtocolError};

use crate::Refusal;

/// What the client is told of an error of the engine.
pub fn from_engine(error: Error) -> ProtocolError {
    let kind = match &error {
        Error::QueueFull { .. } => ErrorKind::RateLimited,
        Error::ShuttingDown => ErrorKind::Overloaded,
        Error::PromptTooLong { .. } => ErrorKind::ContextTooLong,
        Error::Deadline { .. } => ErrorKind::Timeout,
        Error::Image { .. } => ErrorKind::Unsupported,
        Error::EmptyPrompt | Error::Sampling { .. } | Error::Constraint { .. } => ErrorKind::InvalidRequest,
        _ => ErrorKind::Internal,
    };
    let mut told = ProtocolError::new(kind, error.to_string());
    if let Error::QueueFull { retry_after, .. } = error {
        told.retry_after = Some(retry_after);
    }
    told
}

/// The same for an answer that had begun: a constraint that failed there is no fault of the client.
pub fn from_engine_late(error: Error) -> ProtocolError {
    match error {
        Error::Constraint { .. } => ProtocolError::new(ErrorKind::Internal, error.to_string()),
        error => from_engine(error),
    }
}

/// The response for `error` in the words of `protocol`.
pub fn refusal(error: &ProtocolError, protocol: Protocol) -> Refusal {
    let mut refusal = Refusal::new(error.status(), error.message.clone());
    refusal.body = Some(Box::new(error.to_body(protocol)));
    refusal.retry_after_seconds = error.retry_after.map(|time| time.as_secs().max(1));
    refusal
}
