//! From token ids to token ids: feeding prompts, sampling, stopping, scoring.
//!
//! | item | role |
//! | --- | --- |
//! | [`Engine`] | a model with its state memory |
//! | [`Session`] | one growing sequence; reuses what a new prompt shares with the old one |
//! | [`Generation`] | the tokens of one answer, one [`Generation::next_token`] at a time |
//! | [`SamplingOptions`], [`Sampler`] | temperature, top-k, top-p, min-p, seed |
//! | [`score`], [`compare`] | teacher-forced log-probabilities; distance between two sets of logits |
//!
//! Sampling draws from a counter-based generator: the same seed gives the same text whatever else is computed.
//! This crate must not know HTTP, terminals, text or vendors.

pub mod compare;
mod engine;
mod error;
mod random;
mod sampling;
pub mod score;
mod session;

pub use engine::{Engine, EngineOptions};
pub use error::Error;
pub use random::uniform;
pub use sampling::{Sampler, SamplingOptions};
pub use session::{FinishReason, Generation, GenerationOptions, Session};
