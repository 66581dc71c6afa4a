//! DeepSeek models in terms of chip operators.
//!
//! | item | role |
//! | --- | --- |
//! | [`Model`] | weights on a chip, and [`Model::step`]: rows of many sequences in, logits out |
//! | [`StatePool`] | the memory of all sequences: tails, pages of entries, workspace |
//! | [`Sequence`] | one sequence's place in the pool: copied, rolled back, released when dropped |
//! | [`Model::draft`] | guesses of the model's own drafter about the tokens to come |
//! | [`Page`] | a page kept outside of sequences, to make others from |
//! | [`ModelOptions`], [`StateOptions`] | numeric mode, KV format, sizes |
//!
//! What all families share is here: weights by name, memory of sequences, steps. A family is a folder (`v3`, `v4`, `v41`) that
//! describes its weights, asks for the memory of its layers and enqueues its forward pass (`family.rs`). This crate enqueues operators and counts tokens; it never sees an activation.
//! It must not know threads, sockets or vendors.

mod draft;
mod error;
mod family;
mod generated;
#[cfg(test)]
mod invariants;
mod loader;
mod memory;
mod model;
mod options;
mod pages;
mod rope;
mod sequence;
mod snapshot;
mod state;
mod step;
mod v3;
mod v4;
mod v41;

pub use draft::{Choose, Draft, DraftRequest};
pub use error::Error;
pub use model::Model;
pub use options::{KvFormat, ModelOptions, StateOptions};
pub use pages::PAGE_TOKEN_COUNT;
pub use sequence::Sequence;
pub use snapshot::Page;
pub use state::StatePool;
pub use step::{Chunk, Outputs};
