//! Cases of the two-level selection.

use std::rc::Rc;

use cachalot_numerics::Dtype;

use super::{
    Suite,
    attention::random_packed,
    case::{Argument, Case, Piece},
    compare::{Expect, integers, unpack},
    experts::check_choice,
    index::{OFFICIAL_SCORE_ERROR_MAX, REFERENCE_SCORE_ERROR_MAX},
    ragged::{Pages, Step, rows},
    seeds, suite,
    tails::{ROW_FORMATS, row_shape},
    values::Values,
    widths,
};
use crate::{Entries, Mode, RowFormat, SelectBlocks, SelectInBlocks};

struct Data {
    format: RowFormat,
    /// Heads, width, tail, ratio.
    shape: [usize; 4],
    block_size: usize,
    /// Length of a row of the output.
    count: usize,
    /// Blocks to select in, of each row of the whole step, and their number; none where blocks are picked.
    blocks: Option<(Vec<i32>, usize)>,
    query: Vec<f32>,
    weights: Vec<f32>,
    keys: Vec<Vec<Vec<u8>>>,
    pages: Pages,
}

pub(super) fn select_blocks() -> Vec<Suite> {
    suites(false)
}

pub(super) fn select_in_blocks() -> Vec<Suite> {
    suites(true)
}

fn suites(is_inside: bool) -> Vec<Suite> {
    let parameters = || {
        let sizes = (1usize..=9, 1usize..=9, 1usize..=24);
        (0usize..=4, 1usize..=3, sizes, widths(), seeds())
    };
    let suites = ROW_FORMATS.map(|format| {
        let case = move |(sequences, ratio, (heads, block_size, count), width, seed)| {
            let data = Data::random(
                format,
                [sequences, ratio, heads, width],
                [block_size, count],
                is_inside,
                seed,
            );
            let (data, step) = data;
            select_step(&Rc::new(data), &step)
        };
        suite(8, parameters(), case)
    });
    suites.into()
}

impl Data {
    fn random(
        format: RowFormat,
        [sequence_count, ratio, heads, width]: [usize; 4],
        [block_size, count]: [usize; 2],
        is_inside: bool,
        seed: u64,
    ) -> (Data, Step) {
        let mut values = Values::new(seed);
        let tail = values.below(70);
        let [width, tail] = row_shape(format, width, tail);
        let step = Step::random(&mut values, sequence_count, 160);
        let page_entry_count = 1 + values.below(9);
        let pages = Pages::random(&mut values, &step, ratio, page_entry_count);
        let keys = step.sequences.iter().map(|sequence| {
            let entries = 0..sequence.end() / ratio;
            entries
                .map(|_| random_packed(&mut values, format, width, tail))
                .collect()
        });
        let keys = keys.collect();
        let row_count = step.row_count();
        let blocks = is_inside.then(|| {
            let block_count = 1 + values.below(12);
            let mut blocks = Vec::new();
            for (_, position) in step.rows() {
                let visible = ((position + 1) / ratio).div_ceil(block_size);
                let all = values.permutation(visible).into_iter();
                let mut some: Vec<i32> = all.take(block_count).map(|block| block as i32).collect();
                some.sort_unstable();
                some.resize(block_count, -1);
                blocks.extend(some);
            }
            (blocks, block_count)
        });
        let data = Data {
            format,
            shape: [heads, width, tail, ratio],
            block_size,
            count,
            blocks,
            query: values.floats(row_count * heads * width, 1.0),
            weights: values.floats(row_count * heads, 1.0),
            keys,
            pages,
        };
        (data, step)
    }

    fn scale(&self) -> f32 {
        ((self.shape[0] * self.shape[1]) as f32).sqrt().recip()
    }
}

fn select_step(data: &Rc<Data>, step: &Step) -> Case {
    let ([heads, width, tail, ratio], format, scale) = (data.shape, data.format, data.scale());
    let (row_count, block_size) = (step.row_count(), data.block_size);
    let key_byte_count = format.byte_count(width, tail);
    let pool_shape = [data.pages.page_count, data.pages.page_entry_count, key_byte_count];
    let pool = data.pages.pool(&data.keys, key_byte_count);
    let mut arguments = step.arguments();
    arguments.extend([
        Argument::f32(
            "query",
            &[row_count, heads, width],
            &rows_of(step, &data.query, heads * width),
        ),
        Argument::f32("weights", &[row_count, heads], &rows_of(step, &data.weights, heads)),
        Argument::new("pool", Dtype::U8, &pool_shape, pool),
        data.pages.table(step),
        Argument::output("chosen", Dtype::I32, &[row_count, data.count], Expect::Verified).last_free(),
    ]);
    if let Some((blocks, count)) = &data.blocks {
        let blocks = rows_of(step, blocks, *count);
        arguments.push(Argument::i32("blocks", &[row_count, *count], &blocks).last_free());
    }
    let label = format!("{format:?}, tail {tail}, ratio {ratio}, blocks of {block_size}, {step:?}");
    let mut case = Case::new(label, arguments, move |loaded| {
        let keys = Entries {
            pool: loaded.tensor("pool"),
            page_table: loaded.tensor("page_table"),
            format,
            width,
            tail,
            ratio,
        };
        let (query, weights) = (loaded.tensor("query"), loaded.tensor("weights"));
        match loaded.has("blocks") {
            false => SelectBlocks {
                rows: rows(loaded),
                query,
                weights,
                scale,
                keys,
                block_size,
                blocks: loaded.tensor("chosen"),
            }
            .into(),
            true => SelectInBlocks {
                rows: rows(loaded),
                query,
                weights,
                scale,
                keys,
                block_size,
                blocks: loaded.tensor("blocks"),
                selected: loaded.tensor("chosen"),
            }
            .into(),
        }
    });
    let (data_of_pieces, step_of_pieces) = (Rc::clone(data), step.clone());
    case.pieces = Some(Rc::new(move || pieces(&data_of_pieces, &step_of_pieces)));
    let (data_of_check, step_of_check) = (Rc::clone(data), step.clone());
    let mut case = case
        .verify(move |mode, outputs| check_chosen(&data_of_check, &step_of_check, mode, &integers(&outputs["chosen"])));
    if data.blocks.is_some() && row_count > 0 {
        case = case.refuses("blocks", 0, 1 << 20);
    }
    let case = step.refuse_bad_rows(case, false);
    data.pages.refuse_bad_page(case, step, ratio)
}

