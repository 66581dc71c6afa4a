//! Entries that one layer makes for many, and the two-level selection among them (V4.1).

use cachalot_numerics::Dtype;

use super::{OperationKind, check::Check};
use crate::{Entries, Error, Rows, Tensor};

/// Weighted means of the windows of `ratio` positions that a row of this step completes.
///
/// For every channel `out = sum_u softmax_u(gate_u) * kv_u` over the window's rows, at the row that completes it; zero at
/// the others. Rows of this step come from `kv` and `gate`, earlier ones from the tails, so this runs before
/// [`WriteTail`](super::WriteTail).
///
/// Official: the mean is rounded to bf16.
#[derive(Clone, Copy, Debug)]
pub struct PoolWindows<'a> {
    /// Where the rows belong.
    pub rows: Rows<'a>,
    /// `F32 [T, width]`.
    pub kv: &'a Tensor,
    /// `F32 [T, width]`.
    pub gate: &'a Tensor,
    /// `F32 [slots, rows of a ring, width]`, at least `ratio - 1` rows.
    pub kv_tail: &'a Tensor,
    /// `F32 [slots, rows of a ring, width]`.
    pub gate_tail: &'a Tensor,
    /// Positions of a window.
    pub ratio: usize,
    /// Output, `F32 [T, width]`.
    pub out: &'a Tensor,
}

impl PoolWindows<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::PoolWindows,
        };
        check.rows(&self.rows)?;
        check.rank("kv", self.kv, 2)?;
        let shape = [self.rows.row_count(), self.kv.shape()[1]];
        check.f32("kv", self.kv, &shape)?;
        check.f32("gate", self.gate, &shape)?;
        check.f32("out", self.out, &shape)?;
        check.tail("kv_tail", self.kv_tail, Dtype::F32, shape[1])?;
        check.f32("gate_tail", self.gate_tail, self.kv_tail.shape())?;
        check.require(self.ratio > 0 && self.kv_tail.shape()[1] + 1 >= self.ratio, || {
            format!(
                "a ring of {} rows cannot hold a window of {}",
                self.kv_tail.shape()[1],
                self.ratio
            )
        })?;
        let out = ("out", self.out);
        check.disjoint(out, &self.rows.tensors())?;
        check.disjoint(
            out,
            &[
                ("kv", self.kv),
                ("gate", self.gate),
                ("kv_tail", self.kv_tail),
                ("gate_tail", self.gate_tail),
            ],
        )
    }
}

/// Rotates and packs one entry for each row that completes a window of the entries' ratio, and writes it into the pool:
/// entry `j`, whose row is at position `ratio * (j + 1) - 1`, is rotated as position `ratio * j`. Other rows are not read.
///
/// Official: the rotated channels are rounded to bf16.
#[derive(Clone, Copy, Debug)]
pub struct StoreEntries<'a> {
    /// Where the rows belong.
    pub rows: Rows<'a>,
    /// `F32 [T, width]`.
    pub x: &'a Tensor,
    /// `F32 [tail / 2]`.
    pub frequencies: &'a Tensor,
    /// The pool, changed in place.
    pub out: Entries<'a>,
}

impl StoreEntries<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::StoreEntries,
        };
        check.rows(&self.rows)?;
        check.entries(&self.out, &self.rows)?;
        check.f32("x", self.x, &[self.rows.row_count(), self.out.width])?;
        check.f32("frequencies", self.frequencies, &[self.out.tail / 2])?;
        let pool = ("pool", self.out.pool);
        check.disjoint(pool, &self.rows.tensors())?;
        check.disjoint(
            pool,
            &[
                ("page_table", self.out.page_table),
                ("x", self.x),
                ("frequencies", self.frequencies),
            ],
        )
    }
}

