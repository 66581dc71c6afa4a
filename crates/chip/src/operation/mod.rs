//! Every operator: arguments, shapes, dtypes, rounding.
//!
//! Notation: `T` rows of the step, `S` sequences, `d` hidden size, `n` streams of the hyper-connection, `H` heads,
//! `D` head dimension, `R` rotary channels, `E` experts, `k` experts of a token. Activations are `F32`.
//!
//! In [`Mode::Reference`](crate::Mode::Reference) nothing is rounded beyond `f32`. The paragraph "Official" of an
//! operator says what [`Mode::Official`](crate::Mode::Official) rounds (section 8 of the V4 architecture notes).
//! Operators without such a paragraph compute alike in both.
//!
//! Matrix products accumulate in `f32` in an order that depends on nothing but the inner dimension.

mod attention;
mod check;
mod cost;
mod engram;
mod experts;
mod hyper;
mod latent;
mod linear;
mod rows;
mod shared;
mod single_pass;

pub use attention::{AttendEntries, Attention, Compress, IndexQuery, SelectEntries};
pub use cost::Cost;
pub use engram::{EngramGate, NgramRows};
pub use experts::{ExpertMatrices, Experts, Route, RouteChoice, SwiGlu};
pub use hyper::{HyperHead, HyperMix, HyperPost};
pub use latent::{KeyForm, LatentAttention, LatentQuery, StoreKeys};
pub use linear::{GroupedLinear, Linear, LinearRounding};
pub use rows::{
    Add, CopyTensor, Embed, GatherRows, PackRows, RmsNorm, Rope, RopeAngles, RopeDirection, RopeHalves, WriteTail,
};
pub use shared::{PoolWindows, SelectBlocks, SelectInBlocks, StoreEntries};
pub use single_pass::{HyperCollapse, HyperWeights};

use std::fmt;

use crate::Error;

macro_rules! operations {
    ($($(#[$documentation:meta])* $kind:ident => $name:literal),* $(,)?) => {
        /// An operator with its arguments.
        #[derive(Clone, Copy, Debug)]
        pub enum Operation<'a> {
            $($(#[$documentation])* $kind($kind<'a>),)*
        }

        /// The operators without their arguments: for reports, profiles and errors.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum OperationKind {
            $($(#[$documentation])* $kind,)*
        }

        impl OperationKind {
            /// All operators.
            pub const ALL: &'static [OperationKind] = &[$(OperationKind::$kind),*];
        }

        impl Operation<'_> {
            /// Which operator this is.
            pub fn kind(&self) -> OperationKind {
                match self {
                    $(Operation::$kind(_) => OperationKind::$kind,)*
                }
            }

            /// Checks shapes, dtypes, numbers and overlap on the host. Every chip calls this first.
            ///
            /// # Errors
            /// [`Error::Shape`], [`Error::Dtype`], [`Error::Overlap`], [`Error::Argument`].
            pub fn check(&self) -> Result<(), Error> {
                match self {
                    $(Operation::$kind(operation) => operation.check(),)*
                }
            }
        }

        impl fmt::Display for OperationKind {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(match self {
                    $(OperationKind::$kind => $name,)*
                })
            }
        }

        $(impl<'a> From<$kind<'a>> for Operation<'a> {
            fn from(operation: $kind<'a>) -> Self {
                Operation::$kind(operation)
            }
        })*
    };
}

operations! {
    /// Token embedding into the residual streams.
    Embed => "embed",
    /// Hyper-connection: mixing weights and the sub-layer's input.
    HyperMix => "hyper-connection mix",
    /// Hyper-connection: the sub-layer's output back into the streams.
    HyperPost => "hyper-connection post",
    /// Hyper-connection: final collapse of the streams.
    HyperHead => "hyper-connection head",
    /// Hyper-connection: mixing weights without the sub-layer's input (V4.1).
    HyperWeights => "hyper-connection weights",
    /// Hyper-connection: the streams with given weights (V4.1).
    HyperCollapse => "hyper-connection collapse",
    /// Rows of an Engram table (V4.1).
    NgramRows => "n-gram rows",
    /// Engram's addition to the streams (V4.1).
    EngramGate => "engram gate",
    /// Root-mean-square normalisation.
    RmsNorm => "rms-norm",
    /// Matrix product with a weight.
    Linear => "linear",
    /// Block-diagonal matrix product (output projection).
    GroupedLinear => "grouped linear",
    /// Cosines and sines of the rotary angles.
    RopeAngles => "rope angles",
    /// Rotary embedding in place.
    Rope => "rope",
    /// Rotary embedding in place of indexer queries (V3.2).
    RopeHalves => "rope halves",
    /// Packs rows for the window or an entry pool.
    PackRows => "pack rows",
    /// Writes rows into the tail ring of their sequence.
    WriteTail => "write tail",
    /// Compressor: emits the entries of completed windows.
    Compress => "compressor",
    /// Indexer query: Hadamard rotation and rounding.
    IndexQuery => "indexer query",
    /// Lightning indexer: scores and top-k.
    SelectEntries => "indexer scores and top-k",
    /// Sparse attention with sink over window and entries.
    Attention => "sparse attention",
    /// Normalised and rotated keys into an entry pool (V3).
    StoreKeys => "store keys",
    /// Queries into the space of the latents (V3).
    LatentQuery => "latent query",
    /// Attention to latents (V3).
    LatentAttention => "latent attention",
    /// Means of completed windows (V4.1).
    PoolWindows => "pool windows",
    /// Rotated entries into their pool (V4.1).
    StoreEntries => "store entries",
    /// Indexer: blocks that later layers select in (V4.1).
    SelectBlocks => "indexer scores and blocks",
    /// Indexer: scores and top-k in picked blocks (V4.1).
    SelectInBlocks => "indexer scores in blocks",
    /// Router: experts and weights of each token.
    Route => "router",
    /// Routed experts with clamped SwiGLU, combined.
    Experts => "routed experts",
    /// Clamped SwiGLU of the shared expert.
    SwiGlu => "swiglu",
    /// Sum of two tensors.
    Add => "add",
    /// Picks rows.
    GatherRows => "gather rows",
    /// Copy inside chip memory.
    CopyTensor => "copy",
}
