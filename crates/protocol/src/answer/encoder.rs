//! All answers to a request: tokens in, frames or one body out.

use std::fmt;
use std::sync::Arc;

use cachalot_chat::{Ending, Tokenizer};
use serde_json::{Map, Value};

use super::block::{Outcome, Piece};
use super::choice::{Choice, Shared};
use super::tool_names::ToolNames;
use crate::call::{Call, History, Protocol};
use crate::error::ProtocolError;
use crate::frame::Frame;
use crate::prepare::Prepared;
use crate::replay::ReplayStore;
use crate::warning::Warning;
use crate::{chat_completions, completions, messages, responses};

/// What the answers to one request are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerOptions {
    /// Makes ids: letters and digits, unique among requests; see [`unique_suffix`](crate::unique_suffix).
    pub id_suffix: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Name of the model to report.
    pub model: String,
}

/// Why the engine ended an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// A stop token came, whether or not it was handed to [`AnswerEncoder::token`].
    Stop,
    /// The token limit or the end of the context was reached.
    Length,
    /// It was given up.
    Cancelled,
}

/// Tokens of a request, of all its answers together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_token_count: usize,
    /// Those of them that were reused from the prefix cache.
    pub cached_token_count: usize,
    /// Tokens sampled, the reasoning's and the end of the sentence included.
    pub answer_token_count: usize,
    /// Those of them that are reasoning.
    pub reasoning_token_count: usize,
}

/// What every frame or body needs.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) id_suffix: String,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) logprob_count: Option<usize>,
    pub(crate) prompt_token_count: usize,
    pub(crate) cached_token_count: usize,
    pub(crate) echo: Map<String, Value>,
    pub(crate) tokenizer: Tokenizer,
}

/// How a protocol writes answers.
pub(crate) trait Writer: Send {
    fn start(&mut self, head: &Head, choices: &[Choice]) -> Vec<Frame>;
    /// `choices[choice]` has changed by `piece`.
    fn piece(&mut self, head: &Head, choices: &[Choice], choice: usize, piece: &Piece) -> Vec<Frame>;
    /// `choices[choice]` is over.
    fn choice_over(&mut self, head: &Head, choices: &[Choice], choice: usize) -> Vec<Frame>;
    /// All are over.
    fn end(&mut self, head: &Head, choices: &[Choice]) -> Vec<Frame>;
    fn fail(&mut self, head: &Head, choices: &[Choice], error: &ProtocolError) -> Vec<Frame>;
    fn body(&self, head: &Head, choices: &[Choice]) -> Value;
}

/// Encodes the answers to one request in its protocol.
///
/// Tokens go in as they are sampled. Of a streaming request every call returns frames to send at once; of others the
/// vectors are empty, and [`into_body`](Self::into_body) gives the whole. Both say the same.
///
/// Order of calls: [`start`](Self::start) once the prompt is admitted, then [`token`](Self::token) and
/// [`finish`](Self::finish) for each answer, in any order among them. When [`is_over`](Self::is_over) holds for an
/// answer, its generation should be cancelled if it still runs; when [`is_done`](Self::is_done), nothing follows.
pub struct AnswerEncoder {
    head: Head,
    choices: Vec<Choice>,
    writer: Box<dyn Writer>,
    protocol: Protocol,
    prepared_turn: Option<crate::replay::TurnStart>,
    history: Option<History>,
    started: bool,
    done: bool,
}

impl AnswerEncoder {
    /// An encoder for the answers to `call`, whose prompt is `prepared`.
    pub fn new(call: &Call, prepared: &Prepared, tokenizer: &Tokenizer, options: AnswerOptions) -> Self {
        let tools = call.dialogue().map(|dialogue| ToolNames::new(&dialogue.tools));
        let prefix = match call.protocol {
            Protocol::Messages => "toolu_",
            _ => "call_",
        };
        let shared = Arc::new(Shared {
            tokenizer: tokenizer.clone(),
            start: prepared.answer_start,
            stops: call.stops.clone(),
            tools: tools.unwrap_or_default(),
            logprobs: call.logprob_count.is_some(),
            call_prefix: format!("{prefix}{}", options.id_suffix),
        });
        let choices = (0..call.answer_count.max(1)).map(|index| Choice::new(shared.clone(), index));
        let writer: Box<dyn Writer> = match call.protocol {
            Protocol::ChatCompletions => Box::new(chat_completions::response::ChatWriter),
            Protocol::Completions => Box::new(completions::response::CompletionWriter::new(call.answer_count.max(1))),
            Protocol::Responses => Box::new(responses::response::ResponseWriter::default()),
            Protocol::Messages => Box::new(messages::response::MessageWriter),
        };
        Self {
            choices: choices.collect(),
            writer,
            protocol: call.protocol,
            prepared_turn: prepared.turn.clone(),
            history: call.dialogue().filter(|_| call.store).map(|dialogue| History {
                messages: dialogue.messages.clone(),
            }),
            head: Head {
                id_suffix: options.id_suffix,
                created: options.created,
                model: options.model,
                stream: call.stream,
                include_usage: call.include_usage,
                logprob_count: call.logprob_count,
                prompt_token_count: prepared.ids.len(),
                cached_token_count: 0,
                echo: call.echo.clone(),
                tokenizer: tokenizer.clone(),
            },
            started: false,
            done: false,
        }
    }

