//! Cases of packed rows, tail rings and the compressor.

use std::rc::Rc;

use cachalot_numerics::Dtype;
use proptest::prelude::*;

use super::{
    Suite,
    case::{Argument, Case, Piece, UNWRITTEN_BYTE},
    compare::Expect,
    ragged::{Pages, Step, rows},
    row_counts, seeds, suite,
    values::Values,
    widths,
};
use crate::{Compress, Entries, PackRows, RowFormat, WriteTail};

/// Every row format.
pub(super) const ROW_FORMATS: [RowFormat; 7] = [
    RowFormat::F32,
    RowFormat::Bf16,
    RowFormat::Fp8Tail,
    RowFormat::Fp4Hadamard,
    RowFormat::Fp8,
    RowFormat::Fp4,
    RowFormat::Fp4Fine,
];

/// A width and a tail that `format` can pack, from any two numbers.
pub(super) fn row_shape(format: RowFormat, width: usize, tail: usize) -> [usize; 2] {
    let width = match format {
        RowFormat::Fp4Hadamard => width.clamp(2, 128).next_power_of_two(),
        // Two channels share a byte.
        RowFormat::Fp4 | RowFormat::Fp4Fine => width.max(2) / 2 * 2,
        _ => width.max(2),
    };
    [width, tail.min(width) / 2 * 2]
}

pub(super) fn pack_rows() -> Vec<Suite> {
    let parameters = || (row_counts(), widths(), 0usize..=80, seeds());
    let case = |format| {
        move |(row_count, width, tail, seed)| {
            let [width, tail] = row_shape(format, width, tail);
            let mut values = Values::new(seed);
            let deviation = 10f32.powi(values.below(8) as i32 - 4);
            let shape = [row_count, format.byte_count(width, tail)];
            let expect = Expect::Packed(format, width, tail);
            let arguments = vec![
                Argument::f32("x", &[row_count, width], &values.floats(row_count * width, deviation)).by_row(),
                Argument::output("out", Dtype::U8, &shape, expect).by_row(),
            ];
            Case::new(format!("{format:?}, tail {tail}"), arguments, move |loaded| {
                PackRows {
                    x: loaded.tensor("x"),
                    tail,
                    format,
                    out: loaded.tensor("out"),
                }
                .into()
            })
        }
    };
    ROW_FORMATS.map(|format| suite(16, parameters(), case(format))).into()
}

pub(super) fn write_tail() -> Vec<Suite> {
    let parameters = (0usize..=4, 1usize..=40, 1usize..=40, any::<bool>(), seeds());
    vec![suite(
        40,
        parameters,
        |(sequence_count, ring_row_count, width, is_packed, seed)| {
            let mut values = Values::new(seed);
            let step = Step::random(&mut values, sequence_count, 60);
            let dtype = if is_packed { Dtype::U8 } else { Dtype::F32 };
            let row_byte_count = width * dtype.byte_count();
            let history = history(&mut values, &step, |values| values.bytes(row_byte_count));
            let ring_shape = [step.slot_count, ring_row_count, width];
            let ring = step.rings(ring_row_count, &history, row_byte_count);
            let mut arguments = step.arguments();
            arguments.push(Argument::new(
                "x",
                dtype,
                &[step.row_count(), width],
                step.fresh(&history),
            ));
            arguments.push(Argument::new("ring", dtype, &ring_shape, ring).in_place(Expect::Bytes));
            let case = Case::new("", arguments, |loaded| {
                WriteTail {
                    rows: rows(loaded),
                    x: loaded.tensor("x"),
                    ring: loaded.tensor("ring"),
                }
                .into()
            });
            // Afterwards the rings hold what a later step finds.
            let mut after = step.clone();
            after
                .sequences
                .iter_mut()
                .for_each(|sequence| sequence.first_position = sequence.end());
            let expected = after.rings(ring_row_count, &history, row_byte_count);
            let case = case.verify(move |_, outputs| {
                if outputs["ring"] != expected {
                    return Err("'ring' does not hold the last rows of every sequence".to_owned());
                }
                Ok(())
            });
            step.refuse_bad_rows(case, true)
        },
    )]
}

/// Rows of every sequence from position 0 to the end of the step.
pub(super) fn history(
    values: &mut Values,
    step: &Step,
    mut row: impl FnMut(&mut Values) -> Vec<u8>,
) -> Vec<Vec<Vec<u8>>> {
    let sequences = step.sequences.iter();
    sequences
        .map(|sequence| (0..sequence.end()).map(|_| row(values)).collect())
        .collect()
}

pub(super) fn compress() -> Vec<Suite> {
    let parameters = || (0usize..=4, 1usize..=6, 1usize..=5, widths(), any::<bool>(), seeds());
    let mut suites: Vec<Suite> = ROW_FORMATS
        .map(|format| {
            suite(
                14,
                parameters(),
                move |(sequences, ratio, page_entries, width, overlap, seed)| {
                    compress_case(format, sequences, ratio, page_entries, width, overlap, seed)
                },
            )
        })
        .into();
    // The long windows of HCA layers.
    suites.push(suite(2, (1usize..=2, seeds()), |(sequences, seed)| {
        compress_case(RowFormat::Fp8Tail, sequences, 128, 2, 96, false, seed)
    }));
    suites
}

