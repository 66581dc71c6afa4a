//! Cases of sparse attention.

use std::rc::Rc;

use cachalot_numerics::{Dtype, bf16, e4m3};
use proptest::prelude::*;

use super::{
    Suite,
    case::{Argument, Case, Piece},
    compare::Expect,
    ragged::{Pages, Step, rows},
    seeds, suite,
    tails::{ROW_FORMATS, history, row_shape},
    values::Values,
    widths,
};
use crate::{AttendEntries, Attention, Entries, RowFormat};

pub(super) fn attention() -> Vec<Suite> {
    let heads = prop_oneof![4 => 1usize..=9, 1 => Just(64usize)];
    let window = prop_oneof![4 => 1usize..=20, 1 => Just(128usize)];
    let kinds = [EntryKind::None, EntryKind::All, EntryKind::Selected];
    let mut suites = Vec::new();
    let alike = ROW_FORMATS.map(|format| (format, format));
    // V4.1.
    let mixed = [(RowFormat::Fp8, RowFormat::Fp4Fine)];
    for formats in alike.into_iter().chain(mixed) {
        for kind in kinds {
            let parameters = (0usize..=4, heads.clone(), window.clone(), widths(), seeds());
            suites.push(suite(7, parameters, move |(sequences, heads, window, width, seed)| {
                attention_case(formats, kind, [sequences, heads, window, width], seed)
            }));
        }
    }
    suites
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum EntryKind {
    None,
    All,
    Selected,
}

struct AttentionData {
    format: RowFormat,
    entry_format: RowFormat,
    /// Heads, width, tail.
    shape: [usize; 3],
    window: usize,
    ring_row_count: usize,
    query: Vec<f32>,
    sink: Vec<f32>,
    window_rows: Vec<Vec<Vec<u8>>>,
    kind: EntryKind,
    ratio: usize,
    entries: Vec<Vec<Vec<u8>>>,
    /// Chosen entries of each row of the whole step, and k.
    selected: (Vec<i32>, usize),
    pages: Pages,
}

fn attention_case(
    (format, entry_format): (RowFormat, RowFormat),
    kind: EntryKind,
    [sequence_count, heads, window, width]: [usize; 4],
    seed: u64,
) -> Case {
    let mut values = Values::new(seed);
    let tail = values.below(70);
    let [width, tail] = row_shape(entry_format, width, tail);
    let step = Step::random(&mut values, sequence_count, if window == 128 { 300 } else { 60 });
    let ratio = 1 + values.below(5);
    let page_entry_count = 1 + values.below(9);
    let pages = Pages::random(&mut values, &step, ratio, page_entry_count);
    let packed = |values: &mut Values| random_packed(values, entry_format, width, tail);
    let entries = step.sequences.iter().map(|sequence| {
        let entries = 0..sequence.end() / ratio;
        entries.map(|_| packed(&mut values)).collect()
    });
    let entries = entries.collect();
    let mut query = values.floats(step.row_count() * heads * width, 2.0);
    if format == RowFormat::Fp8 {
        // As official mode's rotation leaves them. A single row is a small sample: rounding them too may by chance err
        // more than the ratio allows; the cases of other formats have such queries.
        query.iter_mut().for_each(|value| *value = bf16::round(*value));
    }
    let data = AttentionData {
        format,
        entry_format,
        shape: [heads, width, tail],
        window,
        ring_row_count: (window - 1 + values.below(4)).max(1),
        query,
        sink: values.floats(heads, 2.0),
        window_rows: history(&mut values, &step, |values| random_packed(values, format, width, tail)),
        kind,
        ratio,
        entries,
        selected: random_selection(&mut values, &step, ratio),
        pages,
    };
    attention_step(&Rc::new(data), &step)
}

/// For every row some of its visible entries, ascending, then -1.
pub(super) fn random_selection(values: &mut Values, step: &Step, ratio: usize) -> (Vec<i32>, usize) {
    let count = 1 + values.below(20);
    let mut selected = Vec::new();
    for (_, position) in step.rows() {
        let visible = (position + 1) / ratio;
        let mut chosen: Vec<i32> = values
            .permutation(visible)
            .into_iter()
            .take(count)
            .map(|i| i as i32)
            .collect();
        chosen.sort_unstable();
        chosen.resize(count, -1);
        selected.extend(chosen);
    }
    (selected, count)
}

/// A row of nearly normal values in any format, without going through an operator.
pub(super) fn random_packed(values: &mut Values, format: RowFormat, width: usize, tail: usize) -> Vec<u8> {
    let bf16_bytes = |value: f32| bf16::encode(value).to_le_bytes();
    let mut row = Vec::with_capacity(format.byte_count(width, tail));
    match format {
        RowFormat::F32 => row.extend((0..width).flat_map(|_| values.normal().to_le_bytes())),
        RowFormat::Bf16 => row.extend((0..width).flat_map(|_| bf16_bytes(values.normal()))),
        RowFormat::Fp8Tail => {
            row.extend((0..width - tail).map(|_| e4m3::encode(values.normal() * 128.0)));
            row.extend((0..tail).flat_map(|_| bf16_bytes(values.normal())));
            let groups = (width - tail).div_ceil(RowFormat::FP8_GROUP);
            row.extend((0..groups).map(|_| 119 + values.below(3) as u8));
            row.resize(format.byte_count(width, tail), 0);
        }
        RowFormat::Fp8 => {
            row.extend((0..width).map(|_| e4m3::encode(values.normal() * 128.0)));
            row.extend((0..width.div_ceil(RowFormat::FP8_SMALL_GROUP)).map(|_| 119 + values.below(3) as u8));
        }
        RowFormat::Fp4Fine => {
            row.extend(values.bytes(width.div_ceil(2)));
            let groups = width.div_ceil(RowFormat::FP4_FINE_GROUP);
            row.extend((0..groups).map(|_| e4m3::encode(0.1 + values.signed().abs() / 2.0)));
        }
        RowFormat::Fp4Hadamard | RowFormat::Fp4 => {
            row.extend(values.bytes(width.div_ceil(2)));
            row.extend((0..width.div_ceil(RowFormat::FP4_GROUP)).map(|_| 124 + values.below(3) as u8));
        }
    }
    row
}

fn attention_step(data: &Rc<AttentionData>, step: &Step) -> Case {
    let ([heads, width, tail], format) = (data.shape, data.format);
    let entry_format = data.entry_format;
    let (window, ratio, kind) = (data.window, data.ratio, data.kind);
    let row_count = step.row_count();
    let source_rows = step.source_rows();
    let query_rows = source_rows
        .iter()
        .flat_map(|row| &data.query[row * heads * width..][..heads * width]);
    let query: Vec<f32> = query_rows.copied().collect();
    let row_byte_count = format.byte_count(width, tail);
    let ring_shape = [step.slot_count, data.ring_row_count, row_byte_count];
    let rings = step.rings(data.ring_row_count, &data.window_rows, row_byte_count);
    // Official: weights of the sum are rounded to bf16, on either side of a border.
    let expect = Expect::noisy(1.0 / 256.0);
    let mut arguments = step.arguments();
    arguments.extend([
        Argument::f32("query", &[row_count, heads, width], &query),
        Argument::new(
            "fresh",
            Dtype::U8,
            &[row_count, row_byte_count],
            step.fresh(&data.window_rows),
        ),
        Argument::new("tail", Dtype::U8, &ring_shape, rings),
        Argument::f32("sink", &[heads], &data.sink).weight(),
        Argument::output("out", Dtype::F32, &[row_count, heads, width], expect),
    ]);
    if kind != EntryKind::None {
        let entry_byte_count = entry_format.byte_count(width, tail);
        let pool_shape = [data.pages.page_count, data.pages.page_entry_count, entry_byte_count];
        let pool = data.pages.pool(&data.entries, entry_byte_count);
        arguments.push(Argument::new("pool", Dtype::U8, &pool_shape, pool));
        arguments.push(data.pages.table(step));
    }
    let (selected, count) = &data.selected;
    if kind == EntryKind::Selected {
        let rows = source_rows.iter().flat_map(|row| &selected[row * count..][..*count]);
        let rows: Vec<i32> = rows.copied().collect();
        arguments.push(Argument::i32("selected", &[row_count, *count], &rows).last_free());
    }
    let label = format!(
        "{format:?} and {entry_format:?}, tail {tail}, window {window}, {kind:?} entries, ratio {ratio}, {step:?}"
    );
    let mut case = Case::new(label, arguments, move |loaded| {
        let entries = |_| AttendEntries {
            entries: Entries {
                pool: loaded.tensor("pool"),
                page_table: loaded.tensor("page_table"),
                format: entry_format,
                width,
                tail,
                ratio,
            },
            selected: loaded.has("selected").then(|| loaded.tensor("selected")),
        };
        Attention {
            rows: rows(loaded),
            query: loaded.tensor("query"),
            fresh: loaded.tensor("fresh"),
            tail: loaded.tensor("tail"),
            format,
            rotary: tail,
            window,
            entries: loaded.has("pool").then_some(()).map(entries),
            sink: loaded.tensor("sink"),
            scale: 1.0 / (width as f32).sqrt(),
            out: loaded.tensor("out"),
        }
        .into()
    });
    let (data_of_pieces, step_of_pieces) = (Rc::clone(data), step.clone());
    case.pieces = Some(Rc::new(move || attention_pieces(&data_of_pieces, &step_of_pieces)));
    let case = step.refuse_bad_rows(case, true);
    refuse_bad_entries(case, data, step)
}

fn refuse_bad_entries(mut case: Case, data: &AttentionData, step: &Step) -> Case {
    if data.kind != EntryKind::None {
        case = data.pages.refuse_bad_page(case, step, data.ratio);
    }
    if data.kind == EntryKind::Selected && step.row_count() > 0 {
        let (_, first_position) = step.rows().next().expect("a row");
        case = case.refuses("selected", 0, ((first_position + 1) / data.ratio) as i64);
        case = case.refuses("selected", 0, -2);
    }
    case
}

fn attention_pieces(data: &Rc<AttentionData>, step: &Step) -> Vec<Piece> {
    let row_byte_count = 4 * data.shape[0] * data.shape[1];
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
