//! Engram (V4.1).

use cachalot_chip::{EngramGate, Error, NgramRows};

use super::{Context, rows::RowMap};
use crate::vector::{add_scaled, sigmoid, square_sum};

pub(super) fn ngram_rows(context: &Context<'_>, operation: &NgramRows<'_>) -> Result<(), Error> {
    let map = RowMap::new(context, &operation.rows)?;
    let ids = context.access.i32("ids", operation.ids)?;
    let tail = context.access.i32("tail", operation.tail)?;
    let multipliers = context.access.i64("multipliers", operation.multipliers)?;
    let primes = context.access.i32("primes", operation.primes)?;
    let out = context.access.i32_mut("out", operation.out)?;
    let [slot_count, ring_row_count] = [operation.tail.shape()[0], operation.tail.shape()[1]];
    let head_count = operation.primes.shape()[1];
    if let Some(prime) = primes.iter().find(|prime| **prime <= 0) {
        return Err(context.index_error("primes", i64::from(*prime), i32::MAX as usize));
    }
    for sequence in 0..map.sequence_count() {
        let slot = context.index("slots", i64::from(map.slots[sequence]), slot_count)?;
        let span = map.span(sequence);
        let id_at = |position: usize| match position.checked_sub(span.first_position) {
            Some(row) => ids[span.first_row + row],
            None => tail[slot * ring_row_count + position % ring_row_count],
        };
        for row in 0..span.row_count {
            let position = span.first_position + row;
            let mut out = out[(span.first_row + row) * primes.len()..][..primes.len()].iter_mut();
            let (mut number, mut offset) = (0i64, 0i64);
            for (back, multiplier) in multipliers.iter().enumerate() {
                let id = position.checked_sub(back).map_or(operation.pad, id_at);
                number ^= i64::from(id).wrapping_mul(*multiplier);
                if back == 0 {
                    continue;
                }
                for prime in &primes[(back - 1) * head_count..][..head_count] {
                    let place = number.rem_euclid(i64::from(*prime)) + offset;
                    *out.next().expect("as many as primes") = place as i32;
                    offset += i64::from(*prime);
                }
            }
        }
    }
    Ok(())
}

pub(super) fn gate(context: &Context<'_>, operation: &EngramGate<'_>) -> Result<(), Error> {
    let [_, n, d] = [0, 1, 2].map(|side| operation.streams.shape()[side]);
    let keys_value = context.access.f32("keys_value", operation.keys_value)?;
    let query_weight = context.access.f32("query_weight", operation.query_weight)?;
    let key_weight = context.access.f32("key_weight", operation.key_weight)?;
    let streams = context.access.f32_mut("streams", operation.streams)?;
    let rms = |values: &[f32]| (square_sum(values) / d as f32 + operation.epsilon).sqrt();
    context.pool.for_each_chunk(streams, d, 6 * d, |index, stream| {
        let (row, i) = (index / n, index % n);
        let keys_value = &keys_value[row * (n + 1) * d..][..(n + 1) * d];
        let (key, value) = (&keys_value[i * d..][..d], &keys_value[n * d..]);
        let weights = query_weight[i * d..][..d].iter().zip(&key_weight[i * d..][..d]);
        let terms = stream.iter().zip(key).zip(weights);
        // Eight sums, so that the loop becomes vector instructions; their order depends on `d` alone.
        let mut sums = [0.0f32; 8];
        for (channel, ((stream, key), (query_weight, key_weight))) in terms.enumerate() {
            sums[channel % 8] += stream * query_weight * key_weight * key;
        }
        let dot = sums.iter().sum::<f32>() / (rms(stream) * rms(key)) * (d as f32).sqrt().recip();
        // Of zero the sign is zero.
        let sign = if dot == 0.0 { 0.0 } else { dot.signum() };
        add_scaled(stream, sigmoid(sign * dot.abs().max(1e-6).sqrt()), value);
        context.round(stream);
    });
    Ok(())
}
