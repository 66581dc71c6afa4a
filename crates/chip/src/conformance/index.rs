//! Cases of the lightning indexer.

use std::rc::Rc;

use cachalot_numerics::Dtype;
use proptest::prelude::*;

use super::{
    Suite,
    attention::random_packed,
    case::{Argument, Case, Piece},
    compare::{Expect, integers, unpack},
    experts::check_choice,
    ragged::{Pages, Step, rows},
    row_counts, seeds, suite,
    tails::{ROW_FORMATS, row_shape},
    values::Values,
    widths,
};
use crate::{Entries, IndexQuery, Mode, RowFormat, SelectEntries};

/// Score errors in official mode, relative to the sum of the absolute terms: products, weights, terms and the sum are
/// rounded to bf16, each by up to 2^-9. Fast mode may err as much.
pub(super) const OFFICIAL_SCORE_ERROR_MAX: f64 = 4.0 / 512.0;
/// Score errors in reference mode, from the order of sums.
pub(super) const REFERENCE_SCORE_ERROR_MAX: f64 = 1e-5;

pub(super) fn query() -> Vec<Suite> {
    let parameters = || (row_counts(), 1usize..=6, widths(), seeds());
    let case = |format| {
        move |(row_count, heads, width, seed)| {
            let [width, _] = row_shape(format, width, 0);
            let shape = [row_count, heads, width];
            let query = Values::new(seed).floats(shape.iter().product(), 1.0);
            // In official mode a query is rounded to FP4 at the end: an element may move by one of its steps.
            let query = Argument::f32("query", &shape, &query)
                .by_row()
                .last_free()
                .in_place(Expect::noisy(0.2));
            Case::new(format!("{format:?}"), vec![query], move |loaded| {
                IndexQuery {
                    query: loaded.tensor("query"),
                    format,
                }
                .into()
            })
        }
    };
    vec![
        suite(24, parameters(), case(RowFormat::Fp4Hadamard)),
        suite(4, parameters(), case(RowFormat::Bf16)),
        suite(12, parameters(), case(RowFormat::Fp4)),
    ]
}

pub(super) fn select_entries() -> Vec<Suite> {
    let heads = prop_oneof![4 => 1usize..=9, 1 => Just(64usize)];
    let parameters = move || {
        let shape = (heads.clone(), widths(), 1usize..=40);
        (0usize..=4, 1usize..=5, 1usize..=9, shape, seeds())
    };
    let case = |format| {
        move |(sequences, ratio, page_entries, (heads, width, count), seed)| {
            select_case(format, [sequences, ratio, page_entries], [heads, width, count], seed)
        }
    };
    ROW_FORMATS.map(|format| suite(14, parameters(), case(format))).into()
}

struct SelectData {
    format: RowFormat,
    /// Heads, width, tail, k, ratio.
    shape: [usize; 5],
    query: Vec<f32>,
    weights: Vec<f32>,
    keys: Vec<Vec<Vec<u8>>>,
    pages: Pages,
}

fn select_case(
    format: RowFormat,
    [sequence_count, ratio, page_entry_count]: [usize; 3],
    [heads, width, count]: [usize; 3],
    seed: u64,
) -> Case {
    let mut values = Values::new(seed);
    let tail = values.below(70);
    let [width, tail] = row_shape(format, width, tail);
    let step = Step::random(&mut values, sequence_count, 160);
    let pages = Pages::random(&mut values, &step, ratio, page_entry_count);
    let keys = step.sequences.iter().map(|sequence| {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for entry in 0..sequence.end() / ratio {
            // Every fourth key repeats an earlier one: an exact tie.
            let key = if entry > 0 && values.below(4) == 0 {
                keys[values.below(entry)].clone()
            } else {
                random_packed(&mut values, format, width, tail)
            };
            keys.push(key);
        }
        keys
    });
    let keys = keys.collect();
    let row_count = step.row_count();
    let mut query = values.floats(row_count * heads * width, 1.0);
    if values.below(6) == 0 {
        // No head sees anything: all scores tie at zero.
        query.fill(0.0);
    }
    let data = SelectData {
        format,
        shape: [heads, width, tail, count, ratio],
        query,
        weights: values.floats(row_count * heads, 1.0),
        keys,
        pages,
    };
    select_step(&Rc::new(data), &step)
}

