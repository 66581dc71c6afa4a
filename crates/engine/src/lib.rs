//! From token ids to token ids: feeding prompts, sampling, stopping, scoring.
//!
//! | item | role |
//! | --- | --- |
//! | [`Service`] | answers many [`Request`]s at once: continuous batching on a thread of its own |
//! | [`Constraint`], [`TokenMask`] | limits on which tokens may be drawn |
//! | [`constraint`] | constraints from JSON Schemas, regular expressions and grammars |
//! | [`Engine`] | a model with its state memory |
//! | [`Session`] | one growing sequence; reuses what a new prompt shares with the old one |
//! | [`Generation`] | the tokens of one answer, one [`Generation::next_token`] at a time |
//! | [`Speculation`] | guesses of the model's drafter, checked: the same answers in fewer steps |
//! | [`SamplingOptions`], [`Sampler`] | temperature, top-k, top-p, min-p, seed |
//! | [`score`], [`compare`] | teacher-forced log-probabilities; distance between two sets of logits |
//!
//! Sampling draws from a counter-based generator: the same seed gives the same text whatever else is computed.
//! This crate must not know HTTP, terminals, text or vendors.

mod cache;
pub mod compare;
pub mod constraint;
mod engine;
mod error;
mod job;
mod mask;
mod random;
mod request;
mod sampling;
mod scheduler;
pub mod score;
mod service;
mod session;
mod speculation;
mod status;

pub use cache::CacheOptions;
pub use engine::{Engine, EngineOptions};
pub use error::Error;
pub use mask::{Constraint, TokenMask};
pub use random::uniform;
pub use request::{Event, Finish, FinishReason, Flow, MissReason, Request, RequestHandle, Sink, TokenEvent, Usage};
pub use sampling::{History, Sampler, SamplingOptions};
pub use service::{Service, ServiceOptions};
pub use session::{Generation, GenerationOptions, Session};
pub use speculation::{Speculation, SpeculationStatus};
pub use status::{MemoryStatus, ServiceStatus, StepProfile};
