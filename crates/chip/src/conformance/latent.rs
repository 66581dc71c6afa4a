//! Cases of latent attention: keys into their pool, queries into the space of the latents, attention.

use std::rc::Rc;

use cachalot_numerics::{Dtype, MatrixFormat, bf16};
use proptest::prelude::*;

use super::{
    Suite,
    attention::{random_packed, random_selection},
    case::{Argument, Case, Piece, UNWRITTEN_BYTE},
    compare::Expect,
    linear::product_magnitudes,
    ragged::{Pages, Step, rows},
    row_counts, seeds, suite,
    tails::{ROW_FORMATS, row_shape},
    values::{FORMATS, Values},
    widths,
};
use crate::{AttendEntries, Entries, KeyForm, LatentAttention, LatentQuery, RowFormat, StoreKeys};

/// Cosines and sines of anything.
pub(super) fn random_angles(values: &mut Values, pair_count: usize) -> Vec<f32> {
    let pairs = (0..pair_count).flat_map(|_| {
        let (sin, cos) = (values.signed() * 3.0).sin_cos();
        [cos, sin]
    });
    pairs.collect()
}

pub(super) fn store_keys() -> Vec<Suite> {
    let parameters = || (0usize..=4, 1usize..=5, widths(), 1usize..=33, seeds());
    let mut suites = Vec::new();
    for format in ROW_FORMATS {
        for is_index in [false, true] {
            let case = move |(sequences, page_entries, width, pairs, seed)| {
                store_case(format, is_index, [sequences, page_entries, width, pairs], seed)
            };
            suites.push(suite(8, parameters(), case));
        }
    }
    suites
}

struct StoreData {
    format: RowFormat,
    is_index: bool,
    width: usize,
    tail: usize,
    pair_count: usize,
    x: Vec<f32>,
    angles: Vec<f32>,
    norm: Vec<f32>,
    bias: Vec<f32>,
    pages: Pages,
}

fn store_case(
    format: RowFormat,
    is_index: bool,
    [sequence_count, page_entry_count, width, pair_count]: [usize; 4],
    seed: u64,
) -> Case {
    let mut values = Values::new(seed);
    let pair_count = pair_count.min((width - 1) / 2);
    // A latent of at least one channel before an even tail.
    let [width, tail] = row_shape(format, width, 2 * pair_count);
    let pair_count = tail / 2;
    let tail = 2 * pair_count;
    let step = Step::random(&mut values, sequence_count, 60);
    let pages = Pages::random(&mut values, &step, 1, page_entry_count);
    let row_count = step.row_count();
    let data = StoreData {
        format,
        is_index,
        width,
        tail,
        pair_count,
        x: values.floats(row_count * width, 1.0),
        angles: random_angles(&mut values, row_count * pair_count),
        norm: values.floats(if is_index { width } else { width - tail }, 1.0),
        bias: values.floats(width, 0.5),
        pages,
    };
    store_step(&Rc::new(data), &step)
}

fn store_step(data: &Rc<StoreData>, step: &Step) -> Case {
    let (format, width, tail, pair_count) = (data.format, data.width, data.tail, data.pair_count);
    let row_count = step.row_count();
    let pick = |values: &[f32], length: usize| -> Vec<f32> {
        let rows = step.source_rows().into_iter();
        rows.flat_map(|row| values[row * length..][..length].to_vec()).collect()
    };
    let pool_shape = [
        data.pages.page_count,
        data.pages.page_entry_count,
        format.byte_count(width, tail),
    ];
    let pool = vec![UNWRITTEN_BYTE; pool_shape.iter().product()];
    let mut arguments = step.arguments();
    arguments.extend([
        Argument::f32("x", &[row_count, width], &pick(&data.x, width)),
        Argument::f32(
            "angles",
            &[row_count, pair_count, 2],
            &pick(&data.angles, 2 * pair_count),
        ),
        Argument::f32("norm", &[data.norm.len()], &data.norm).weight(),
        data.pages.table(step),
        Argument::new("pool", Dtype::U8, &pool_shape, pool).in_place(Expect::Packed(format, width, tail)),
    ]);
    if data.is_index {
        arguments.push(Argument::f32("bias", &[width], &data.bias).weight());
    }
    let label = format!("{format:?}, width {width}, tail {tail}, {pair_count} pairs, {step:?}");
    let mut case = Case::new(label, arguments, move |loaded| {
        let norm = loaded.tensor("norm");
        let form = match loaded.has("bias") {
            false => KeyForm::Latent { norm },
            true => KeyForm::Index {
                norm,
                bias: loaded.tensor("bias"),
            },
        };
        StoreKeys {
            rows: rows(loaded),
            x: loaded.tensor("x"),
            form,
            epsilon: 1e-6,
            angles: loaded.tensor("angles"),
            out: Entries {
                pool: loaded.tensor("pool"),
                page_table: loaded.tensor("page_table"),
                format,
                width,
                tail,
                ratio: 1,
            },
        }
        .into()
    });
    let (data_of_pieces, step_of_pieces) = (Rc::clone(data), step.clone());
    case.pieces = Some(Rc::new(move || store_pieces(&data_of_pieces, &step_of_pieces)));
    let case = step.refuse_bad_rows(case, false);
    data.pages.refuse_bad_page(case, step, 1)
}

