//! Cases of entries that one layer makes for many.

use std::rc::Rc;

use cachalot_numerics::Dtype;

use super::{
    Suite,
    case::{Argument, Case, Piece, UNWRITTEN_BYTE},
    compare::{Expect, floats},
    ragged::{Pages, Step, rows},
    seeds, suite,
    tails::{ROW_FORMATS, history, row_shape},
    values::Values,
    widths,
};
use crate::{Entries, Mode, PoolWindows, RowFormat, StoreEntries};

struct PoolData {
    width: usize,
    ratio: usize,
    ring_row_count: usize,
    kv: Vec<Vec<Vec<u8>>>,
    gate: Vec<Vec<Vec<u8>>>,
}

pub(super) fn pool_windows() -> Vec<Suite> {
    let parameters = (0usize..=4, 1usize..=5, widths(), seeds());
    vec![suite(40, parameters, |(sequence_count, ratio, width, seed)| {
        let mut values = Values::new(seed);
        let step = Step::random(&mut values, sequence_count, 40);
        let mut random_rows = |deviation| {
            history(&mut values, &step, |values| {
                let row = values.floats(width, deviation);
                row.iter().flat_map(|value| value.to_le_bytes()).collect()
            })
        };
        let data = PoolData {
            width,
            ratio,
            ring_row_count: (ratio - 1).max(1) + seed as usize % 3,
            kv: random_rows(1.0),
            gate: random_rows(1.5),
        };
        pool_step(&Rc::new(data), &step)
    })]
}

fn pool_step(data: &Rc<PoolData>, step: &Step) -> Case {
    let (width, ratio) = (data.width, data.ratio);
    let shape = [step.row_count(), width];
    let ring_shape = [step.slot_count, data.ring_row_count, width];
    let rings = |history| step.rings(data.ring_row_count, history, 4 * width);
    let mut arguments = step.arguments();
    arguments.extend([
        Argument::new("kv", Dtype::F32, &shape, step.fresh(&data.kv)),
        Argument::new("gate", Dtype::F32, &shape, step.fresh(&data.gate)),
        Argument::new("kv_tail", Dtype::F32, &ring_shape, rings(&data.kv)),
        Argument::new("gate_tail", Dtype::F32, &ring_shape, rings(&data.gate)),
        Argument::output(
            "out",
            Dtype::F32,
            &shape,
            Expect::magnitudes(vec![1.0; step.row_count()]),
        ),
    ]);
    let mut case = Case::new(format!("ratio {ratio}, {step:?}"), arguments, move |loaded| {
        PoolWindows {
            rows: rows(loaded),
            kv: loaded.tensor("kv"),
            gate: loaded.tensor("gate"),
            kv_tail: loaded.tensor("kv_tail"),
            gate_tail: loaded.tensor("gate_tail"),
            ratio,
            out: loaded.tensor("out"),
        }
        .into()
    });
    let (data_of_pieces, step_of_pieces) = (Rc::clone(data), step.clone());
    case.pieces = Some(Rc::new(move || {
        let row_byte_count = 4 * data_of_pieces.width;
        let rows = step_of_pieces.sample_rows(5).into_iter();
        rows.map(|row| Piece {
            case: pool_step(&data_of_pieces, &step_of_pieces.row_alone(row)),
            equal: vec![(
                "out",
                row * row_byte_count..(row + 1) * row_byte_count,
                0..row_byte_count,
            )],
        })
        .collect()
    }));
    let (data, step_of_check) = (Rc::clone(data), step.clone());
    let case = case.verify(move |mode, outputs| {
        let tolerance = if mode == Mode::Official { 0.02 } else { 1e-5 };
        check_means(&data, &step_of_check, tolerance, &floats(&outputs["out"]))
    });
    step.refuse_bad_rows(case, true)
}

fn check_means(data: &PoolData, step: &Step, tolerance: f64, found: &[f32]) -> Result<(), String> {
    for (row, (sequence, position)) in step.rows().enumerate() {
        let is_last = (position + 1) % data.ratio == 0;
        let window = if is_last {
            position + 1 - data.ratio..position + 1
        } else {
            0..0
        };
        for channel in 0..data.width {
            let at = |rows: &[Vec<Vec<u8>>], position: usize| {
                f64::from(floats(&rows[sequence.index][position][4 * channel..][..4])[0])
            };
            let weights = window.clone().map(|position| at(&data.gate, position).exp());
            let sum: f64 = weights.sum();
            let terms = window
                .clone()
                .map(|position| at(&data.gate, position).exp() / sum * at(&data.kv, position));
            let (expected, found) = (terms.sum::<f64>(), f64::from(found[row * data.width + channel]));
            if (found - expected).abs() > tolerance * (1.0 + expected.abs()) {
                return Err(format!(
                    "row {row}, channel {channel}: found {found}, expected {expected}"
                ));
            }
        }
    }
    Ok(())
}

struct StoreData {
    format: RowFormat,
    width: usize,
    tail: usize,
    ratio: usize,
    x: Vec<f32>,
    pages: Pages,
}

