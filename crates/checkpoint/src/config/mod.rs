//! config.json as typed, checked values: one type for each family of models, and what all of them tell.

mod architecture;
mod family;
mod fields;
pub(crate) mod limits;
mod parts;
pub(crate) mod v3;
pub(crate) mod v4;
pub(crate) mod v41;

pub use architecture::Architecture;
pub use family::ModelConfig;
pub use v3::{DeepseekV3Config, IndexerConfig};
pub use v4::{AttentionKind, DeepseekV4Config, Dspark};
pub use v41::{Candidates, DeepseekV41Config, DsparkExperts, EngramConfig, LayerRole, TOKEN_MAP_KEY, VisionConfig};

/// Key of config.json by which a converted folder announces its low-bit format: `{"format": "int4", "group_size": 32}`.
pub const LOW_BIT_KEY: &str = "cachalot_dense";

/// YaRN settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeScaling {
    /// By how much slow channels are slowed down further.
    pub factor: f64,
    /// Rotations above which a channel keeps its frequency.
    pub beta_fast: f64,
    /// Rotations below which a channel is slowed by the whole factor.
    pub beta_slow: f64,
    /// Length of the sequences before the extension.
    pub original_max_position_embeddings: usize,
}

/// Announced format of routed experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertDtype {
    /// Packed e2m1 with one E8M0 scale for 32 columns.
    Fp4,
    /// e4m3 in blocks, as dense matrices.
    Fp8,
}

/// Quantisation of matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantization {
    /// Rows and columns of a block of an FP8 matrix that share a scale.
    pub weight_block_size: [usize; 2],
    /// `Some` if the file announces power-of-two scales, `None` for F32 scales.
    pub scale_fmt: Option<ScaleFormat>,
}

/// Announced format of scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleFormat {
    /// Powers of two in a byte.
    Ue8m0,
}