/// Single rows: prefill in one go and token by token store the same keys.
fn store_pieces(data: &Rc<StoreData>, step: &Step) -> Vec<Piece> {
    let rows: Vec<_> = step.rows().collect();
    let pieces = step.sample_rows(4).into_iter().map(|row| {
        let (sequence, position) = rows[row];
        let row_byte_count = data.format.byte_count(data.width, data.tail);
        let bytes = data.pages.bytes_of(sequence.index, position, row_byte_count);
        Piece {
            case: store_step(data, &step.row_alone(row)),
            equal: vec![("pool", bytes.clone(), bytes)],
        }
    });
    pieces.collect()
}

pub(super) fn query() -> Vec<Suite> {
    let parameters = || (row_counts(), 1usize..=5, widths(), 1usize..=140, 1usize..=33, seeds());
    FORMATS
        .map(|format| {
            suite(8, parameters(), move |(rows, heads, latent, plain, pairs, seed)| {
                query_case(format, [rows, heads, latent, plain, pairs], seed)
            })
        })
        .into()
}

fn query_case(format: MatrixFormat, [row_count, heads, latent, plain, pairs]: [usize; 5], seed: u64) -> Case {
    let mut values = Values::new(seed);
    let absorb = values.matrix(heads * latent, plain, format);
    let x = values.floats(row_count * heads * (plain + 2 * pairs), 1.0);
    let plain_x: Vec<f32> = x
        .chunks_exact(plain + 2 * pairs)
        .flat_map(|head| head[..plain].to_vec())
        .collect();
    // A rotated pair is at most as long as its largest channels.
    let magnitudes = product_magnitudes(&absorb, &plain_x, row_count)
        .into_iter()
        .map(|magnitude| magnitude.max(1.0))
        .collect();
    let angles = random_angles(&mut values, row_count * pairs);
    let arguments = vec![
        Argument::f32("query", &[row_count, heads, plain + 2 * pairs], &x).by_row(),
        Argument::f32("angles", &[row_count, pairs, 2], &angles).by_row(),
        Argument::output(
            "out",
            Dtype::F32,
            &[row_count, heads, latent + 2 * pairs],
            Expect::magnitudes(magnitudes),
        )
        .by_row(),
    ];
    let case = Case::new(format!("{pairs} pairs"), arguments, |loaded| {
        LatentQuery {
            query: loaded.tensor("query"),
            absorb: loaded.matrix("absorb"),
            angles: loaded.tensor("angles"),
            out: loaded.tensor("out"),
        }
        .into()
    });
    case.matrix("absorb", absorb)
}

pub(super) fn attention() -> Vec<Suite> {
    let heads = prop_oneof![4 => 1usize..=9, 1 => Just(64usize)];
    let mut suites = Vec::new();
    for format in ROW_FORMATS {
        for is_selected in [false, true] {
            let parameters = (0usize..=4, heads.clone(), widths(), seeds());
            suites.push(suite(8, parameters, move |(sequences, heads, width, seed)| {
                attention_case(format, is_selected, [sequences, heads, width], seed)
            }));
        }
    }
    suites
}

struct AttentionData {
    format: RowFormat,
    /// Heads, width, tail.
    shape: [usize; 3],
    query: Vec<f32>,
    entries: Vec<Vec<Vec<u8>>>,
    /// Chosen entries of each row of the whole step, and k.
    selected: Option<(Vec<i32>, usize)>,
    pages: Pages,
}

