//! The seam between HTTP and models.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::{Protocol, Refusal};

/// What answers requests. The HTTP side knows nothing else of models.
///
/// Methods may compute for a while (parsing, tokenising) and are called off the threads that serve connections, within
/// a Tokio runtime.
pub trait Backend: Send + Sync + 'static {
    /// Begins an answer.
    ///
    /// # Errors
    /// The refusal for the client.
    fn answer(&self, inquiry: Inquiry) -> Result<Answer, Refusal>;

    /// Body of `POST /v1/messages/count_tokens` to body of its response.
    ///
    /// # Errors
    /// The refusal for the client.
    fn count_tokens(&self, body: &[u8]) -> Result<Value, Refusal>;

    /// Body of `POST /tokenize` to body of its response.
    ///
    /// # Errors
    /// The refusal for the client.
    fn tokenize(&self, body: &[u8]) -> Result<Value, Refusal>;

    /// Body of `POST /detokenize` to body of its response.
    ///
    /// # Errors
    /// The refusal for the client.
    fn detokenize(&self, body: &[u8]) -> Result<Value, Refusal>;

    /// A response that was kept for `owner`.
    fn stored_response(&self, id: &str, owner: Option<usize>) -> Option<Value>;

    /// Forgets a response that was kept for `owner`; whether there was one.
    fn forget_response(&self, id: &str, owner: Option<usize>) -> bool;

    /// The model and the names under which it answers.
    fn model(&self) -> ModelCard;

    /// Generates one token and waits for it.
    ///
    /// # Errors
    /// Why there is none within `time_max`, for people.
    fn probe(&self, time_max: Duration) -> Result<(), String>;

    /// How it is doing.
    fn status(&self) -> BackendStatus;

    /// Takes no more requests and waits for those running, `time_max` at most.
    fn drain(&self, time_max: Duration);
}

/// A request for an answer.
#[derive(Clone, Debug)]
pub struct Inquiry {
    /// How body and answer are written.
    pub protocol: Protocol,
    /// The body as it came.
    pub body: Bytes,
    /// Who asks.
    pub owner: Option<usize>,
    /// When the answer is no longer wanted.
    pub deadline: Instant,
}

/// An answer that is being written.
#[derive(Debug)]
pub struct Answer {
    /// Whether the client asked for a stream.
    pub is_streamed: bool,
    /// Its parts as they come. Dropping the receiver cancels the answer.
    pub parts: mpsc::Receiver<Part>,
}

/// A part of an answer. [`Part::Body`], [`Part::End`] or [`Part::Failed`] comes last.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// The model has begun.
    Admitted(Reuse),
    /// Prompt tokens computed so far.
    Prefill {
        /// Tokens done, reused ones included.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token was drawn; it need not show in what is sent.
    Token,
    /// Server-sent events, ready to be written.
    Events(String),
    /// The end of a stream.
    End,
    /// The whole answer where no stream was asked for.
    Body(Value),
    /// The answer cannot be completed.
    Failed(Refusal),
}

/// How much of a prompt did not have to be computed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reuse {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Those taken from the prefix cache.
    pub reused: usize,
    /// Why not all, and at which token, such as `diverged` at 812.
    pub missed: Option<(&'static str, Option<usize>)>,
}

/// What `GET /v1/models` tells.
#[derive(Clone, Debug)]
pub struct ModelCard {
    /// The model's own name.
    pub name: String,
    /// Other names that clients may use for it.
    pub aliases: Vec<String>,
    /// Tokens of prompt and answer together.
    pub context: usize,
    /// Seconds since 1970 at which it was loaded.
    pub created: u64,
}

/// Figures of a backend. Counters begin at 0 when it starts.
#[derive(Clone, Debug, Default)]
pub struct BackendStatus {
    /// Requests that wait.
    pub queued: usize,
    /// Requests that are computed.
    pub running: usize,
    /// Prompt tokens computed.
    pub prefill_token_count: u64,
    /// Tokens generated.
    pub decode_token_count: u64,
    /// Prompt tokens computed in the last seconds, for each second.
    pub prefill_tokens_per_second: f64,
    /// Tokens generated in the last seconds, for each second.
    pub decode_tokens_per_second: f64,
    /// Prompt tokens taken from the prefix cache.
    pub reused_token_count: u64,
    /// Why prompts are no longer kept on disk, if they should be.
    pub cache_fault: Option<String>,
    /// Bytes of memory by kind.
    pub memory_bytes: Vec<(&'static str, u64)>,
    /// Bytes of weights and state read for each second while decoding, and what the machine can at most.
    pub bytes_per_second: Option<(f64, f64)>,
    /// Time spent in the parts of the model's steps since the start.
    pub step_times: Vec<(&'static str, Duration)>,
    /// Further figures: name, kind (`counter` or `gauge`), help, value.
    pub others: Vec<Figure>,
}

/// A further figure of a backend.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Its name in `/metrics`, without the prefix `cachalot_`.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// Whether it only grows.
    pub is_counter: bool,
    /// Its value.
    pub value: f64,
}
