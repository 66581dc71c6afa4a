use cachalot_numerics::Dtype;

use super::{OperationKind, check::Check};
use crate::{Entries, Error, RowFormat, Rows, Tensor};

/// Emits the compressed entry of every window that a row of this step completes (V4 architecture, section 4).
///
/// Window `j` covers positions `ratio * j .. ratio * (j + 1)`. Rows of this step come from `kv` and `gate`, earlier ones
/// from the tails, so this runs before [`WriteTail`](super::WriteTail) stores the step's rows. For every channel
/// `v = sum_u softmax_u(gate_u + ape[position mod ratio]) * kv_u`.
/// With `overlap` the rows are `2 * width` wide: window `j` takes the first half of the rows of window `j - 1` (absent
/// for `j = 0`) and the second half of its own. Then `entry = rope(rmsnorm(v, norm), ratio * j)`, packed into the pool.
///
/// Official: `v`, the normalised and the rotated entry are rounded to bf16.
#[derive(Clone, Copy, Debug)]
pub struct Compress<'a> {
    /// Where the rows belong.
    pub rows: Rows<'a>,
    /// `F32 [T, c * width]`, `c` = 2 with overlap, else 1.
    pub kv: &'a Tensor,
    /// `F32 [T, c * width]`.
    pub gate: &'a Tensor,
    /// `F32 [slots, rows of a ring, c * width]`.
    pub kv_tail: &'a Tensor,
    /// `F32 [slots, rows of a ring, c * width]`.
    pub gate_tail: &'a Tensor,
    /// `F32 [ratio, c * width]`.
    pub ape: &'a Tensor,
    /// `F32` or `BF16 [width]`.
    pub norm: &'a Tensor,
    /// Epsilon of the norm.
    pub norm_epsilon: f32,
    /// `F32 [tail / 2]`.
    pub frequencies: &'a Tensor,
    /// Whether windows overlap (ratio 4).
    pub overlap: bool,
    /// The pool, changed in place.
    pub out: Entries<'a>,
}

impl Compress<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::Compress,
        };
        check.rows(&self.rows)?;
        check.entries(&self.out, &self.rows)?;
        let row_width = self.out.width * if self.overlap { 2 } else { 1 };
        let windows = if self.overlap { 2 } else { 1 };
        check.f32("kv", self.kv, &[self.rows.row_count(), row_width])?;
        check.f32("gate", self.gate, &[self.rows.row_count(), row_width])?;
        check.tail("kv_tail", self.kv_tail, Dtype::F32, row_width)?;
        check.f32("gate_tail", self.gate_tail, self.kv_tail.shape())?;
        check.require(self.kv_tail.shape()[1] + 1 >= windows * self.out.ratio, || {
            format!(
                "a ring of {} rows cannot hold {windows} windows of {}",
                self.kv_tail.shape()[1],
                self.out.ratio
            )
        })?;
        check.f32("ape", self.ape, &[self.out.ratio, row_width])?;
        check.vector("norm", self.norm, self.out.width)?;
        check.f32("frequencies", self.frequencies, &[self.out.tail / 2])?;
        let pool = ("pool", self.out.pool);
        check.disjoint(pool, &self.rows.tensors())?;
        check.disjoint(pool, &[("page_table", self.out.page_table)])?;
        check.disjoint(
            pool,
            &[
                ("kv", self.kv),
                ("gate", self.gate),
                ("kv_tail", self.kv_tail),
                ("gate_tail", self.gate_tail),
                ("ape", self.ape),
                ("norm", self.norm),
                ("frequencies", self.frequencies),
            ],
        )
    }
}

/// Prepares indexer queries, in place, for keys packed as `format`.
///
/// For [`RowFormat::Fp4Hadamard`] every head is Hadamard-rotated; other formats leave the queries alone.
///
/// Official: a rotated query is rounded to bf16; it and queries for [`RowFormat::Fp4`] are rounded to FP4 (groups of 32,
/// UE8M0 scales).
#[derive(Clone, Copy, Debug)]
pub struct IndexQuery<'a> {
    /// `F32 [T, heads, width]`, changed in place.
    pub query: &'a Tensor,
    /// Format of the keys.
    pub format: RowFormat,
}

impl IndexQuery<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::IndexQuery,
        };
        check.rank("query", self.query, 3)?;
        check.f32("query", self.query, self.query.shape())?;
        check.hadamard(self.format, self.query.shape()[2])
    }
}

/// Chooses the entries that each row attends to (V4 architecture, section 5).
///
/// `score_j = sum_h weights_h * scale * max(0, query_h . key_j)` over the entries visible to the row,
/// `j < (position + 1) / ratio`. The `k` best are written in ascending order, the rest of the row is -1. Ties go to the
/// lower entry. When no more than `k` entries are visible, all of them are chosen.
///
/// Official: `query . key`, `weights * scale`, their product and the sum are rounded to bf16.
#[derive(Clone, Copy, Debug)]
pub struct SelectEntries<'a> {
    /// Where the rows belong.
    pub rows: Rows<'a>,
    /// `F32 [T, heads, width]`, after [`IndexQuery`].
    pub query: &'a Tensor,
    /// `F32 [T, heads]`; may be negative.
    pub weights: &'a Tensor,
    /// Factor of the weights: `width^-0.5 * heads^-0.5`.
    pub scale: f32,
    /// Index keys.
    pub keys: Entries<'a>,
    /// Output, `I32 [T, k]`.
    pub selected: &'a Tensor,
}

