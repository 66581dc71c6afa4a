//! Pieces of an event stream.

use std::fmt;

/// A piece of a `text/event-stream`; its `Display` is what goes over the wire, blank line included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// An event.
    Event {
        /// The name for the `event:` line; chat completions have none.
        name: Option<&'static str>,
        /// One line: a JSON text or `[DONE]`.
        data: String,
    },
    /// A comment, which clients skip: keeps connections open. Has no line end.
    Comment(String),
}

impl Frame {
    /// An event without a name.
    pub(crate) fn data(value: &serde_json::Value) -> Self {
        Self::Event {
            name: None,
            data: value.to_string(),
        }
    }

    /// An event named as its `type`.
    pub(crate) fn named(name: &'static str, value: &serde_json::Value) -> Self {
        Self::Event {
            name: Some(name),
            data: value.to_string(),
        }
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event { name: Some(name), data } => write!(formatter, "event: {name}\ndata: {data}\n\n"),
            Self::Event { name: None, data } => write!(formatter, "data: {data}\n\n"),
            Self::Comment(text) => write!(formatter, ": {}\n\n", text.replace(['\r', '\n'], " ")),
        }
    }
}