fn attention_case(format: RowFormat, is_selected: bool, [sequence_count, heads, width]: [usize; 3], seed: u64) -> Case {
    let mut values = Values::new(seed);
    let tail = values.below(70);
    let [width, tail] = row_shape(format, width, tail);
    // At least one channel is a value's.
    let tail = tail.min(width - 1);
    let step = Step::random(&mut values, sequence_count, 120);
    let page_entry_count = 1 + values.below(9);
    let pages = Pages::random(&mut values, &step, 1, page_entry_count);
    let entries = step.sequences.iter().map(|sequence| {
        let entries = 0..sequence.end();
        entries
            .map(|_| random_packed(&mut values, format, width, tail))
            .collect()
    });
    let entries = entries.collect();
    let queries = values.floats(step.row_count() * heads * width, 2.0);
    let data = AttentionData {
        format,
        shape: [heads, width, tail],
        // What official mode hands on; kernels that round queries to bf16 add the error that official has before.
        query: queries.into_iter().map(bf16::round).collect(),
        entries,
        selected: is_selected.then(|| random_selection(&mut values, &step, 1)),
        pages,
    };
    attention_step(&Rc::new(data), &step)
}

fn attention_step(data: &Rc<AttentionData>, step: &Step) -> Case {
    let ([heads, width, tail], format) = (data.shape, data.format);
    let row_count = step.row_count();
    let source_rows = step.source_rows();
    let query_rows = source_rows
        .iter()
        .flat_map(|row| &data.query[row * heads * width..][..heads * width]);
    let query: Vec<f32> = query_rows.copied().collect();
    let row_byte_count = format.byte_count(width, tail);
    let pool_shape = [data.pages.page_count, data.pages.page_entry_count, row_byte_count];
    let pool = data.pages.pool(&data.entries, row_byte_count);
    // Official: weights of the sum are rounded to bf16, on either side of a border.
    let expect = Expect::noisy(1.0 / 256.0);
    let mut arguments = step.arguments();
    arguments.extend([
        Argument::f32("query", &[row_count, heads, width], &query),
        Argument::new("pool", Dtype::U8, &pool_shape, pool),
        data.pages.table(step),
        Argument::output("out", Dtype::F32, &[row_count, heads, width - tail], expect),
    ]);
    if let Some((selected, count)) = &data.selected {
        let rows = source_rows.iter().flat_map(|row| &selected[row * count..][..*count]);
        let rows: Vec<i32> = rows.copied().collect();
        arguments.push(Argument::i32("selected", &[row_count, *count], &rows).last_free());
    }
    let label = format!("{format:?}, tail {tail}, {step:?}");
    let mut case = Case::new(label, arguments, move |loaded| {
        LatentAttention {
            rows: rows(loaded),
            query: loaded.tensor("query"),
            keys: AttendEntries {
                entries: Entries {
                    pool: loaded.tensor("pool"),
                    page_table: loaded.tensor("page_table"),
                    format,
                    width,
                    tail,
                    ratio: 1,
                },
                selected: loaded.has("selected").then(|| loaded.tensor("selected")),
            },
            scale: 1.0 / (width as f32).sqrt(),
            out: loaded.tensor("out"),
        }
        .into()
    });
    let (data_of_pieces, step_of_pieces) = (Rc::clone(data), step.clone());
    case.pieces = Some(Rc::new(move || attention_pieces(&data_of_pieces, &step_of_pieces)));
    let mut case = data.pages.refuse_bad_page(step.refuse_bad_rows(case, false), step, 1);
    if let (Some(_), Some((_, first_position))) = (&data.selected, step.rows().next()) {
        case = case.refuses("selected", 0, first_position as i64 + 1);
        case = case.refuses("selected", 0, -2);
    }
    case
}

fn attention_pieces(data: &Rc<AttentionData>, step: &Step) -> Vec<Piece> {
    let [heads, width, tail] = data.shape;
    let row_byte_count = 4 * heads * (width - tail);
    let rows = step.sample_rows(4).into_iter();
    rows.map(|row| Piece {
        case: attention_step(data, &step.row_alone(row)),
        equal: vec![(
            "out",
            row * row_byte_count..(row + 1) * row_byte_count,
            0..row_byte_count,
        )],
    })
    .collect()
}