fn compress_case(
    format: RowFormat,
    sequence_count: usize,
    ratio: usize,
    page_entry_count: usize,
    width: usize,
    overlap: bool,
    seed: u64,
) -> Case {
    let mut values = Values::new(seed);
    let tail = values.below(70);
    let [width, tail] = row_shape(format, width, tail);
    let windows = if overlap { 2 } else { 1 };
    let step = Step::random(&mut values, sequence_count, if ratio > 6 { 300 } else { 60 });
    let pages = Pages::random(&mut values, &step, ratio, page_entry_count);
    let row_width = windows * width;
    let random_rows = |values: &mut Values, deviation| {
        history(values, &step, |values| {
            let row = values.floats(row_width, deviation);
            row.iter().flat_map(|value| value.to_le_bytes()).collect()
        })
    };
    let data = CompressData {
        format,
        shape: [width, tail],
        ratio,
        overlap,
        ring_row_count: (windows * ratio + values.below(4)).saturating_sub(1).max(1),
        kv: random_rows(&mut values, 1.0),
        gate: random_rows(&mut values, 1.5),
        ape: values.floats(ratio * row_width, 1.0),
        norm: values.floats(width, 1.0),
        pages,
    };
    compress_step(&Rc::new(data), &step)
}

struct CompressData {
    format: RowFormat,
    shape: [usize; 2],
    ratio: usize,
    overlap: bool,
    ring_row_count: usize,
    kv: Vec<Vec<Vec<u8>>>,
    gate: Vec<Vec<Vec<u8>>>,
    ape: Vec<f32>,
    norm: Vec<f32>,
    pages: Pages,
}

fn compress_step(data: &Rc<CompressData>, step: &Step) -> Case {
    let ([width, tail], ratio, overlap, format) = (data.shape, data.ratio, data.overlap, data.format);
    let row_width = if overlap { 2 * width } else { width };
    let rows_shape = [step.row_count(), row_width];
    let ring_shape = [step.slot_count, data.ring_row_count, row_width];
    let rings = |history| step.rings(data.ring_row_count, history, 4 * row_width);
    let frequencies: Vec<f32> = (0..tail / 2).map(|i| 0.5f32.powi(i as i32)).collect();
    let entry_byte_count = format.byte_count(width, tail);
    let pool_shape = [data.pages.page_count, data.pages.page_entry_count, entry_byte_count];
    let pool = vec![UNWRITTEN_BYTE; pool_shape.iter().product()];
    let mut arguments = step.arguments();
    arguments.extend([
        Argument::new("kv", Dtype::F32, &rows_shape, step.fresh(&data.kv)),
        Argument::new("gate", Dtype::F32, &rows_shape, step.fresh(&data.gate)),
        Argument::new("kv_tail", Dtype::F32, &ring_shape, rings(&data.kv)),
        Argument::new("gate_tail", Dtype::F32, &ring_shape, rings(&data.gate)),
        Argument::f32("ape", &[ratio, row_width], &data.ape).weight(),
        Argument::f32("norm", &[width], &data.norm).weight(),
        Argument::f32("frequencies", &[tail / 2], &frequencies).weight(),
        data.pages.table(step),
        Argument::new("pool", Dtype::U8, &pool_shape, pool).in_place(Expect::Packed(format, width, tail)),
    ]);
    let label = format!("{format:?}, width {width}, tail {tail}, ratio {ratio}, overlap {overlap}, {step:?}");
    let mut case = Case::new(label, arguments, move |loaded| {
        Compress {
            rows: rows(loaded),
            kv: loaded.tensor("kv"),
            gate: loaded.tensor("gate"),
            kv_tail: loaded.tensor("kv_tail"),
            gate_tail: loaded.tensor("gate_tail"),
            ape: loaded.tensor("ape"),
            norm: loaded.tensor("norm"),
            norm_epsilon: 1e-6,
            frequencies: loaded.tensor("frequencies"),
            overlap,
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
    case.pieces = Some(Rc::new(move || compress_pieces(&data_of_pieces, &step_of_pieces)));
    let case = step.refuse_bad_rows(case, true);
    data.pages.refuse_bad_page(case, step, ratio)
}

/// The rows that complete a window, each alone: prefill in one go and token by token store the same entries.
fn compress_pieces(data: &Rc<CompressData>, step: &Step) -> Vec<Piece> {
    let [width, tail] = data.shape;
    let completing = step
        .rows()
        .enumerate()
        .filter(|(_, (_, position))| (position + 1) % data.ratio == 0);
    let pieces = completing.map(|(row, (sequence, position))| {
        let entry = (position + 1) / data.ratio - 1;
        let bytes = data
            .pages
            .bytes_of(sequence.index, entry, data.format.byte_count(width, tail));
        Piece {
            case: compress_step(data, &step.row_alone(row)),
            equal: vec![("pool", bytes.clone(), bytes)],
        }
    });
    if step.row_count() < 2 {
        Vec::new()
    } else {
        pieces.take(4).collect()
    }
}