pub(super) fn store_entries() -> Vec<Suite> {
    let parameters = || (0usize..=4, 1usize..=4, 1usize..=5, widths(), seeds());
    let suites = ROW_FORMATS.map(|format| {
        suite(
            10,
            parameters(),
            move |(sequence_count, ratio, page_entry_count, width, seed)| {
                let mut values = Values::new(seed);
                let tail = values.below(70);
                let [width, tail] = row_shape(format, width, tail);
                let step = Step::random(&mut values, sequence_count, 60);
                let pages = Pages::random(&mut values, &step, ratio, page_entry_count);
                let data = StoreData {
                    format,
                    width,
                    tail,
                    ratio,
                    x: values.floats(step.row_count() * width, 1.0),
                    pages,
                };
                store_step(&Rc::new(data), &step)
            },
        )
    });
    suites.into()
}

fn store_step(data: &Rc<StoreData>, step: &Step) -> Case {
    let (format, width, tail, ratio) = (data.format, data.width, data.tail, data.ratio);
    let source_rows = step.source_rows().into_iter();
    let x: Vec<f32> = source_rows
        .flat_map(|row| data.x[row * width..][..width].to_vec())
        .collect();
    let frequencies: Vec<f32> = (0..tail / 2).map(|i| 0.5f32.powi(i as i32)).collect();
    let pool_shape = [
        data.pages.page_count,
        data.pages.page_entry_count,
        format.byte_count(width, tail),
    ];
    let pool = vec![UNWRITTEN_BYTE; pool_shape.iter().product()];
    let mut arguments = step.arguments();
    arguments.extend([
        Argument::f32("x", &[step.row_count(), width], &x),
        Argument::f32("frequencies", &[tail / 2], &frequencies).weight(),
        data.pages.table(step),
        Argument::new("pool", Dtype::U8, &pool_shape, pool).in_place(Expect::Packed(format, width, tail)),
    ]);
    let label = format!("{format:?}, tail {tail}, ratio {ratio}, {step:?}");
    let mut case = Case::new(label, arguments, move |loaded| {
        StoreEntries {
            rows: rows(loaded),
            x: loaded.tensor("x"),
            frequencies: loaded.tensor("frequencies"),
            out: Entries {
                pool: loaded.tensor("pool"),
                page_table: loaded.tensor("page_table"),
                format,
                width,
                tail,
                ratio,
            },
        }
        .into()
    });
    let (data_of_pieces, step_of_pieces) = (Rc::clone(data), step.clone());
    case.pieces = Some(Rc::new(move || store_pieces(&data_of_pieces, &step_of_pieces)));
    let (data_of_check, step_of_check) = (Rc::clone(data), step.clone());
    let case = case.verify(move |mode, outputs| match (mode, data_of_check.format) {
        (Mode::Reference, RowFormat::F32) => check_stored(&data_of_check, &step_of_check, &outputs["pool"]),
        _ => Ok(()),
    });
    let case = step.refuse_bad_rows(case, false);
    data.pages.refuse_bad_page(case, step, ratio)
}

/// The rows that complete a window, with their sequence, position and entry.
fn completing(step: &Step, ratio: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let rows = step.rows().enumerate();
    let rows = rows.filter(move |(_, (_, position))| (position + 1) % ratio == 0);
    rows.map(move |(row, (sequence, position))| (row, sequence.index, (position + 1) / ratio - 1))
}

fn store_pieces(data: &Rc<StoreData>, step: &Step) -> Vec<Piece> {
    if step.row_count() < 2 {
        return Vec::new();
    }
    let row_byte_count = data.format.byte_count(data.width, data.tail);
    let pieces = completing(step, data.ratio).map(|(row, sequence, entry)| {
        let bytes = data.pages.bytes_of(sequence, entry, row_byte_count);
        Piece {
            case: store_step(data, &step.row_alone(row)),
            equal: vec![("pool", bytes.clone(), bytes)],
        }
    });
    pieces.take(4).collect()
}

/// Unpacked entries are the rotated rows.
fn check_stored(data: &StoreData, step: &Step, pool: &[u8]) -> Result<(), String> {
    let source_rows = step.source_rows();
    for (row, sequence, entry) in completing(step, data.ratio) {
        let found = floats(&pool[data.pages.bytes_of(sequence, entry, 4 * data.width)]);
        let mut expected: Vec<f64> = data.x[source_rows[row] * data.width..][..data.width]
            .iter()
            .map(|value| f64::from(*value))
            .collect();
        let rotary = &mut expected[data.width - data.tail..];
        for (pair, channels) in rotary.chunks_exact_mut(2).enumerate() {
            let (sin, cos) = ((entry * data.ratio) as f64 * 0.5f64.powi(pair as i32)).sin_cos();
            let [a, b] = [channels[0], channels[1]];
            [channels[0], channels[1]] = [a * cos - b * sin, a * sin + b * cos];
        }
        for (channel, (found, expected)) in found.iter().zip(expected).enumerate() {
            if (f64::from(*found) - expected).abs() > 1e-4 {
                return Err(format!(
                    "entry {entry}, channel {channel}: found {found}, expected {expected}"
                ));
            }
        }
    }
    Ok(())
}
