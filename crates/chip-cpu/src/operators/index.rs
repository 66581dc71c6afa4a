//! The lightning indexer (V4 architecture, section 5).

use std::{cell::RefCell, ops::Range};

use cachalot_chip::{Error, IndexQuery, Mode, RowFormat, SelectEntries};
use cachalot_numerics::{bf16, quantise};

use super::{
    Context,
    packed::{EntryReader, rotate_index_row},
    rows::RowMap,
    top::largest,
};
#[cfg(target_arch = "x86_64")]
use crate::amx::{IndexQueries, IndexScratch};
use crate::{
    kernels::Chosen,
    pool::Chunks,
    vector::{Vectors, cross_dots, dot},
};

pub(super) fn query(context: &Context<'_>, operation: &IndexQuery<'_>) -> Result<(), Error> {
    let query = context.access.f32_mut("query", operation.query)?;
    let official = context.mode == Mode::Official;
    let is_rotated = match operation.format {
        RowFormat::Fp4Hadamard => true,
        RowFormat::Fp4 if official => false,
        _ => return Ok(()),
    };
    let width = operation.query.shape()[2];
    context.pool.for_each_chunk(query, width, 16 * width, |_, head| {
        if is_rotated && official {
            rotate_index_row(head);
        } else if is_rotated {
            cachalot_numerics::hadamard::transform(head);
        }
        if official {
            quantise::round_fp4(head, RowFormat::FP4_GROUP);
        }
    });
    Ok(())
}

/// Rows of a sequence that share the decoding of its keys.
const GROUP_ROW_COUNT: usize = 4;
/// Keys of a task.
const TASK_KEY_COUNT: usize = 1024;
/// Scores that are held at a time: 16 MB.
pub(super) const SCORE_COUNT_MAX: usize = 4 << 20;

thread_local! {
    /// Of the thread that runs the operator: the scores of all keys for some rows, kept between steps.
    pub(super) static SCORES: RefCell<Vec<f32>> = RefCell::default();
    #[cfg(target_arch = "x86_64")]
    static TILES: RefCell<IndexScratch> = RefCell::default();
}

pub(super) fn select_entries(context: &Context<'_>, operation: &SelectEntries<'_>) -> Result<(), Error> {
    let width = operation.query.shape()[2];
    let scorer = Scorer::new(context, operation)?;
    let selected = context.access.i32_mut("selected", operation.selected)?;
    let count = operation.selected.shape()[1];
    let mut scored_rows = Vec::new();
    for (row, selected) in selected.chunks_exact_mut(count).enumerate() {
        let visible = scorer.visible(row);
        if visible > count {
            scored_rows.push(row);
            continue;
        }
        selected.fill(-1);
        let all = selected.iter_mut().zip(0..visible as i32);
        all.for_each(|(selected, entry)| *selected = entry);
    }
    let visible_max = scored_rows.iter().map(|row| scorer.visible(*row)).max().unwrap_or(0);
    let selected = Chunks::new(selected, count);
    SCORES.with_borrow_mut(|scores| {
        for rows in scored_rows.chunks((SCORE_COUNT_MAX / visible_max.max(1)).max(1)) {
            scores.resize(rows.len() * visible_max, 0.0);
            scorer.score(context, rows, visible_max, width, scores);
            context.pool.run(rows.len(), 4 * visible_max, &|index| {
                let row = rows[index];
                // SAFETY: every row is chosen once.
                let selected = unsafe { selected.get(row) };
                largest(&scores[index * visible_max..][..scorer.visible(row)], selected);
            });
        }
    });
    Ok(())
}

/// Rows and keys of one task: rows `first .. first + row_count` of a batch, and keys.
struct Task {
    first: usize,
    row_count: usize,
    keys: Range<usize>,
}

/// The arguments of [`SelectEntries`] on the host.
pub(super) struct Scorer<'a> {
    map: RowMap<'a>,
    query: &'a [f32],
    weights: &'a [f32],
    scale: f32,
    head_count: usize,
    /// Of each sequence.
    keys: Vec<EntryReader<'a>>,
    ratio: usize,
}

impl<'a> Scorer<'a> {
    pub fn new(context: &Context<'a>, operation: &SelectEntries<'_>) -> Result<Self, Error> {
        let map = RowMap::new(context, &operation.rows)?;
        Ok(Scorer {
            query: context.access.f32("query", operation.query)?,
            weights: context.access.f32("weights", operation.weights)?,
            scale: operation.scale,
            head_count: operation.query.shape()[1],
            keys: key_readers(context, operation, &map)?,
            map,
            ratio: operation.keys.ratio,
        })
    }

    /// Keys that a row sees.
    pub fn visible(&self, row: usize) -> usize {
        (self.map.positions[row] as usize + 1) / self.ratio
    }

    /// Scores of all keys that each of `rows` sees, in rows of `stride`.
    pub fn score(&self, context: &Context<'_>, rows: &[usize], stride: usize, width: usize, scores: &mut [f32]) {
        let tasks = self.tasks(rows);
        let work_count = GROUP_ROW_COUNT.min(rows.len()) * TASK_KEY_COUNT * self.head_count * width;
        let scores = Chunks::new(scores, stride);
        context.pool.run(tasks.len(), work_count, &|index| {
            let task = &tasks[index];
            let mut parts: [&mut [f32]; GROUP_ROW_COUNT] = Default::default();
            for (place, part) in parts.iter_mut().enumerate().take(task.row_count) {
                // SAFETY: every (row, key) belongs to one task.
                *part = unsafe { scores.part(task.first + place, task.keys.start, task.keys.len()) };
            }
            self.score_keys(context, rows[task.first], task.keys.start, &mut parts[..task.row_count]);
        });
    }

