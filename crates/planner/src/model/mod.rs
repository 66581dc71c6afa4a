//! Models as the planner sees them: weight matrices, attention layers, experts.

mod from_inventory;
mod registry;
mod v3;
mod v4;
mod v41;

pub use registry::{find, names};

use cachalot_checkpoint::ModelConfig;

use crate::Error;

/// A model from its configuration alone.
pub fn from_config(name: &str, config: &ModelConfig) -> Result<Model, Error> {
    match config {
        ModelConfig::V3(config) => Ok(v3::model(name, config)),
        ModelConfig::V4(config) => Ok(v4::model(name, config)),
        ModelConfig::V41(config) => Ok(v41::model(name, config)),
        other => Err(Error::Family { family: other.family() }),
    }
}

/// Parts of a model, as its bytes are usually accounted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// Routed experts of the main layers.
    RoutedExperts,
    /// Query, key-value and output projections with their norms and sinks.
    Attention,
    /// Shared experts.
    SharedExperts,
    /// Feed-forward of layers without experts (V3).
    DenseFeedForward,
    /// Token embedding.
    Embedding,
    /// Output projection to the vocabulary.
    Head,
    /// Compressors of keys and values.
    Compressors,
    /// Indexers.
    Indexers,
    /// Hyper-connections.
    HyperConnections,
    /// Routers.
    Routers,
    /// Norms.
    Norms,
    /// Projections and gates of the n-gram memory (V4.1).
    EngramProjections,
    /// Tables of the n-gram memory (V4.1): a few rows are read for each token.
    EngramTables,
    /// Vision tower (V4.1).
    Vision,
    /// MTP layer or DSpark stages without their experts.
    Stages,
    /// Routed experts of the MTP layer or the DSpark stages.
    StageExperts,
}

impl Part {
    /// All parts, in the order of the enum.
    pub const ALL: [Part; 16] = [
        Part::RoutedExperts,
        Part::Attention,
        Part::SharedExperts,
        Part::DenseFeedForward,
        Part::Embedding,
        Part::Head,
        Part::Compressors,
        Part::Indexers,
        Part::HyperConnections,
        Part::Routers,
        Part::Norms,
        Part::EngramProjections,
        Part::EngramTables,
        Part::Vision,
        Part::Stages,
        Part::StageExperts,
    ];

    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Part::RoutedExperts => "routed experts",
            Part::Attention => "attention",
            Part::SharedExperts => "shared experts",
            Part::DenseFeedForward => "dense feed-forward",
            Part::Embedding => "embedding",
            Part::Head => "head",
            Part::Compressors => "compressors",
            Part::Indexers => "indexers",
            Part::HyperConnections => "hyper-connections",
            Part::Routers => "routers",
            Part::Norms => "norms",
            Part::EngramProjections => "Engram projections",
            Part::EngramTables => "Engram tables",
            Part::Vision => "vision",
            Part::Stages => "MTP or DSpark",
            Part::StageExperts => "MTP or DSpark experts",
        }
    }
}

/// How a matrix lies in the released files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stored {
    /// One byte a weight, and one scale of `scale_bytes` for each block.
    Fp8 {
        /// Rows of a block.
        block_rows: u64,
        /// Columns of a block.
        block_columns: u64,
        /// 1 for E8M0, 4 for F32.
        scale_bytes: u64,
    },
    /// Half a byte a weight and one scale byte for 32 columns.
    Fp4,
    /// Integers that `--dense` or `convert` made: packed codes and one scale byte for 32 columns.
    Integer {
        /// Of a code.
        bits: u64,
    },
    /// Two bytes a weight.
    Bf16,
    /// Four bytes a weight.
    F32,
    /// Eight bytes: tables of expert ids, which are no parameters.
    I64,
}

impl Stored {
    /// Bytes of a matrix, scales included.
    pub fn bytes(self, rows: u64, columns: u64) -> u64 {
        match self {
            Stored::Fp8 {
                block_rows,
                block_columns,
                scale_bytes,
            } => rows * columns + scale_bytes * rows.div_ceil(block_rows) * columns.div_ceil(block_columns),
            Stored::Fp4 => rows * columns.div_ceil(2) + rows * columns.div_ceil(32),
            Stored::Integer { bits } => rows * ((columns * bits).div_ceil(8) + columns.div_ceil(32)),
            Stored::Bf16 => 2 * rows * columns,
            Stored::F32 => 4 * rows * columns,
            Stored::I64 => 8 * rows * columns,
        }
    }
}

/// Equal tensors of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// Part of the model.
    pub part: Part,
    /// Name inside its layer, without the expert's number.
    pub name: String,
    /// Outputs.
    pub rows: u64,
    /// Inputs.
    pub columns: u64,
    /// How many of them the model has.
    pub count: u64,
    /// Format in the released files.
    pub stored: Stored,
}

impl Weight {
    /// Learned numbers of all of them.
    pub fn parameters(&self) -> u64 {
        match self.stored {
            Stored::I64 => 0,
            _ => self.rows * self.columns * self.count,
        }
    }

    /// Bytes of all of them as released.
    pub fn bytes(&self) -> u64 {
        self.stored.bytes(self.rows, self.columns) * self.count
    }
}

