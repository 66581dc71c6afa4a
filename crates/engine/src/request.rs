//! What a caller asks of a [`Service`](crate::Service) and what it hears back.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{Constraint, Error, SamplingOptions, service::Shared};

/// One answer wanted: token ids in, token ids out.
pub struct Request {
    /// The prompt, from its first token. At least one, fewer than the context.
    pub prompt: Vec<u32>,
    /// How tokens are drawn.
    pub sampling: SamplingOptions,
    /// Tokens of the answer at most. Default: what the context leaves.
    pub token_count_max: Option<usize>,
    /// Tokens that end the answer; they are reported in [`Finish::stop_token`], not as [`Event::Token`].
    pub stop_tokens: Vec<u32>,
    /// Reports the logarithm of each token's probability, and those of this many most likely tokens. Default: neither.
    pub logprob_count: Option<usize>,
    /// Limits which tokens may be drawn.
    pub constraint: Option<Box<dyn Constraint>>,
    /// Higher goes first and may push running requests of lower priority back into the queue. Default 0.
    pub priority: i32,
    /// When the answer is no longer wanted, whether the request still waits or runs.
    pub deadline: Option<Instant>,
    /// Requests of different groups, API keys for example, share the model fairly. Default: one group for all without.
    pub group: Option<String>,
    /// Prompt positions after which another prompt is likely to go on differently: ends of the system prompt, of the
    /// tools, of messages. The prefix cache remembers the state there; those beyond the prompt are ignored.
    pub borders: Vec<usize>,
}

impl Request {
    /// A request for an answer to `prompt` with every option at its default.
    pub fn new(prompt: Vec<u32>) -> Self {
        Request {
            prompt,
            sampling: SamplingOptions::default(),
            token_count_max: None,
            stop_tokens: Vec::new(),
            logprob_count: None,
            constraint: None,
            priority: 0,
            deadline: None,
            group: None,
            borders: Vec::new(),
        }
    }
}

/// Hears what becomes of a request.
pub trait Sink: Send {
    /// Called on the engine's thread for each event in order: it must not block. After [`Flow::Cancel`] comes one last
    /// [`Event::Finished`].
    fn event(&mut self, event: Event) -> Flow;
}

impl<F: FnMut(Event) -> Flow + Send> Sink for F {
    fn event(&mut self, event: Event) -> Flow {
        self(event)
    }
}

/// Whether a request goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It goes on.
    Continue,
    /// Nobody listens any more, or a stop string was found: it ends before its next token.
    Cancel,
}

/// What happens to a request. [`Event::Finished`] and [`Event::Failed`] come last, exactly one of them.
#[derive(Debug)]
pub enum Event {
    /// The request has left the queue. Comes once, also if the request is interrupted and resumed later.
    Admitted {
        /// Prompt tokens whose state was found in the prefix cache.
        reused: usize,
        /// Why not more of them, or none if only the last token, which every answer needs, was computed.
        missed: Option<MissReason>,
        /// Tokens of the prompt.
        prompt: usize,
    },
    /// A part of the prompt was computed.
    Prefill {
        /// Prompt tokens in the state, reused ones included.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token was drawn.
    Token(TokenEvent),
    /// The answer is complete.
    Finished(Finish),
    /// The answer cannot be completed.
    Failed(Error),
}

/// A token of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenEvent {
    /// Its id.
    pub token: u32,
    /// Natural logarithm of its probability in the model's own distribution: before temperature, penalties, biases,
    /// constraints and cuts. Present if [`Request::logprob_count`] is.
    pub logprob: Option<f32>,
    /// The most likely tokens of that distribution in descending order, [`Request::logprob_count`] of them.
    pub top: Vec<(u32, f32)>,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finish {
    /// Why.
    pub reason: FinishReason,
    /// The stop token, if one was drawn.
    pub stop_token: Option<u32>,
    /// What it took.
    pub usage: Usage,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model drew a stop token.
    Stop,
    /// The answer or the context is full.
    Length,
    /// The sink or the handle asked for it.
    Cancelled,
    /// The deadline passed while the answer was written.
    Deadline,
}

/// What an answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Those whose state was in the prefix cache.
    pub reused: usize,
    /// Tokens of the answer, the stop token included.
    pub generated: usize,
    /// From submission to the first step.
    pub queued: Duration,
    /// From the first step to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
    /// Times that the request was interrupted and resumed.
    pub interrupted: u32,
}

/// Why the state of a prompt was not reused to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MissReason {
    /// There is no prefix cache.
    Disabled,
    /// From this token on, nobody has sent this text before.
    FirstTime {
        /// Tokens known.
        from: usize,
    },
    /// The cache knows the text before this token, but goes on differently.
    Diverged {
        /// Position of the first token that differs.
        at: usize,
    },
    /// The text is known up to `known`, but the nearest state to start from lies before it.
    ReplayBound {
        /// Tokens known.
        known: usize,
    },
    /// The text was known and has been dropped for lack of room.
    Evicted {
        /// Tokens still known.
        known: usize,
    },
    /// The text is on disk for other weights, numeric mode or KV format.
    OtherModel,
    /// The text is on disk, but the file is damaged or cannot be read.
    Unreadable,
}

impl MissReason {
    /// A name for headers and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            MissReason::Disabled => "disabled",
            MissReason::FirstTime { .. } => "first_time",
            MissReason::Diverged { .. } => "diverged",
            MissReason::ReplayBound { .. } => "replay_bound",
            MissReason::Evicted { .. } => "evicted",
            MissReason::OtherModel => "other_model",
            MissReason::Unreadable => "unreadable",
        }
    }

    /// The position that the reason speaks of.
    pub fn position(&self) -> Option<usize> {
        match *self {
            MissReason::FirstTime { from: position }
            | MissReason::Diverged { at: position }
            | MissReason::ReplayBound { known: position }
            | MissReason::Evicted { known: position } => Some(position),
            MissReason::Disabled | MissReason::OtherModel | MissReason::Unreadable => None,
        }
    }
}

/// A submitted request. Dropping it does not cancel.
#[derive(Clone)]
pub struct RequestHandle {
    pub(crate) id: u64,
    pub(crate) cancelled: Arc<AtomicBool>,
    pub(crate) wake: Weak<Shared>,
}

impl std::fmt::Debug for RequestHandle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "RequestHandle({})", self.id)
    }
}

impl RequestHandle {
    /// Ends the request before its next step; its sink hears [`FinishReason::Cancelled`].
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        if let Some(shared) = self.wake.upgrade() {
            shared.notify_cancelled();
        }
    }

    /// A number that no other request of the service has.
    pub fn id(&self) -> u64 {
        self.id
    }
}