impl SelectEntries<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::SelectEntries,
        };
        check.rows(&self.rows)?;
        check.entries(&self.keys, &self.rows)?;
        check.rank("query", self.query, 3)?;
        let (row_count, head_count) = (self.rows.row_count(), self.query.shape()[1]);
        check.f32("query", self.query, &[row_count, head_count, self.keys.width])?;
        check.f32("weights", self.weights, &[row_count, head_count])?;
        check.rank("selected", self.selected, 2)?;
        check.i32("selected", self.selected, &[row_count, self.selected.shape()[1]])?;
        check.require(self.selected.shape()[1] > 0, || "top-k of zero".to_owned())?;
        let selected = ("selected", self.selected);
        check.disjoint(selected, &self.rows.tensors())?;
        check.disjoint(selected, &self.keys.tensors())?;
        check.disjoint(selected, &[("query", self.query), ("weights", self.weights)])
    }
}

/// The compressed part of an attention's key set.
#[derive(Clone, Copy, Debug)]
pub struct AttendEntries<'a> {
    /// Where the entries are.
    pub entries: Entries<'a>,
    /// `I32 [T, k]` of [`SelectEntries`], valid indices first; without it all visible entries are attended.
    pub selected: Option<&'a Tensor>,
}

/// Attention of every row to its window and to compressed entries (V4 architecture, section 3.3).
///
/// Keys are the window rows at positions `max(0, p - window + 1) ..= p` (rows of this step from `fresh`, earlier ones
/// from `tail`; so this runs before [`WriteTail`](super::WriteTail)) and the entries. A key is its own value.
/// `out_h = sum_k exp(s_k - m) key_k / (sum_k exp(s_k - m) + exp(sink_h - m))` with `s_k = query_h . key_k * scale`.
///
/// Official: `exp(s_k - m)` is rounded to bf16 for the weighted sum but not for the denominator; the output is rounded
/// to bf16.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Where the rows belong.
    pub rows: Rows<'a>,
    /// `F32 [T, H, D]`.
    pub query: &'a Tensor,
    /// `U8 [T, row bytes]`: this step's window rows, packed as `format`.
    pub fresh: &'a Tensor,
    /// `U8 [slots, rows of a ring, row bytes]`.
    pub tail: &'a Tensor,
    /// How window rows are packed.
    pub format: RowFormat,
    /// Rotary channels at the end of a row.
    pub rotary: usize,
    /// Positions that a row sees, itself included (128).
    pub window: usize,
    /// Compressed entries, in layers that have them.
    pub entries: Option<AttendEntries<'a>>,
    /// `F32 [H]`: one logit for each head that has no value.
    pub sink: &'a Tensor,
    /// `D^-0.5`.
    pub scale: f32,
    /// Output, `F32 [T, H, D]`.
    pub out: &'a Tensor,
}

impl Attention<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::Attention,
        };
        check.rows(&self.rows)?;
        check.rank("query", self.query, 3)?;
        let row_count = self.rows.row_count();
        let [head_count, width] = [self.query.shape()[1], self.query.shape()[2]];
        check.require(self.rotary <= width, || {
            format!("{} rotary of {width} channels", self.rotary)
        })?;
        let row_byte_count = self.format.byte_count(width, self.rotary);
        check.f32("query", self.query, &[row_count, head_count, width])?;
        check.tensor("fresh", self.fresh, Dtype::U8, &[row_count, row_byte_count])?;
        check.tail("tail", self.tail, Dtype::U8, row_byte_count)?;
        check.require(self.window > 0 && self.tail.shape()[1] + 1 >= self.window, || {
            format!(
                "a ring of {} rows cannot hold a window of {}",
                self.tail.shape()[1],
                self.window
            )
        })?;
        if let Some(attend) = &self.entries {
            check.entries(&attend.entries, &self.rows)?;
            check.require(attend.entries.width == width, || {
                format!("entries of {} channels for heads of {width}", attend.entries.width)
            })?;
            if let Some(selected) = attend.selected {
                check.rank("selected", selected, 2)?;
                check.i32("selected", selected, &[row_count, selected.shape()[1]])?;
            }
        }
        check.f32("sink", self.sink, &[head_count])?;
        check.f32("out", self.out, self.query.shape())?;
        let out = ("out", self.out);
        check.disjoint(out, &self.rows.tensors())?;
        check.disjoint(
            out,
            &[
                ("query", self.query),
                ("fresh", self.fresh),
                ("tail", self.tail),
                ("sink", self.sink),
            ],
        )?;
        let Some(attend) = &self.entries else { return Ok(()) };
        check.disjoint(out, &attend.entries.tensors())?;
        attend
            .selected
            .map_or(Ok(()), |selected| check.disjoint(out, &[("selected", selected)]))
    }
}