    /// Begins the answers. `cached_token_count` tokens of the prompt were reused from the prefix cache.
    pub fn start(&mut self, cached_token_count: usize) -> Vec<Frame> {
        self.head.cached_token_count = cached_token_count.min(self.head.prompt_token_count);
        self.begin()
    }

    /// Takes in the next token of answer `choice`, with its log-probability and the likeliest ones.
    ///
    /// Tokens of an answer that is over, or that there is none of, change nothing.
    pub fn token(&mut self, choice: usize, token: u32, logprob: Option<f32>, top: &[(u32, f32)]) -> Vec<Frame> {
        self.advance(choice, |choice| choice.token(token, logprob, top))
    }

    /// Ends answer `choice`. Changes nothing if its tokens, or a stop string, have ended it.
    pub fn finish(&mut self, choice: usize, reason: EndReason) -> Vec<Frame> {
        let ending = match reason {
            EndReason::Stop => None,
            EndReason::Length => Some(Ending::Length),
            EndReason::Cancelled => Some(Ending::Cancelled),
        };
        self.advance(choice, |choice| choice.finish(ending))
    }

    /// Breaks off with `error`; nothing follows. For streams that have begun: before, and for other requests, send
    /// [`ProtocolError::to_body`].
    pub fn fail(&mut self, error: &ProtocolError) -> Vec<Frame> {
        if std::mem::replace(&mut self.done, true) || !self.head.stream {
            return Vec::new();
        }
        self.writer.fail(&self.head, &self.choices, error)
    }

    /// A frame that keeps the connection open and changes nothing; `progress` is for people.
    pub fn keep_alive(&self, progress: &str) -> Frame {
        match self.protocol {
            Protocol::Messages if self.started && !self.done => messages::response::ping(),
            _ => Frame::Comment(progress.to_owned()),
        }
    }

    /// Whether answer `choice` is over.
    pub fn is_over(&self, choice: usize) -> bool {
        self.choices.get(choice).is_none_or(Choice::is_over)
    }

    /// Whether all answers are over.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Why answer `choice` is over; `None` while it is not.
    pub fn outcome(&self, choice: usize) -> Option<&Outcome> {
        self.choices.get(choice)?.state.outcome.as_ref()
    }

    /// Tokens so far.
    pub fn usage(&self) -> Usage {
        usage(&self.head, &self.choices)
    }

    /// How the answers left the format.
    pub fn warnings(&self) -> impl Iterator<Item = &Warning> {
        self.choices.iter().flat_map(|choice| &choice.state.warnings)
    }

    /// Id of the response, as clients see it.
    pub fn id(&self) -> String {
        let suffix = &self.head.id_suffix;
        match self.protocol {
            Protocol::ChatCompletions => format!("chatcmpl-{suffix}"),
            Protocol::Completions => format!("cmpl-{suffix}"),
            Protocol::Responses => format!("resp_{suffix}"),
            Protocol::Messages => format!("msg_{suffix}"),
        }
    }

    /// Keeps what was sampled, so that the prompt of the next turn begins with the same tokens. For when all is over;
    /// answers that did not end by themselves, or left the format, are not kept.
    pub fn record(&self, store: &ReplayStore) {
        let Some(start) = &self.prepared_turn else { return };
        for choice in &self.choices {
            store.record(start, &choice.sampled, &choice.state);
        }
    }

    /// The conversation with the answer, to be kept under [`id`](Self::id) if the request has
    /// [`store`](Call::store); `None` if it has not, or while the answer is not over.
    pub fn history(&self) -> Option<History> {
        let mut history = self.history.clone()?;
        let state = &self.choices.first()?.state;
        state.outcome.as_ref()?;
        history.messages.push(crate::replay::as_message(state));
        Some(history)
    }

    /// The body for a request that does not stream, or the final object of one that does.
    pub fn body(&self) -> Value {
        self.writer.body(&self.head, &self.choices)
    }

    fn begin(&mut self) -> Vec<Frame> {
        if std::mem::replace(&mut self.started, true) || !self.head.stream {
            return Vec::new();
        }
        self.writer.start(&self.head, &self.choices)
    }

    fn advance(&mut self, index: usize, step: impl FnOnce(&mut Choice) -> Vec<Piece>) -> Vec<Frame> {
        if self.done || self.is_over(index) {
            return Vec::new();
        }
        let mut frames = self.begin();
        let pieces = step(&mut self.choices[index]);
        let over = self.is_over(index);
        self.done = self.choices.iter().all(Choice::is_over);
        if !self.head.stream {
            return frames;
        }
        for piece in &pieces {
            frames.extend(self.writer.piece(&self.head, &self.choices, index, piece));
        }
        if over {
            frames.extend(self.writer.choice_over(&self.head, &self.choices, index));
        }
        if self.done {
            frames.extend(self.writer.end(&self.head, &self.choices));
        }
        frames
    }
}

impl fmt::Debug for AnswerEncoder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AnswerEncoder")
            .field("id", &self.id())
            .field("choices", &self.choices)
            .finish_non_exhaustive()
    }
}

/// Tokens of a request so far.
pub(crate) fn usage(head: &Head, choices: &[Choice]) -> Usage {
    Usage {
        prompt_token_count: head.prompt_token_count,
        cached_token_count: head.cached_token_count,
        answer_token_count: choices.iter().map(|choice| choice.state.token_count).sum(),
        reasoning_token_count: choices.iter().map(|choice| choice.state.reasoning_token_count).sum(),
    }
}