    /// Rows are grouped with their neighbours of the same sequence, keys cut.
    fn tasks(&self, rows: &[usize]) -> Vec<Task> {
        let mut tasks = Vec::new();
        let mut first = 0;
        while first < rows.len() {
            let (row, sequence) = (rows[first], self.map.sequences[rows[first]]);
            let group = rows[first..].iter().take(GROUP_ROW_COUNT).enumerate();
            let row_count = group
                .take_while(|(place, other)| **other == row + place && self.map.sequences[**other] == sequence)
                .count();
            let visible = self.visible(row + row_count - 1);
            tasks.extend((0..visible).step_by(TASK_KEY_COUNT).map(|start| Task {
                first,
                row_count,
                keys: start..visible.min(start + TASK_KEY_COUNT),
            }));
            first += row_count;
        }
        tasks
    }

    /// Scores of keys `first ..` for `scores.len()` rows of one sequence.
    pub fn score_keys(&self, context: &Context<'_>, first_row: usize, first: usize, scores: &mut [&mut [f32]]) {
        let keys = &self.keys[self.map.sequences[first_row] as usize];
        let width = keys.packing.width;
        let query = &self.query[first_row * self.head_count * width..];
        let weights = &self.weights[first_row * self.head_count..];
        #[cfg(target_arch = "x86_64")]
        if let Some(amx) = context.chosen().amx()
            && amx.can_score(&keys.packing)
        {
            let queries = IndexQueries {
                queries: query,
                weights,
                scale: self.scale,
                head_count: self.head_count,
            };
            return TILES.with_borrow_mut(|scratch| amx.score(&queries, keys, first, scores, scratch));
        }
        let rows = query
            .chunks_exact(self.head_count * width)
            .zip(weights.chunks_exact(self.head_count));
        for ((query, weights), scores) in rows.zip(scores) {
            let weights: Vec<f32> = weights.iter().map(|weight| weight * self.scale).collect();
            match context.mode {
                Mode::Official => official_scores(query, &weights, keys, first, scores),
                Mode::Reference | Mode::Fast => plain_scores(context.chosen(), query, &weights, keys, first, scores),
            }
        }
    }
}

/// The keys of every sequence; every visible one must lie in the pool.
fn key_readers<'a>(
    context: &Context<'a>,
    operation: &SelectEntries<'_>,
    map: &RowMap<'_>,
) -> Result<Vec<EntryReader<'a>>, Error> {
    let pool = context.access.bytes("pool", operation.keys.pool)?;
    let page_table = context.access.i32("page_table", operation.keys.page_table)?;
    let reader = |sequence: usize| {
        let span = map.span(sequence);
        let visible = (span.first_position + span.row_count) / operation.keys.ratio;
        let reader = EntryReader::new(&operation.keys, pool, page_table, sequence);
        reader
            .check(visible)
            .map_err(|page| context.index_error("page_table", i64::from(page), operation.keys.pool.shape()[0]))?;
        Ok(reader)
    };
    (0..map.sequence_count()).map(reader).collect()
}

/// Keys that are unpacked at a time.
const BLOCK_KEY_COUNT: usize = 24;

/// Scores of keys `first ..`. Every key is summed over the heads in their order.
fn plain_scores(
    kernels: Chosen,
    query: &[f32],
    weights: &[f32],
    keys: &EntryReader<'_>,
    first: usize,
    scores: &mut [f32],
) {
    let width = keys.packing.width;
    let mut block = vec![0.0; BLOCK_KEY_COUNT * width];
    let mut products = vec![0.0; weights.len() * BLOCK_KEY_COUNT];
    scores.fill(0.0);
    for (index, scores) in scores.chunks_mut(BLOCK_KEY_COUNT).enumerate() {
        let block = &mut block[..scores.len() * width];
        for (key, out) in block.chunks_exact_mut(width).enumerate() {
            let row = keys.row(first + index * BLOCK_KEY_COUNT + key);
            keys.packing.unpack(kernels, row, out);
        }
        let (queries, block) = (Vectors::new(query, width), Vectors::new(block, width));
        cross_dots(kernels, queries, block, width, &mut products, BLOCK_KEY_COUNT);
        for (products, weight) in products.chunks_exact(BLOCK_KEY_COUNT).zip(weights) {
            for (score, product) in scores.iter_mut().zip(products) {
                *score += product.max(0.0) * weight;
            }
        }
    }
}

/// Scores of keys `first ..` with every step rounded to bf16. `weights` are scaled and not rounded yet.
fn official_scores(query: &[f32], weights: &[f32], keys: &EntryReader<'_>, first: usize, scores: &mut [f32]) {
    let width = keys.packing.width;
    let mut key = vec![0.0; width];
    let weights: Vec<f32> = weights.iter().map(|weight| bf16::round(*weight)).collect();
    for (index, out) in scores.iter_mut().enumerate() {
        keys.packing.unpack(Chosen::PORTABLE, keys.row(first + index), &mut key);
        let mut score = 0.0;
        for (head, weight) in query.chunks_exact(width).zip(&weights) {
            score += bf16::round(bf16::round(dot(head, &key)).max(0.0) * weight);
        }
        *out = bf16::round(score);
    }
}
