//! Which numbers which tensor gets.
//!
//! A matrix of `n` columns has deviation `n^-0.5`: fed with numbers of size 1, as norms deliver them, it
//! answers with numbers of size 1. Norms lie around 1; hyper-connections start open, with mixing weights
//! that differ between streams.

use cachalot_numerics::{Dtype, MatrixFormat, ScaleDtype, bf16};

use super::random::{
    ELEMENTS_PER_WORD, ENTRIES, FP4_DEVIATION, FP4_PAIRS, FP8_CODES, FP8_DEVIATION, NORMAL, Stream, Table, fill,
};
use crate::{
    config::Architecture,
    inventory::{Formats, Slot, SlotKind},
};

/// A tensor that is to be written.
#[derive(Clone, Debug)]
pub(super) struct PlannedTensor {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    content: Content,
}

/// How the elements are drawn.
#[derive(Clone, Copy, Debug)]
enum Content {
    Fp8Codes,
    Fp4Pairs,
    /// Powers of two: this exponent or the next one, as code.
    E8m0Scales {
        lower: u8,
    },
    /// Numbers around this one, within a factor of the square root of 2.
    F32Scales {
        middle: f64,
    },
    Numbers {
        mean: f64,
        deviation: f64,
    },
    /// Rows of different expert ids.
    ExpertIds {
        experts: usize,
        per_token: usize,
    },
}

/// The stored tensors of a slot.
pub(super) fn tensors(config: &dyn Architecture, slot: &Slot, formats: Formats) -> Vec<PlannedTensor> {
    let (weights, scales) = match &slot.kind {
        SlotKind::Matrix { rows, columns, class } => matrix(
            formats.of(slot.part, *class, *rows, *columns),
            matrix_deviation(&slot.name, *columns),
        ),
        SlotKind::Plain { dtype: Dtype::I64, .. } => {
            let (experts, per_token) = (config.routed_expert_count(), config.experts_per_token());
            (Content::ExpertIds { experts, per_token }, None)
        }
        SlotKind::Plain { shape, .. } => (plain(&slot.name, shape), None),
    };
    let contents = std::iter::once(weights).chain(scales);
    slot.clone()
        .stored(formats)
        .zip(contents)
        .map(|(spec, content)| PlannedTensor {
            name: spec.name,
            dtype: spec.dtype,
            shape: spec.shape,
            content,
        })
        .collect()
}

fn matrix_deviation(name: &str, columns: usize) -> f64 {
    match name.rsplit('.').next() {
        // Rows that are looked up, not multiplied.
        Some("embed" | "markov_w1") => 1.0,
        // Sharper than noise alone, so that the most likely token stands out.
        Some("head") => 2.0 * (columns as f64).powf(-0.5),
        _ => (columns as f64).powf(-0.5),
    }
}

/// Contents of weights and scales of a matrix with this deviation.
fn matrix(format: MatrixFormat, deviation: f64) -> (Content, Option<Content>) {
    let (codes, code_deviation, scale) = match format {
        MatrixFormat::Fp8Block { scale, .. } => (Content::Fp8Codes, FP8_DEVIATION, scale),
        MatrixFormat::Fp4Group { .. } => (Content::Fp4Pairs, FP4_DEVIATION, ScaleDtype::E8m0),
        _ => {
            let numbers = Content::Numbers { mean: 0.0, deviation };
            return (numbers, None);
        }
    };
    let middle = deviation / code_deviation;
    let scales = match scale {
        ScaleDtype::F32 => Content::F32Scales { middle },
        ScaleDtype::E8m0 => {
            // Half of the scales are s, half 2 s: together they have a mean square of 2.5 s^2.
            let exponent = (middle / 2.5f64.sqrt()).log2().round();
            let lower = (127.0 + exponent).clamp(0.0, 253.0) as u8;
            Content::E8m0Scales { lower }
        }
    };
    (codes, Some(scales))
}

fn plain(name: &str, shape: &[usize]) -> Content {
    let inputs = shape.last().copied().unwrap_or(1) as f64;
    let (mean, deviation) = match name {
        name if name.ends_with("kv_norm.weight") || name.ends_with("compressor.norm.weight") => (1.3, 0.15),
        name if name.contains(".engram.") => (1.0, 0.1),
        name if name.starts_with("vision.") || name.starts_with("aligner.") => (0.0, 0.1),
        name if name.ends_with("norm.weight") => (1.0, 0.1),
        name if name.ends_with("_fn") => (0.0, inputs.powf(-0.5)),
        name if name.ends_with("_base") => (0.0, 0.5),
        name if name.ends_with("_scale") => (0.8, 0.1),
        name if name.ends_with("attn_sink") => (0.0, 0.7),
        name if name.ends_with("gate.bias") || name.ends_with("gate.bias_vl") => (0.0, 0.1),
        // Positions inside a compressed window.
        _ => (0.0, 0.5),
    };
    Content::Numbers { mean, deviation }
}

