//! Checkpoints of the DeepSeek-V4 family: configuration, tensors, and random ones to try things with.
//!
//! | item | holds |
//! | --- | --- |
//! | [`DeepseekV4Config`] | config.json, typed and checked |
//! | [`Checkpoint`] | the tensors of a folder or of files in memory, checked and looked up by official name without copying |
//! | [`published`] | the configurations of the releases, built in |
//! | [`inventory`] | every tensor that a configuration demands |
//! | [`accounting`] | bytes and parameters of a model, from its configuration alone |
//! | [`synth`] | random checkpoints of true shapes |
//!
//! Nothing in a file is believed before it is checked; whatever is wrong becomes an [`Error`] that names
//! file, tensor or key and the remedy.
//!
//! This crate must not know how a layer computes, nor chips, nor HTTP.

pub mod accounting;
mod audit;
mod catalogue;
mod checkpoint;
mod config;
mod disk;
mod error;
mod header;
mod index;
pub mod inventory;
mod json;
mod names;
mod parallel;
mod progress;
pub mod published;
mod source;
pub mod synth;
mod values;
mod verify;

pub use audit::{Problem, ProblemGroup, TensorReport};
pub use checkpoint::{Checkpoint, StoredMatrix, StoredTensor};
pub use config::{AttentionKind, DeepseekV4Config, Dspark, ExpertDtype, Quantization, RopeScaling, ScaleFormat};
pub use error::Error;
pub use header::HeaderFault;
pub use index::IndexFault;
pub use progress::Progress;
pub use values::ValueFault;
pub use verify::check_scales;
