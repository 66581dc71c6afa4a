//! Cases of Engram.

use std::rc::Rc;

use cachalot_numerics::Dtype;

use super::{
    Suite,
    case::{Argument, Case, Piece},
    compare::{Expect, floats, integers},
    ragged::{Step, rows},
    row_counts, seeds, suite,
    tails::history,
    values::Values,
    widths,
};
use crate::{EngramGate, Mode, NgramRows};

/// Rows that a prime counts at most.
const PRIME_MOST: usize = 1000;

struct NgramData {
    /// Of every sequence by position, four bytes each.
    ids: Vec<Vec<Vec<u8>>>,
    pad: i32,
    multipliers: Vec<i64>,
    primes: Vec<i32>,
    head_count: usize,
    ring_row_count: usize,
}

pub(super) fn ngram_rows() -> Vec<Suite> {
    let parameters = (0usize..=4, 2usize..=5, 1usize..=9, seeds());
    vec![suite(40, parameters, |(sequence_count, length, head_count, seed)| {
        let mut values = Values::new(seed);
        let step = Step::random(&mut values, sequence_count, 40);
        let prime_count = (length - 1) * head_count;
        let data = NgramData {
            ids: history(&mut values, &step, |values| {
                (values.below(100_000) as i32).to_le_bytes().to_vec()
            }),
            pad: values.below(100_000) as i32,
            multipliers: (0..length).map(|_| (values.bits() >> 18) as i64 | 1).collect(),
            primes: (0..prime_count).map(|_| 1 + values.below(PRIME_MOST) as i32).collect(),
            head_count,
            ring_row_count: length - 1 + values.below(3),
        };
        ngram_step(&Rc::new(data), &step)
    })]
}

fn ngram_step(data: &Rc<NgramData>, step: &Step) -> Case {
    let (row_count, length) = (step.row_count(), data.multipliers.len());
    let ring_shape = [step.slot_count, data.ring_row_count, 1];
    let multipliers = data
        .multipliers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    let mut arguments = step.arguments();
    arguments.extend([
        Argument::new("ids", Dtype::I32, &[row_count, 1], step.fresh(&data.ids)),
        Argument::new(
            "tail",
            Dtype::I32,
            &ring_shape,
            step.rings(data.ring_row_count, &data.ids, 4),
        ),
        Argument::new("multipliers", Dtype::I64, &[length], multipliers),
        Argument::i32("primes", &[length - 1, data.head_count], &data.primes),
        Argument::output("out", Dtype::I32, &[row_count, data.primes.len()], Expect::Bytes),
    ]);
    let pad = data.pad;
    let mut case = Case::new(format!("pad {pad}, {step:?}"), arguments, move |loaded| {
        NgramRows {
            rows: rows(loaded),
            ids: loaded.tensor("ids"),
            tail: loaded.tensor("tail"),
            pad,
            multipliers: loaded.tensor("multipliers"),
            primes: loaded.tensor("primes"),
            out: loaded.tensor("out"),
        }
        .into()
    });
    let (data_of_pieces, step_of_pieces) = (Rc::clone(data), step.clone());
    case.pieces = Some(Rc::new(move || {
        let row_byte_count = 4 * data_of_pieces.primes.len();
        let rows = step_of_pieces.sample_rows(4).into_iter();
        rows.map(|row| Piece {
            case: ngram_step(&data_of_pieces, &step_of_pieces.row_alone(row)),
            equal: vec![(
                "out",
                row * row_byte_count..(row + 1) * row_byte_count,
                0..row_byte_count,
            )],
        })
        .collect()
    }));
    let (data, step_of_check) = (Rc::clone(data), step.clone());
    let case = case.verify(move |_, outputs| check_ngrams(&data, &step_of_check, &integers(&outputs["out"])));
    step.refuse_bad_rows(case, true).refuses("primes", 0, 0)
}