impl PlannedTensor {
    pub(super) fn byte_count(&self) -> u64 {
        let elements: u64 = self.shape.iter().map(|side| *side as u64).product();
        elements * self.dtype.byte_count() as u64
    }

    /// Makes the tensor in pieces of at most `buffer.len()` bytes and hands each to `take`, in order.
    pub(super) fn generate<E>(
        &self,
        seed: u64,
        buffer: &mut [u8],
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let stream = Stream::of(seed, &self.name);
        match (self.content, self.dtype) {
            (Content::Fp8Codes, _) => self.draw(&FP8_CODES, stream, buffer, take),
            (Content::Fp4Pairs, _) => self.draw(&FP4_PAIRS, stream, buffer, take),
            (Content::E8m0Scales { lower }, _) => {
                let table: Table<1> = std::array::from_fn(|entry| [lower + (entry % 2) as u8]);
                self.draw(&table, stream, buffer, take)
            }
            (Content::F32Scales { middle }, _) => {
                let table: Table<4> = std::array::from_fn(|entry| {
                    let exponent = (entry as f64 + 0.5) / ENTRIES as f64 - 0.5;
                    ((middle * exponent.exp2()) as f32).to_le_bytes()
                });
                self.draw(&table, stream, buffer, take)
            }
            (Content::Numbers { mean, deviation }, Dtype::Bf16) => {
                let table: Table<2> =
                    std::array::from_fn(|entry| bf16::encode((mean + deviation * NORMAL[entry]) as f32).to_le_bytes());
                self.draw(&table, stream, buffer, take)
            }
            (Content::Numbers { mean, deviation }, _) => {
                let table: Table<4> =
                    std::array::from_fn(|entry| ((mean + deviation * NORMAL[entry]) as f32).to_le_bytes());
                self.draw(&table, stream, buffer, take)
            }
            (Content::ExpertIds { experts, per_token }, _) => {
                for token in 0..self.shape[0] as u64 {
                    let row = different_experts(stream, token, experts, per_token);
                    let bytes: Vec<u8> = row.iter().flat_map(|id| id.to_le_bytes()).collect();
                    take(&bytes)?;
                }
                Ok(())
            }
        }
    }

    fn draw<const BYTES: usize, E>(
        &self,
        table: &Table<BYTES>,
        stream: Stream,
        buffer: &mut [u8],
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let words_per_piece = buffer.len() / (ELEMENTS_PER_WORD * BYTES);
        let piece_byte_count = words_per_piece * ELEMENTS_PER_WORD * BYTES;
        let mut left = self.byte_count();
        let mut word = 0;
        while left > 0 {
            let byte_count = left.min(piece_byte_count as u64);
            let piece = &mut buffer[..byte_count as usize];
            fill(table, stream, word, piece);
            take(piece)?;
            word += words_per_piece as u64;
            left -= byte_count;
        }
        Ok(())
    }
}

/// `per_token` different ids below `experts`.
fn different_experts(stream: Stream, token: u64, experts: usize, per_token: usize) -> Vec<i64> {
    let mut chosen: Vec<i64> = Vec::with_capacity(per_token);
    for position in 0..per_token {
        // Floyd's way: each draw has one more candidate, and a repeated draw takes the newest one.
        let candidates = (experts - per_token + position + 1) as u128;
        let word = stream.word(token * per_token as u64 + position as u64) as u128;
        let draw = ((word * candidates) >> 64) as i64;
        let newest = candidates as i64 - 1;
        chosen.push(if chosen.contains(&draw) { newest } else { draw });
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_different_experts_and_all_experts_have_tokens() {
        let stream = Stream::of(1, "layers.0.ffn.gate.tid2eid");
        let mut tokens_of = [0; 256];
        for token in 0..12_800 {
            let row = different_experts(stream, token, 256, 6);
            for (position, expert) in row.iter().enumerate() {
                assert!(!row[..position].contains(expert));
                tokens_of[*expert as usize] += 1;
            }
        }
        // 300 on average, deviation near 17.
        assert!(
            tokens_of.iter().all(|tokens| (200..400).contains(tokens)),
            "{tokens_of:?}"
        );
        let mut all = different_experts(stream, 3, 6, 6);
        all.sort();
        assert_eq!(all, [0, 1, 2, 3, 4, 5]);
    }
}
