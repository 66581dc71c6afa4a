//! The parts of an answer, as clients see them.

use crate::call::ToolShape;
use crate::warning::Warning;

/// A part of an answer. Neighbours are of different kinds, but for calls.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Block {
    Reasoning(String),
    Text { text: String, logprobs: Vec<TokenLogprob> },
    Call(CallBlock),
}

/// A tool call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CallBlock {
    /// Number among the calls of the answer, from 0.
    pub(crate) index: usize,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) shape: ToolShape,
    /// JSON text, of an object if the call is whole.
    pub(crate) arguments: String,
    pub(crate) state: CallState,
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CallState {
    Open,
    Whole,
    /// The token limit or a cancellation fell into it. Its arguments are left unfinished.
    Cut,
    /// Its markup could not be read. Its arguments are left unfinished, so that nobody runs it by mistake.
    Malformed {
        raw: String,
    },
}

/// The log-probability of a token of the text, and of the likeliest ones in its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TokenLogprob {
    pub(crate) token: u32,
    pub(crate) logprob: f32,
    pub(crate) top: Vec<(u32, f32)>,
}

/// What happened to a part of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Piece {
    Started {
        block: usize,
    },
    Delta {
        block: usize,
        text: String,
        logprobs: Vec<TokenLogprob>,
    },
    Ended {
        block: usize,
    },
}

/// Why an answer is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The model ended it.
    Stop,
    /// One of the request's stop strings came up.
    StopString(String),
    /// The model ended it after calling tools.
    ToolCalls,
    /// The token limit was reached.
    Length,
    /// It was given up.
    Cancelled,
}

/// An answer so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct AnswerState {
    pub(crate) blocks: Vec<Block>,
    pub(crate) warnings: Vec<Warning>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) token_count: usize,
    pub(crate) reasoning_token_count: usize,
}

impl AnswerState {
    /// All reasoning.
    pub(crate) fn reasoning(&self) -> String {
        let reasoning = self.blocks.iter().filter_map(|block| match block {
            Block::Reasoning(text) => Some(text.as_str()),
            Block::Text { .. } | Block::Call(_) => None,
        });
        reasoning.collect()
    }

    /// All text.
    pub(crate) fn text(&self) -> String {
        let texts = self.blocks.iter().filter_map(|block| match block {
            Block::Text { text, .. } => Some(text.as_str()),
            Block::Reasoning(_) | Block::Call(_) => None,
        });
        texts.collect()
    }

    /// All calls, whole or not.
    pub(crate) fn calls(&self) -> impl Iterator<Item = &CallBlock> {
        self.blocks.iter().filter_map(|block| match block {
            Block::Call(call) => Some(call),
            Block::Reasoning(_) | Block::Text { .. } => None,
        })
    }
}
