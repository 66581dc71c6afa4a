//! The tile unit of x86-64 (AMX) with bf16 operands.
//!
//! A tile is 16 rows of 64 bytes. One [`tile::multiply_add`] multiplies a tile of 16 × 32 values by one of 32 × 16 and
//! adds the product to a tile of 16 × 16 sums, 16 cycles for 8192 multiply-adds. What an element becomes depends on its
//! row of the one operand, its column of the other and its sum so far, and on nothing else: not on how many rows and
//! columns the tiles have.

mod activations;
mod attend;
mod index;
mod keys;
mod narrow;
mod product;
mod results;
mod softmax;
pub(crate) mod tile;
mod transpose;
mod weights;
mod wide;

use std::{arch::x86_64::__cpuid_count, sync::OnceLock};

use crate::{
    avx512::Avx512,
    kernels::Chosen,
    operators::{EntryReader, Heads, Packing, RowKeys},
    pool::Pool,
    product::Product,
};

pub(crate) use attend::Scratch as AttendScratch;
pub(crate) use index::{Queries as IndexQueries, Scratch as IndexScratch};

/// Proof that this processor has AMX with bf16 operands, that the system lets this process use it, AVX-512 VBMI, VNNI and
/// BF16, and what [`Avx512`] proves.
#[derive(Clone, Copy)]
pub(crate) struct Amx(());

impl Amx {
    /// The proof, if processor and system give it. The first call asks the system.
    pub fn detect() -> Option<Self> {
        static IS_PERMITTED: OnceLock<bool> = OnceLock::new();
        let is_permitted = *IS_PERMITTED.get_or_init(|| has_vectors() && has_bf16_tiles() && permit());
        is_permitted.then_some(Amx(()))
    }

    /// Runs all products in one parallel region. `other` computes rows of those that the tile unit cannot take.
    pub fn run(self, pool: &Pool, products: &[Product<'_>], other: product::Other<'_>) {
        product::run(self, pool, products, other);
    }

    /// Whether [`Amx::score`] can read keys packed this way.
    pub fn can_score(self, packing: &Packing) -> bool {
        index::can_score(packing)
    }

    /// Indexer scores of keys `first ..` of one sequence for some of its rows: a slice for each row, all of one length.
    pub fn score(
        self,
        queries: &IndexQueries<'_>,
        keys: &EntryReader<'_>,
        first: usize,
        scores: &mut [&mut [f32]],
        scratch: &mut IndexScratch,
    ) {
        // SAFETY: `self` proves the features.
        unsafe { index::score(self, queries, keys, first, scores, scratch) }
    }

    /// Attention of some heads of one row over keys that bf16 holds exactly; `heads.scale` is positive.
    pub fn attend(
        self,
        kernels: Chosen,
        heads: &Heads<'_>,
        keys: &RowKeys<'_>,
        scratch: &mut AttendScratch,
        out: &mut [f32],
    ) {
        // SAFETY: `self` proves the features.
        unsafe { attend::attend(self, kernels, heads, keys, scratch, out) }
    }
}

fn has_vectors() -> bool {
    Avx512::detect().is_some()
        && is_x86_feature_detected!("avx512vbmi")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("avx512bf16")
}

fn has_bf16_tiles() -> bool {
    const FEATURES: u32 = 7;
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    // The leaf exists wherever AVX-512 does.
    __cpuid_count(FEATURES, 0).edx & (BF16 | TILE) == BF16 | TILE
}

/// Whether tiles of 8-bit integers can be multiplied as well; asked where there is [`Amx`] already.
pub(crate) fn has_int8_tiles() -> bool {
    const FEATURES: u32 = 7;
    const INT8: u32 = 1 << 25;
    __cpuid_count(FEATURES, 0).edx & INT8 != 0
}

/// Asks the system for the tiles' state, which it saves only for processes that asked; holds for all threads.
#[cfg(target_os = "linux")]
fn permit() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and touches no memory of this process. Systems that do not know it refuse.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permit() -> bool {
    false
}
