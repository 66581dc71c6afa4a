//! Answers: tokens in, frames and bodies out.

pub(crate) mod arguments;
pub(crate) mod block;
pub(crate) mod choice;
mod encoder;
mod stops;
mod tool_names;

pub use block::Outcome;
pub use encoder::{AnswerEncoder, AnswerOptions, EndReason, Usage};
pub(crate) use encoder::{Head, Writer, usage};
