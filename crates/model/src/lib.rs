//! DeepSeek V4 in terms of chip operators.
//!
//! | item | role |
//! | --- | --- |
//! | [`Model`] | weights on a chip, and [`Model::step`]: rows of many sequences in, logits out |
//! | [`StatePool`] | the memory of all sequences: tails, pages of compressed entries, workspace |
//! | [`Sequence`] | one sequence's place in the pool: copied, rolled back, released when dropped |
//! | [`Page`] | a page kept outside of sequences, to make others from |
//! | [`ModelOptions`], [`StateOptions`] | numeric mode, KV format, sizes |
//!
//! The forward pass is written in `attention.rs`, `experts.rs` and `step.rs`, in the order of sections 1 to 6 of the V4
//! architecture notes. This crate enqueues operators and counts tokens; it never sees an activation.
//! It must not know threads, sockets or vendors.

mod attention;
mod error;
mod experts;
mod generated;
mod hyper;
#[cfg(test)]
mod invariants;
mod model;
#[cfg(test)]
mod official;
mod options;
mod pages;
mod rope;
mod sequence;
mod snapshot;
mod state;
mod step;
mod weights;
mod workspace;

pub use error::Error;
pub use model::Model;
pub use options::{KvFormat, ModelOptions, StateOptions};
pub use pages::PAGE_TOKEN_COUNT;
pub use sequence::Sequence;
pub use snapshot::Page;
pub use state::StatePool;
pub use step::{Chunk, Outputs};
