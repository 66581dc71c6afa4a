//! Checkpoints of DeepSeek models: configuration, tensors, and random ones to try things with.
//!
//! | item | holds |
//! | --- | --- |
//! | [`ModelConfig`] | config.json, typed and checked, of any family; [`Architecture`] is what all families tell |
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
//!
//! ```
//! use cachalot_checkpoint::{Checkpoint, ModelConfig, accounting, published, synth};
//!
//! // What a release amounts to, without having it.
//! let text = published::config("DeepSeek-V4-Flash").expect("a release");
//! let config = ModelConfig::from_json(text, "config.json".as_ref())?;
//! assert_eq!(accounting::total(&config).bytes, 159_609_485_896);
//!
//! // A checkpoint on disk: here a random one of a tiny model.
//! # let parent = tempfile::tempdir().unwrap();
//! # let folder = parent.path().join("tiny");
//! # let text = include_str!("../../../fuzz/corpus/config/all_layers.json");
//! synth::write(text, 1, &folder, |progress| assert!(progress.bytes_done <= progress.bytes_total))?;
//! let checkpoint = Checkpoint::open(&folder)?;
//! let expert = checkpoint.matrix("layers.3.ffn.experts.2.w1")?;
//! assert_eq!((expert.rows, expert.columns), (32, 64));
//! # Ok::<(), cachalot_checkpoint::Error>(())
//! ```

pub mod accounting;
mod audit;
mod catalogue;
mod checkpoint;
mod config;
mod convert;
mod disk;
mod error;
mod fingerprint;
mod header;
mod index;
pub mod inventory;
mod json;
mod low_bit;
mod names;
mod parallel;
mod progress;
pub mod published;
mod source;
pub mod synth;
mod token_map;
mod values;
mod verify;

pub use audit::{Problem, ProblemGroup, TensorReport};
pub use checkpoint::{Checkpoint, Place, StoredMatrix, StoredTensor};
pub use config::LOW_BIT_KEY;
pub use config::{
    Architecture, AttentionKind, Candidates, DeepseekV3Config, DeepseekV4Config, DeepseekV41Config, Dspark,
    DsparkExperts, EngramConfig, ExpertDtype, IndexerConfig, LayerRole, ModelConfig, Quantization, RopeScaling,
    ScaleFormat, TOKEN_MAP_KEY, VisionConfig,
};
pub use convert::Converted;
pub use disk::available_bytes;
pub use error::Error;
pub use header::HeaderFault;
pub use index::IndexFault;
pub use low_bit::LowBit;
pub use progress::Progress;
pub use source::StoredFile;
pub use values::ValueFault;
pub use verify::check_scales;