/// Layers that attend in the same way.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionGroup {
    /// Name of the kind.
    pub kind: &'static str,
    /// Layers that attend so.
    pub layers: u64,
    /// Of those, the ones that keep entries of their own (V4.1 shares entries between layers).
    pub owners: u64,
    /// Of those, the ones that score entries to select some.
    pub index_layers: u64,
    /// Most entries that an index layer scores; `None` for all.
    pub index_candidates_max: Option<u64>,
    /// Query heads.
    pub heads: u64,
    /// Multiply-adds of a head and a key, score and value together, against the stored entries.
    pub width: u64,
    /// The same in prefill, where it may pay to expand the entries first.
    pub prefill_width: u64,
    /// Positions of the window; 0 for none.
    pub window: u64,
    /// Tokens for one entry; `None` for no entries.
    pub ratio: Option<u64>,
    /// Entries that a query sees at most; `None` for all.
    pub select: Option<u64>,
    /// Bytes of a window row: packed, BF16.
    pub window_bytes: [u64; 2],
    /// Bytes of an entry: packed, BF16.
    pub entry_bytes: [u64; 2],
    /// Bytes of an index key: packed, BF16. Owners have them.
    pub key_bytes: [u64; 2],
    /// Heads and channels of the indexer.
    pub index: Option<(u64, u64)>,
    /// Bytes of open windows for each layer and sequence.
    pub open_bytes: u64,
    /// Kernels that a layer launches for its attention and residual.
    pub launches: u64,
}

impl AttentionGroup {
    /// Keys that the query at position `n` (0-based, so `n + 1` tokens exist) sees in one layer: window, entries.
    pub fn keys(&self, n: f64) -> (f64, f64) {
        let window = (n + 1.0).min(self.window as f64);
        (
            window,
            self.entries(n).min(self.select.map_or(f64::INFINITY, |k| k as f64)),
        )
    }

    /// Entries that exist at position `n`.
    pub fn entries(&self, n: f64) -> f64 {
        self.ratio.map_or(0.0, |ratio| (n + 1.0) / ratio as f64)
    }

    /// Entries that an index layer scores at position `n`.
    pub fn candidates(&self, n: f64) -> f64 {
        let limit = self.index_candidates_max.map_or(f64::INFINITY, |limit| limit as f64);
        self.entries(n).min(limit)
    }
}

/// Routed experts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Experts {
    /// Layers that have them.
    pub layers: u64,
    /// Experts of a layer.
    pub count: u64,
    /// Experts that a token uses.
    pub active: u64,
    /// Nodes that a token's experts may lie on; `None` for no limit.
    pub node_limit: Option<u64>,
}

/// The drafter that comes with a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drafter {
    /// Its layers.
    pub layers: u64,
    /// Whether one pass drafts a whole block (DSpark) or one token (MTP).
    pub block: Option<u64>,
    /// Experts of a layer and those that a token uses.
    pub experts: (u64, u64),
}

/// A model.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Name.
    pub name: String,
    /// Where its numbers come from.
    pub origin: &'static str,
    /// Channels of a residual stream.
    pub hidden: u64,
    /// Residual streams.
    pub streams: u64,
    /// Main layers.
    pub layers: u64,
    /// Longest sequence.
    pub context_max: u64,
    /// Tokens of the vocabulary.
    pub vocabulary: u64,
    /// All weights.
    pub weights: Vec<Weight>,
    /// Attention of all layers.
    pub attention: Vec<AttentionGroup>,
    /// Routed experts.
    pub experts: Experts,
    /// Drafter, if it has one.
    pub drafter: Option<Drafter>,
}

/// How keys and entries are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvFormat {
    /// As packed as the model's reference allows.
    Packed = 0,
    /// BF16.
    Bf16 = 1,
}

impl Model {
    /// Released bytes of the whole checkpoint.
    pub fn bytes(&self) -> u64 {
        self.weights.iter().map(Weight::bytes).sum()
    }

    /// Released bytes of a part.
    pub fn part_bytes(&self, part: Part) -> u64 {
        let parts = self.weights.iter().filter(|weight| weight.part == part);
        parts.map(Weight::bytes).sum()
    }

    /// Learned numbers of a part.
    pub fn part_parameters(&self, part: Part) -> u64 {
        let parts = self.weights.iter().filter(|weight| weight.part == part);
        parts.map(Weight::parameters).sum()
    }

    /// Bytes by which the state of a sequence grows with each token, on average.
    pub fn kv_bytes_per_token(&self, format: KvFormat) -> f64 {
        let groups = self.attention.iter().filter_map(|group| {
            let bytes = group.entry_bytes[format as usize] + group.key_bytes[format as usize];
            Some(group.owners as f64 * bytes as f64 / group.ratio? as f64)
        });
        groups.sum()
    }

    /// Bytes of the state of a sequence that do not grow; also what a snapshot needs beside shared pages.
    pub fn fixed_bytes_per_sequence(&self, format: KvFormat) -> u64 {
        let groups = self.attention.iter().map(|group| {
            let window = group.window * group.window_bytes[format as usize];
            group.layers * window + group.owners * group.open_bytes
        });
        groups.sum()
    }

    /// Kernels that one pass launches, without drafting.
    pub fn launches(&self) -> u64 {
        let attention: u64 = self.attention.iter().map(|group| group.layers * group.launches).sum();
        // Router, choice, dispatch, two products, SwiGLU, combine, shared expert with its SwiGLU.
        attention + 10 * self.layers + 4
    }
}