/// The rows of a step, `width` values each, out of those of the whole one.
fn rows_of<T: Copy>(step: &Step, values: &[T], width: usize) -> Vec<T> {
    let rows = step.source_rows().into_iter();
    rows.flat_map(|row| values[row * width..][..width].to_vec()).collect()
}

fn pieces(data: &Rc<Data>, step: &Step) -> Vec<Piece> {
    let row_byte_count = 4 * data.count;
    let rows = step.sample_rows(4).into_iter();
    rows.map(|row| Piece {
        case: select_step(data, &step.row_alone(row)),
        equal: vec![(
            "chosen",
            row * row_byte_count..(row + 1) * row_byte_count,
            0..row_byte_count,
        )],
    })
    .collect()
}

fn check_chosen(data: &Data, step: &Step, mode: Mode, chosen: &[i32]) -> Result<(), String> {
    let error_max = match mode {
        Mode::Reference => REFERENCE_SCORE_ERROR_MAX,
        Mode::Official | Mode::Fast => OFFICIAL_SCORE_ERROR_MAX,
    };
    let source_rows = step.source_rows();
    for (row, (sequence, position)) in step.rows().enumerate() {
        let keys = &data.keys[sequence.index][..(position + 1) / data.shape[3]];
        let (scores, size) = scores(data, source_rows[row], keys);
        let chosen = &chosen[row * data.count..][..data.count];
        let (candidates, chosen) = match &data.blocks {
            None => {
                let mut best: Vec<f64> = scores
                    .chunks(data.block_size)
                    .map(|scores| scores.iter().copied().fold(f64::NEG_INFINITY, f64::max))
                    .collect();
                if let Some(newest) = best.last_mut() {
                    *newest = f64::INFINITY;
                }
                (best, chosen.to_vec())
            }
            Some((blocks, count)) => {
                let blocks = &blocks[source_rows[row] * count..][..*count];
                let is_inside = |entry: &usize| blocks.contains(&((entry / data.block_size) as i32));
                let entries: Vec<usize> = (0..keys.len()).filter(is_inside).collect();
                let place = |entry: &i32| match entries.iter().position(|other| *other as i32 == *entry) {
                    Some(place) => place as i32,
                    None => *entry.min(&-1),
                };
                let chosen = chosen.iter().map(place).collect();
                (entries.into_iter().map(|entry| scores[entry]).collect(), chosen)
            }
        };
        let (taken, rest) = chosen.split_at(data.count.min(candidates.len()));
        if rest.iter().any(|index| *index != -1) {
            return Err(format!("row {row}: {rest:?} after all {} candidates", candidates.len()));
        }
        check_choice(taken, &candidates, 2.0 * error_max * size, |_, _| false)
            .map_err(|message| format!("row {row}: {message}"))?;
    }
    Ok(())
}

/// Scores of keys, and the size that their errors are relative to.
fn scores(data: &Data, row: usize, keys: &[Vec<u8>]) -> (Vec<f64>, f64) {
    let [heads, width, tail, _] = data.shape;
    let query = &data.query[row * heads * width..][..heads * width];
    let weights = &data.weights[row * heads..][..heads];
    let mut size = 0.0f64;
    let scores = keys.iter().map(|key| {
        let key = unpack(data.format, width, tail, key);
        let (mut score, mut terms) = (0.0, 0.0);
        for (query, weight) in query.chunks_exact(width).zip(weights) {
            let products = query.iter().zip(&key).map(|(q, k)| f64::from(*q) * f64::from(*k));
            let (dot, absolute) = products.fold((0.0, 0.0), |(dot, sum), term| (dot + term, sum + term.abs()));
            let weight = f64::from(*weight) * f64::from(data.scale());
            score += f64::max(dot, 0.0) * weight;
            terms += (f64::max(dot, 0.0) + absolute * 1e-3) * weight.abs();
        }
        size = size.max(terms);
        score
    });
    let scores = scores.collect();
    (scores, size)
}