/// Picks blocks of consecutive entries in which later layers select, by the scores of
/// [`SelectEntries`](super::SelectEntries).
///
/// A block counts as its best visible entry; the block with the newest visible entry always wins. The best blocks are
/// written in ascending order, the rest of the row is -1. Ties go to the lower block. When no more blocks are visible than
/// fit, all of them are picked.
///
/// Official: as [`SelectEntries`](super::SelectEntries).
#[derive(Clone, Copy, Debug)]
pub struct SelectBlocks<'a> {
    /// Where the rows belong.
    pub rows: Rows<'a>,
    /// `F32 [T, heads, width]`, after [`IndexQuery`](super::IndexQuery).
    pub query: &'a Tensor,
    /// `F32 [T, heads]`; may be negative.
    pub weights: &'a Tensor,
    /// Factor of the weights.
    pub scale: f32,
    /// Index keys.
    pub keys: Entries<'a>,
    /// Entries of a block.
    pub block_size: usize,
    /// Output, `I32 [T, blocks]`.
    pub blocks: &'a Tensor,
}

impl SelectBlocks<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::SelectBlocks,
        };
        let inputs = [("query", self.query), ("weights", self.weights)];
        check_scoring(&check, &self.rows, &self.keys, inputs)?;
        check.require(self.block_size > 0, || "blocks of no entries".to_owned())?;
        check_chosen(&check, ("blocks", self.blocks), &self.rows, &self.keys, &inputs)
    }
}

/// Chooses the entries that each row attends to, as [`SelectEntries`](super::SelectEntries), among those in picked blocks.
///
/// When no more than `k` visible entries lie in the blocks, all of them are chosen.
///
/// Official: as [`SelectEntries`](super::SelectEntries).
#[derive(Clone, Copy, Debug)]
pub struct SelectInBlocks<'a> {
    /// Where the rows belong.
    pub rows: Rows<'a>,
    /// `F32 [T, heads, width]`, after [`IndexQuery`](super::IndexQuery).
    pub query: &'a Tensor,
    /// `F32 [T, heads]`; may be negative.
    pub weights: &'a Tensor,
    /// Factor of the weights.
    pub scale: f32,
    /// Index keys.
    pub keys: Entries<'a>,
    /// Entries of a block.
    pub block_size: usize,
    /// `I32 [T, blocks]` of [`SelectBlocks`]: ascending, then -1.
    pub blocks: &'a Tensor,
    /// Output, `I32 [T, k]`.
    pub selected: &'a Tensor,
}

impl SelectInBlocks<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::SelectInBlocks,
        };
        let inputs = [("query", self.query), ("weights", self.weights)];
        check_scoring(&check, &self.rows, &self.keys, inputs)?;
        check.require(self.block_size > 0, || "blocks of no entries".to_owned())?;
        check.rank("blocks", self.blocks, 2)?;
        let block_count = self.blocks.shape()[1];
        check.i32("blocks", self.blocks, &[self.rows.row_count(), block_count])?;
        let inputs = [inputs[0], inputs[1], ("blocks", self.blocks)];
        check_chosen(&check, ("selected", self.selected), &self.rows, &self.keys, &inputs)
    }
}

fn check_scoring(
    check: &Check,
    rows: &Rows<'_>,
    keys: &Entries<'_>,
    [(_, query), (_, weights)]: [(&'static str, &Tensor); 2],
) -> Result<(), Error> {
    check.rows(rows)?;
    check.entries(keys, rows)?;
    check.rank("query", query, 3)?;
    let (row_count, head_count) = (rows.row_count(), query.shape()[1]);
    check.f32("query", query, &[row_count, head_count, keys.width])?;
    check.f32("weights", weights, &[row_count, head_count])
}

fn check_chosen(
    check: &Check,
    out: (&'static str, &Tensor),
    rows: &Rows<'_>,
    keys: &Entries<'_>,
    inputs: &[(&'static str, &Tensor)],
) -> Result<(), Error> {
    check.rank(out.0, out.1, 2)?;
    check.i32(out.0, out.1, &[rows.row_count(), out.1.shape()[1]])?;
    check.require(out.1.shape()[1] > 0, || "a choice of none".to_owned())?;
    check.disjoint(out, &rows.tensors())?;
    check.disjoint(out, &keys.tensors())?;
    check.disjoint(out, inputs)
}
