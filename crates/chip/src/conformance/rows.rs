//! Cases of the operators that move, add or normalise rows.

use cachalot_numerics::{Dtype, MatrixFormat, ScaleDtype, bf16};
use proptest::prelude::*;

use super::{
    Suite,
    case::{Argument, Case},
    compare::Expect,
    row_counts, seeds, suite,
    values::{FORMATS, Values},
    widths,
};
use crate::{Add, CopyTensor, Embed, GatherRows, RmsNorm};

/// Rows with scales of their own (Engram): a chip may look at those that are read alone.
const TABLE: MatrixFormat = MatrixFormat::Fp8Block {
    rows: 1,
    columns: 32,
    scale: ScaleDtype::E8m0,
};

pub(super) fn embed() -> Vec<Suite> {
    let formats = FORMATS.into_iter().chain([TABLE]);
    formats
        .map(|format| suite(6, (row_counts(), 1usize..=4, widths(), seeds()), embed_case(format)))
        .collect()
}

fn embed_case(format: MatrixFormat) -> impl Fn((usize, usize, usize, u64)) -> Case {
    move |(row_count, stream_count, width, seed)| {
        let mut values = Values::new(seed);
        let vocabulary = 1 + values.below(40);
        let mut tokens: Vec<i32> = (0..row_count).map(|_| values.below(vocabulary) as i32).collect();
        if let Some(token) = tokens.first_mut() {
            *token = vocabulary as i32 - 1;
        }
        let arguments = vec![
            Argument::i32("tokens", &[row_count], &tokens).by_row(),
            Argument::output("streams", Dtype::F32, &[row_count, stream_count, width], Expect::Bytes).by_row(),
        ];
        let case = Case::new("", arguments, |loaded| {
            Embed {
                table: loaded.matrix("table"),
                tokens: loaded.tensor("tokens"),
                streams: loaded.tensor("streams"),
            }
            .into()
        });
        case.matrix("table", values.matrix(vocabulary, width, format))
            .refuses("tokens", row_count.saturating_sub(1), vocabulary as i64)
            .refuses("tokens", 0, -1)
    }
}

pub(super) fn rms_norm() -> Vec<Suite> {
    let weights = [None, Some(Dtype::F32), Some(Dtype::Bf16)];
    let cases = weights.map(|weight| suite(16, (row_counts(), widths(), any::<bool>(), seeds()), norm_case(weight)));
    cases.into()
}

fn norm_case(weight: Option<Dtype>) -> impl Fn((usize, usize, bool, u64)) -> Case {
    move |(row_count, width, in_place, seed)| {
        let mut values = Values::new(seed);
        let deviation = 10f32.powi(values.below(9) as i32 - 5);
        let x = Argument::f32("x", &[row_count, width], &values.floats(row_count * width, deviation)).by_row();
        // In official mode the factor of a norm without weight is a bf16 number: all its elements move by a step.
        let expect = Expect::noisy(if weight.is_none() { 0.016 } else { 0.0 });
        let mut arguments = if in_place {
            vec![Argument {
                // Without a weight nothing else says how wide the rows are.
                is_last_free: weight.is_none(),
                ..x.in_place(expect)
            }]
        } else {
            vec![
                x,
                Argument::output("out", Dtype::F32, &[row_count, width], expect).by_row(),
            ]
        };
        let weights = values.floats(width, 1.0);
        match weight {
            Some(Dtype::Bf16) => {
                let bytes = weights
                    .iter()
                    .flat_map(|value| bf16::encode(*value).to_le_bytes())
                    .collect();
                arguments.push(Argument::new("weight", Dtype::Bf16, &[width], bytes).weight());
            }
            Some(_) => arguments.push(Argument::f32("weight", &[width], &weights).weight()),
            None => {}
        }
        Case::new(if in_place { "in place" } else { "" }, arguments, |loaded| {
            RmsNorm {
                x: loaded.tensor("x"),
                weight: loaded.has("weight").then(|| loaded.tensor("weight")),
                epsilon: 1e-6,
                out: loaded.tensor(if loaded.has("out") { "out" } else { "x" }),
            }
            .into()
        })
    }
}

pub(super) fn add() -> Vec<Suite> {
    vec![suite(
        24,
        (row_counts(), widths(), any::<bool>(), seeds()),
        |(row_count, width, in_place, seed)| {
            let mut values = Values::new(seed);
            let shape = [row_count, width];
            let a = Argument::f32("a", &shape, &values.floats(row_count * width, 1.0)).by_row();
            let b = Argument::f32("b", &shape, &values.floats(row_count * width, 1.0)).by_row();
            let arguments = if in_place {
                vec![a.in_place(Expect::Bytes), b]
            } else {
                vec![
                    a,
                    b,
                    Argument::output("out", Dtype::F32, &shape, Expect::Bytes).by_row(),
                ]
            };
            Case::new(if in_place { "in place" } else { "" }, arguments, |loaded| {
                Add {
                    a: loaded.tensor("a"),
                    b: loaded.tensor("b"),
                    out: loaded.tensor(if loaded.has("out") { "out" } else { "a" }),
                }
                .into()
            })
        },
    )]
}

/// Dtypes of rows that are only moved.
const MOVED: [Dtype; 4] = [Dtype::F32, Dtype::Bf16, Dtype::U8, Dtype::I32];

pub(super) fn gather() -> Vec<Suite> {
    vec![suite(
        24,
        (1usize..=40, row_counts(), widths(), 0usize..4, seeds()),
        gather_case,
    )]
}

fn gather_case((source_count, row_count, width, dtype, seed): (usize, usize, usize, usize, u64)) -> Case {
    let mut values = Values::new(seed);
    let dtype = MOVED[dtype];
    let rows: Vec<i32> = (0..row_count).map(|_| values.below(source_count) as i32).collect();
    let bytes = values.bytes(source_count * width * dtype.byte_count());
    let arguments = vec![
        Argument::new("x", dtype, &[source_count, width], bytes),
        Argument::i32("rows", &[row_count], &rows).by_row(),
        Argument::output("out", dtype, &[row_count, width], Expect::Bytes).by_row(),
    ];
    let case = Case::new("", arguments, |loaded| {
        GatherRows {
            x: loaded.tensor("x"),
            rows: loaded.tensor("rows"),
            out: loaded.tensor("out"),
        }
        .into()
    });
    case.refuses("rows", 0, source_count as i64)
        .refuses("rows", row_count.saturating_sub(1), -1)
}

pub(super) fn copy() -> Vec<Suite> {
    vec![suite(
        16,
        (row_counts(), widths(), 0usize..4, seeds()),
        |(row_count, width, dtype, seed)| {
            let (shape, dtype) = ([row_count, width], MOVED[dtype]);
            let bytes = Values::new(seed).bytes(row_count * width * dtype.byte_count());
            let arguments = vec![
                Argument::new("x", dtype, &shape, bytes).by_row(),
                Argument::output("out", dtype, &shape, Expect::Bytes).by_row(),
            ];
            Case::new("", arguments, |loaded| {
                CopyTensor {
                    x: loaded.tensor("x"),
                    out: loaded.tensor("out"),
                }
                .into()
            })
        },
    )]
}
