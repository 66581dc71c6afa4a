//! Engram (V4.1): which rows of a table the last tokens point to, and how much of them the streams take.

use cachalot_numerics::Dtype;

use super::{OperationKind, check::Check};
use crate::{Error, Rows, Tensor};

/// Row numbers of the groups of 2 to `N` tokens that end at each row.
///
/// With `c_i` the id of the token `i` positions before the row (`pad` before the sequence's start):
/// `x_1 = c_0 m_0 xor c_1 m_1`, `x_n = x_{n-1} xor c_n m_n`, all in 64 bits, and for every prime `p` of group length `n + 1`
/// `out = x_n mod p + offset`, where an offset is the sum of all primes before. Rows of this step come from `ids`, earlier
/// ones from `tail`, so this runs before [`WriteTail`](super::WriteTail).
#[derive(Clone, Copy, Debug)]
pub struct NgramRows<'a> {
    /// Where the rows belong.
    pub rows: Rows<'a>,
    /// `I32 [T, 1]`.
    pub ids: &'a Tensor,
    /// `I32 [slots, rows of a ring, 1]`, at least `N - 1` rows.
    pub tail: &'a Tensor,
    /// What stands before a sequence.
    pub pad: i32,
    /// `I64 [N]`: the `m`.
    pub multipliers: &'a Tensor,
    /// `I32 [N - 1, heads]`, above zero; their sum fits in 31 bits.
    pub primes: &'a Tensor,
    /// Output, `I32 [T, (N - 1) * heads]`.
    pub out: &'a Tensor,
}

impl NgramRows<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::NgramRows,
        };
        check.rows(&self.rows)?;
        let row_count = self.rows.row_count();
        check.i32("ids", self.ids, &[row_count, 1])?;
        check.tail("tail", self.tail, Dtype::I32, 1)?;
        let length = self.multipliers.element_count();
        check.tensor("multipliers", self.multipliers, Dtype::I64, &[length])?;
        check.require(length >= 2 && self.tail.shape()[1] + 1 >= length, || {
            format!("a ring of {} rows cannot hold groups of {length}", self.tail.shape()[1])
        })?;
        check.rank("primes", self.primes, 2)?;
        let head_count = self.primes.shape()[1];
        check.i32("primes", self.primes, &[length - 1, head_count])?;
        check.i32("out", self.out, &[row_count, (length - 1) * head_count])?;
        let out = ("out", self.out);
        check.disjoint(out, &self.rows.tensors())?;
        check.disjoint(
            out,
            &[
                ("ids", self.ids),
                ("tail", self.tail),
                ("multipliers", self.multipliers),
                ("primes", self.primes),
            ],
        )
    }
}

/// Adds a value to each stream, as far as the stream agrees with its key: `streams_i += g_i * value` in place, with
/// `keys_value = [key_0 | .. | key_{n-1} | value]`,
/// `dot_i = sum_c stream_i q_i k_i key_i / (rms(stream_i) rms(key_i)) * d^-0.5`, where `rms(v) = sqrt(mean(v^2) + epsilon)`,
/// and `g_i = sigmoid(sign(dot_i) * sqrt(max(|dot_i|, 1e-6)))`.
///
/// Official: the new streams are rounded to bf16.
#[derive(Clone, Copy, Debug)]
pub struct EngramGate<'a> {
    /// `F32 [T, (n + 1) d]`.
    pub keys_value: &'a Tensor,
    /// `F32 [n, d]`: the `q`.
    pub query_weight: &'a Tensor,
    /// `F32 [n, d]`: the `k`.
    pub key_weight: &'a Tensor,
    /// Epsilon of the norms.
    pub epsilon: f32,
    /// `F32 [T, n, d]`, changed in place.
    pub streams: &'a Tensor,
}

impl EngramGate<'_> {
    pub(super) fn check(&self) -> Result<(), Error> {
        let check = Check {
            operation: OperationKind::EngramGate,
        };
        check.rank("streams", self.streams, 3)?;
        let [t, n, d] = [0, 1, 2].map(|side| self.streams.shape()[side]);
        check.f32("streams", self.streams, &[t, n, d])?;
        check.f32("keys_value", self.keys_value, &[t, (n + 1) * d])?;
        check.f32("query_weight", self.query_weight, &[n, d])?;
        check.f32("key_weight", self.key_weight, &[n, d])?;
        check.disjoint(
            ("streams", self.streams),
            &[
                ("keys_value", self.keys_value),
                ("query_weight", self.query_weight),
                ("key_weight", self.key_weight),
            ],
        )
    }
}