fn select_step(data: &Rc<SelectData>, step: &Step) -> Case {
    let ([heads, width, tail, count, ratio], format) = (data.shape, data.format);
    let row_count = step.row_count();
    let rows_of = |values: &[f32], width: usize| -> Vec<f32> {
        let rows = step.source_rows().into_iter();
        rows.flat_map(|row| values[row * width..][..width].iter().copied())
            .collect()
    };
    let (query, weights) = (rows_of(&data.query, heads * width), rows_of(&data.weights, heads));
    let key_byte_count = format.byte_count(width, tail);
    let pool_shape = [data.pages.page_count, data.pages.page_entry_count, key_byte_count];
    let scale = 1.0 / ((width * heads) as f32).sqrt();
    let mut arguments = step.arguments();
    arguments.extend([
        Argument::f32("query", &[row_count, heads, width], &query),
        Argument::f32("weights", &[row_count, heads], &weights),
        Argument::new(
            "pool",
            Dtype::U8,
            &pool_shape,
            data.pages.pool(&data.keys, key_byte_count),
        ),
        data.pages.table(step),
        Argument::output("selected", Dtype::I32, &[row_count, count], Expect::Verified).last_free(),
    ]);
    let label = format!("{format:?}, width {width}, tail {tail}, ratio {ratio}, {step:?}");
    let mut case = Case::new(label, arguments, move |loaded| {
        SelectEntries {
            rows: rows(loaded),
            query: loaded.tensor("query"),
            weights: loaded.tensor("weights"),
            scale,
            keys: Entries {
                pool: loaded.tensor("pool"),
                page_table: loaded.tensor("page_table"),
                format,
                width,
                tail,
                ratio,
            },
            selected: loaded.tensor("selected"),
        }
        .into()
    });
    let (data_of_pieces, step_of_pieces) = (Rc::clone(data), step.clone());
    case.pieces = Some(Rc::new(move || select_pieces(&data_of_pieces, &step_of_pieces)));
    let (data_of_check, step_of_check) = (Rc::clone(data), step.clone());
    let case = case.verify(move |mode, outputs| {
        let selected = integers(&outputs["selected"]);
        check_selected(&data_of_check, &step_of_check, mode, &selected, scale)
    });
    let case = step.refuse_bad_rows(case, false);
    data.pages.refuse_bad_page(case, step, ratio)
}

fn select_pieces(data: &Rc<SelectData>, step: &Step) -> Vec<Piece> {
    let row_byte_count = 4 * data.shape[3];
    let rows = step.sample_rows(4).into_iter();
    rows.map(|row| Piece {
        case: select_step(data, &step.row_alone(row)),
        equal: vec![(
            "selected",
            row * row_byte_count..(row + 1) * row_byte_count,
            0..row_byte_count,
        )],
    })
    .collect()
}

fn check_selected(data: &SelectData, step: &Step, mode: Mode, selected: &[i32], scale: f32) -> Result<(), String> {
    let [heads, width, tail, count, ratio] = data.shape;
    let error_max = match mode {
        Mode::Reference => REFERENCE_SCORE_ERROR_MAX,
        Mode::Official | Mode::Fast => OFFICIAL_SCORE_ERROR_MAX,
    };
    let source_rows = step.source_rows();
    for (row, (sequence, position)) in step.rows().enumerate() {
        let keys = &data.keys[sequence.index][..(position + 1) / ratio];
        let (chosen, rest) = selected[row * count..][..count].split_at(count.min(keys.len()));
        if rest.iter().any(|index| *index != -1) {
            return Err(format!(
                "'selected' row {row}: {rest:?} after the {} visible entries",
                keys.len()
            ));
        }
        let query = &data.query[source_rows[row] * heads * width..][..heads * width];
        let weights = &data.weights[source_rows[row] * heads..][..heads];
        let (mut scores, mut size) = (Vec::new(), 0.0f64);
        for key in keys {
            let key = unpack(data.format, width, tail, key);
            let (mut score, mut terms) = (0.0, 0.0);
            for (query, weight) in query.chunks_exact(width).zip(weights) {
                let products = query.iter().zip(&key).map(|(q, k)| f64::from(*q) * f64::from(*k));
                let (dot, absolute) = products.fold((0.0, 0.0), |(dot, sum), term| (dot + term, sum + term.abs()));
                let weight = f64::from(*weight) * f64::from(scale);
                score += f64::max(dot, 0.0) * weight;
                terms += (f64::max(dot, 0.0) + absolute * 1e-3) * weight.abs();
            }
            scores.push(score);
            size = size.max(terms);
        }
        check_choice(chosen, &scores, 2.0 * error_max * size, |a, b| keys[a] == keys[b])
            .map_err(|message| format!("'selected' row {row}: {message}"))?;
    }
    Ok(())
}