fn check_ngrams(data: &NgramData, step: &Step, found: &[i32]) -> Result<(), String> {
    for (row, (sequence, position)) in step.rows().enumerate() {
        let id = |back: usize| match position.checked_sub(back) {
            Some(position) => integers(&data.ids[sequence.index][position])[0],
            None => data.pad,
        };
        for (place, prime) in data.primes.iter().enumerate() {
            let length = place / data.head_count + 2;
            let group = (0..length).fold(0i128, |number, back| {
                number ^ (i128::from(id(back)) * i128::from(data.multipliers[back]))
            });
            let offset: i32 = data.primes[..place].iter().sum();
            let expected = (group % i128::from(*prime)) as i32 + offset;
            let found = found[row * data.primes.len() + place];
            if found != expected {
                return Err(format!("row {row}, prime {place}: found {found}, expected {expected}"));
            }
        }
    }
    Ok(())
}

pub(super) fn gate() -> Vec<Suite> {
    vec![suite(
        40,
        (row_counts(), 1usize..=5, widths(), seeds()),
        |(row_count, n, d, seed)| {
            let mut values = Values::new(seed);
            let streams = values.floats(row_count * n * d, 2.0);
            let keys_value = values.floats(row_count * (n + 1) * d, 1.0);
            let query_weight = values.floats(n * d, 1.0);
            let key_weight = values.floats(n * d, 1.0);
            let arguments = vec![
                Argument::f32("keys_value", &[row_count, (n + 1) * d], &keys_value).by_row(),
                Argument::f32("query_weight", &[n, d], &query_weight).weight(),
                Argument::f32("key_weight", &[n, d], &key_weight).weight(),
                Argument::f32("streams", &[row_count, n, d], &streams)
                    .by_row()
                    // The gate's root makes of a small error near zero a larger one.
                    .in_place(Expect::magnitudes(vec![60.0; row_count])),
            ];
            let case = Case::new("", arguments, |loaded| {
                EngramGate {
                    keys_value: loaded.tensor("keys_value"),
                    query_weight: loaded.tensor("query_weight"),
                    key_weight: loaded.tensor("key_weight"),
                    epsilon: 1e-20,
                    streams: loaded.tensor("streams"),
                }
                .into()
            });
            case.verify(move |mode, outputs| {
                let tolerance = if mode == Mode::Official { 0.1 } else { 2e-3 };
                for (index, found) in floats(&outputs["streams"]).into_iter().enumerate() {
                    let (row, i, channel) = (index / (n * d), index / d % n, index % d);
                    let stream = &streams[index / d * d..][..d];
                    let keys = &keys_value[row * (n + 1) * d..][..(n + 1) * d];
                    let gate = expected_gate(
                        stream,
                        &keys[i * d..][..d],
                        &query_weight[i * d..][..d],
                        &key_weight[i * d..][..d],
                    );
                    let expected = f64::from(stream[channel]) + gate * f64::from(keys[n * d + channel]);
                    if (f64::from(found) - expected).abs() > tolerance {
                        return Err(format!(
                            "row {row}, stream {i}, channel {channel}: found {found}, expected {expected}"
                        ));
                    }
                }
                Ok(())
            })
        },
    )]
}

fn expected_gate(stream: &[f32], key: &[f32], query_weight: &[f32], key_weight: &[f32]) -> f64 {
    let rms = |values: &[f32]| {
        let squares: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
        (squares / values.len() as f64 + 1e-20).sqrt()
    };
    let terms = (0..stream.len()).map(|c| {
        [stream[c], key[c], query_weight[c], key_weight[c]]
            .into_iter()
            .map(f64::from)
            .product::<f64>()
    });
    let dot = terms.sum::<f64>() / (rms(stream) * rms(key) * (stream.len() as f64).sqrt());
    let agreement = dot.signum() * dot.abs().max(1e-6).sqrt();
    1.0 / (1.0 + (-agreement).exp())
}
