//! Latent attention (V3): one short key for all heads, which is also the source of every head's value.
//!
//! More notation: `L` latent channels, `N` channels of a query head before its `R` rotary ones.

use super::{AttendEntries, OperationKind, check::Check};
use crate::{Entries, Error, Matrix, Rows, Tensor};

/// How [`StoreKeys`] makes an entry of a row.
#[derive(Clone, Copy, Debug)]
pub enum KeyForm<'a> {
    /// `[L | R]`: the latent is RMS-normalised, the entry's rotary tail is rotated in adjacent pairs.
    Latent {
        /// `F32` or `BF16 [L]`.
        norm: &'a Tensor,
    },
    /// An index key: all channels are layer-normalised (mean and variance), then the first `R` are rotated in the pairs
    /// `(c, c + R / 2)`.
    Index {
        /// `F32` or `BF16 [width]`.
        norm: &'a Tensor,
        /// `F32` or `BF16 [width]`.
        bias: &'a Tensor,
    },
}

/// Normalises, rotates and packs one key for each row and writes it into the pool, as the entry of the row's position.
///
/// Official: the normalised and the rotated channels are rounded to bf16.
#[derive(Clone, Copy, Debug)]
pub struct StoreKeys<'a> {
    /// Where the rows belong.
    pub rows: Rows<'a>,
    /// `F32 [T, width]`.
    pub x: &'a Tensor,
    /// What a key is.
    pub form: KeyForm<'a>,
    /// Epsilon of the norm.
    pub epsilon: f32,
    /// `F32 [T, R / 2, 2]` from [`RopeAngles`](super::RopeAngles).
    pub angles: &'a Tensor,
    /// The pool, changed in place; an entry is one token's (ratio 1).
    pub out: Entries<'a>,
}

impl StoreKeys<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::StoreKeys,
        };
        check.rows(&self.rows)?;
        check.entries(&self.out, &self.rows)?;
        check_single_tokens(&check, &self.out)?;
        let (row_count, width) = (self.rows.row_count(), self.out.width);
        check.f32("x", self.x, &[row_count, width])?;
        check.rank("angles", self.angles, 3)?;
        let rotary = match self.form {
            KeyForm::Latent { norm } => {
                check.vector("norm", norm, width - self.out.tail)?;
                self.out.tail
            }
            KeyForm::Index { norm, bias } => {
                check.vector("norm", norm, width)?;
                check.vector("bias", bias, width)?;
                2 * self.angles.shape()[1]
            }
        };
        check.require(rotary <= width && rotary.is_multiple_of(2), || {
            format!("{rotary} rotary of {width} channels")
        })?;
        check.f32("angles", self.angles, &[row_count, rotary / 2, 2])?;
        let pool = ("pool", self.out.pool);
        check.disjoint(pool, &self.rows.tensors())?;
        check.disjoint(pool, &[("page_table", self.out.page_table)])?;
        check.disjoint(pool, &[("x", self.x), ("angles", self.angles)])?;
        match self.form {
            KeyForm::Latent { norm } => check.disjoint(pool, &[("norm", norm)]),
            KeyForm::Index { norm, bias } => check.disjoint(pool, &[("norm", norm), ("bias", bias)]),
        }
    }
}

/// Brings queries into the space of the latents: `out[t][h] = [absorb_h * query[t][h][..N] | rotated query[t][h][N..]]`,
/// rotated in adjacent pairs.
///
/// `absorb` holds for each head the transposed up-projection of its keys, so that a product with a latent is the product
/// with the key that the latent stands for.
///
/// Official: both parts are rounded to bf16.
#[derive(Clone, Copy, Debug)]
pub struct LatentQuery<'a> {
    /// `F32 [T, H, N + R]`.
    pub query: &'a Tensor,
    /// `[H * L, N]`.
    pub absorb: &'a Matrix,
    /// `F32 [T, R / 2, 2]` from [`RopeAngles`](super::RopeAngles).
    pub angles: &'a Tensor,
    /// Output, `F32 [T, H, L + R]`.
    pub out: &'a Tensor,
}

impl LatentQuery<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::LatentQuery,
        };
        check.rank("query", self.query, 3)?;
        check.rank("angles", self.angles, 3)?;
        let [row_count, head_count] = [self.query.shape()[0], self.query.shape()[1]];
        let rotary = 2 * self.angles.shape()[1];
        check.f32(
            "query",
            self.query,
            &[row_count, head_count, self.absorb.columns() + rotary],
        )?;
        check.require(head_count > 0 && self.absorb.rows().is_multiple_of(head_count), || {
            format!("{} rows do not divide into {head_count} heads", self.absorb.rows())
        })?;
        check.f32("angles", self.angles, &[row_count, rotary / 2, 2])?;
        let latent = self.absorb.rows() / head_count;
        check.f32("out", self.out, &[row_count, head_count, latent + rotary])?;
        check.disjoint(("out", self.out), &[("query", self.query), ("angles", self.angles)])
    }
}

/// Attention of every row to the entries of its position and of those before it.
///
/// `out_h = sum_s exp(q_s - m) entry_s[..L] / sum_s exp(q_s - m)` with `q_s = query_h . entry_s * scale`, over all visible
/// entries or the selected ones.
///
/// Official: `exp(q_s - m)` is rounded to bf16 for the weighted sum but not for the denominator; the output is rounded to
/// bf16.
#[derive(Clone, Copy, Debug)]
pub struct LatentAttention<'a> {
    /// Where the rows belong.
    pub rows: Rows<'a>,
    /// `F32 [T, H, L + R]` of [`LatentQuery`].
    pub query: &'a Tensor,
    /// Entries of single tokens, `L` channels and a tail of `R`; this step's are stored already.
    pub keys: AttendEntries<'a>,
    /// Factor of the scores.
    pub scale: f32,
    /// Output, `F32 [T, H, L]`.
    pub out: &'a Tensor,
}

impl LatentAttention<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::LatentAttention,
        };
        check.rows(&self.rows)?;
        let entries = &self.keys.entries;
        check.entries(entries, &self.rows)?;
        check_single_tokens(&check, entries)?;
        check.rank("query", self.query, 3)?;
        let [row_count, head_count] = [self.rows.row_count(), self.query.shape()[1]];
        check.f32("query", self.query, &[row_count, head_count, entries.width])?;
        check.f32("out", self.out, &[row_count, head_count, entries.width - entries.tail])?;
        let out = ("out", self.out);
        check.disjoint(out, &self.rows.tensors())?;
        check.disjoint(out, &entries.tensors())?;
        check.disjoint(out, &[("query", self.query)])?;
        let Some(selected) = self.keys.selected else {
            return Ok(());
        };
        check.rank("selected", selected, 2)?;
        check.i32("selected", selected, &[row_count, selected.shape()[1]])?;
        check.disjoint(out, &[("selected", selected)])
    }
}

fn check_single_tokens(check: &Check, entries: &Entries<'_>) -> Result<(), Error> {
    check.require(entries.ratio == 1, || {
        format!("an entry of {} tokens, latents are kept of each", entries.ratio)
    })
}
