//! The operators, one file a topic. What they compute is said in [`cachalot_chip::Operation`].

mod attention;
mod blocks;
mod compress;
mod engram;
mod experts;
mod hyper;
mod index;
mod latent;
mod linear;
mod norm;
mod packed;
mod rope;
mod route;
mod rows;
mod shared;
mod top;

use cachalot_chip::{Error, Mode, Operation, OperationKind};
use cachalot_numerics::bf16;

use crate::{
    access::Access,
    kernels::{Chosen, Kernels},
    pool::Pool,
};

pub(crate) use experts::expect_experts;
#[cfg(target_arch = "x86_64")]
pub(crate) use {
    attention::{Heads, RowKeys},
    packed::{EntryReader, Packing},
};

/// What an operator needs besides its arguments.
pub(crate) struct Context<'a> {
    pub access: Access<'a>,
    pub pool: &'a Pool,
    pub mode: Mode,
    pub kernels: Kernels,
}

impl Context<'_> {
    fn chosen(&self) -> Chosen {
        Chosen::new(self.kernels, self.mode)
    }

    /// Rounds a result to bf16 in official mode.
    fn round(&self, values: &mut [f32]) {
        if self.mode == Mode::Official {
            values.iter_mut().for_each(|value| *value = bf16::round(*value));
        }
    }

    fn index_error(&self, tensor: &'static str, index: i64, limit: usize) -> Error {
        Error::Index {
            operation: self.access.operation(),
            tensor,
            index,
            limit,
        }
    }

    /// `index` as a position below `limit`.
    fn index(&self, tensor: &'static str, index: i64, limit: usize) -> Result<usize, Error> {
        usize::try_from(index)
            .ok()
            .filter(|i| *i < limit)
            .ok_or_else(|| self.index_error(tensor, index, limit))
    }
}

/// Operators that have SIMD kernels.
pub(crate) fn has_fast_kernel(kind: OperationKind) -> bool {
    matches!(
        kind,
        OperationKind::Linear
            | OperationKind::GroupedLinear
            | OperationKind::Experts
            | OperationKind::Attention
            | OperationKind::LatentQuery
            | OperationKind::LatentAttention
            | OperationKind::SelectEntries
            | OperationKind::SelectBlocks
            | OperationKind::SelectInBlocks
            | OperationKind::HyperMix
            | OperationKind::HyperWeights
            | OperationKind::HyperHead
    )
}

/// Runs one operator that has passed its own checks.
pub(crate) fn run(context: &Context<'_>, operation: &Operation<'_>) -> Result<(), Error> {
    match operation {
        Operation::Embed(operation) => rows::embed(context, operation),
        Operation::HyperMix(operation) => hyper::mix(context, operation),
        Operation::HyperPost(operation) => hyper::post(context, operation),
        Operation::HyperHead(operation) => hyper::head(context, operation),
        Operation::HyperWeights(operation) => hyper::weights(context, operation),
        Operation::HyperCollapse(operation) => hyper::collapse(context, operation),
        Operation::NgramRows(operation) => engram::ngram_rows(context, operation),
        Operation::EngramGate(operation) => engram::gate(context, operation),
        Operation::PoolWindows(operation) => shared::pool_windows(context, operation),
        Operation::StoreEntries(operation) => shared::store_entries(context, operation),
        Operation::SelectBlocks(operation) => blocks::select_blocks(context, operation),
        Operation::SelectInBlocks(operation) => blocks::select_in_blocks(context, operation),
        Operation::RmsNorm(operation) => norm::rms_norm(context, operation),
        Operation::Linear(operation) => linear::linear(context, operation),
        Operation::GroupedLinear(operation) => linear::grouped_linear(context, operation),
        Operation::RopeAngles(operation) => rope::angles(context, operation),
        Operation::Rope(operation) => rope::rope(context, operation),
        Operation::RopeHalves(operation) => rope::halves(context, operation),
        Operation::PackRows(operation) => packed::pack_rows(context, operation),
        Operation::WriteTail(operation) => rows::write_tail(context, operation),
        Operation::Compress(operation) => compress::compress(context, operation),
        Operation::IndexQuery(operation) => index::query(context, operation),
        Operation::SelectEntries(operation) => index::select_entries(context, operation),
        Operation::Attention(operation) => attention::attention(context, operation),
        Operation::StoreKeys(operation) => latent::store_keys(context, operation),
        Operation::LatentQuery(operation) => latent::query(context, operation),
        Operation::LatentAttention(operation) => latent::attention(context, operation),
        Operation::Route(operation) => route::route(context, operation),
        Operation::Experts(operation) => experts::experts(context, operation),
        Operation::SwiGlu(operation) => experts::swiglu(context, operation),
        Operation::Add(operation) => rows::add(context, operation),
        Operation::GatherRows(operation) => rows::gather(context, operation),
        Operation::CopyTensor(operation) => rows::copy(context, operation),
    }
}
