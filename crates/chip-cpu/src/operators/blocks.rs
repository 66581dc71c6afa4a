//! The two-level selection among shared entries (V4.1).

use std::ops::Range;

use cachalot_chip::{Error, SelectBlocks, SelectEntries, SelectInBlocks};

use super::{
    Context,
    index::{SCORE_COUNT_MAX, SCORES, Scorer},
    top::largest,
};
use crate::pool::Chunks;

pub(super) fn select_blocks(context: &Context<'_>, operation: &SelectBlocks<'_>) -> Result<(), Error> {
    let scorer = Scorer::new(
        context,
        &SelectEntries {
            rows: operation.rows,
            query: operation.query,
            weights: operation.weights,
            scale: operation.scale,
            keys: operation.keys,
            selected: operation.blocks,
        },
    )?;
    let blocks = context.access.i32_mut("blocks", operation.blocks)?;
    let (count, size) = (operation.blocks.shape()[1], operation.block_size);
    let mut scored_rows = Vec::new();
    for (row, blocks) in blocks.chunks_exact_mut(count).enumerate() {
        let visible = scorer.visible(row).div_ceil(size);
        if visible > count {
            scored_rows.push(row);
        } else {
            write_all(blocks, 0..visible);
        }
    }
    let visible_max = scored_rows.iter().map(|row| scorer.visible(*row)).max().unwrap_or(0);
    let blocks = Chunks::new(blocks, count);
    SCORES.with_borrow_mut(|scores| {
        for rows in scored_rows.chunks((SCORE_COUNT_MAX / visible_max.max(1)).max(1)) {
            scores.resize(rows.len() * visible_max, 0.0);
            scorer.score(context, rows, visible_max, operation.keys.width, scores);
            context.pool.run(rows.len(), 4 * visible_max, &|index| {
                let scores = &scores[index * visible_max..][..scorer.visible(rows[index])];
                let mut best: Vec<f32> = scores.chunks(size).map(max).collect();
                if let Some(newest) = best.last_mut() {
                    *newest = f32::INFINITY;
                }
                // SAFETY: every row is chosen once.
                largest(&best, unsafe { blocks.get(rows[index]) });
            });
        }
    });
    Ok(())
}

pub(super) fn select_in_blocks(context: &Context<'_>, operation: &SelectInBlocks<'_>) -> Result<(), Error> {
    let scorer = Scorer::new(
        context,
        &SelectEntries {
            rows: operation.rows,
            query: operation.query,
            weights: operation.weights,
            scale: operation.scale,
            keys: operation.keys,
            selected: operation.selected,
        },
    )?;
    let blocks = context.access.i32("blocks", operation.blocks)?;
    let (block_count, size) = (operation.blocks.shape()[1], operation.block_size);
    let mut runs = Vec::with_capacity(operation.rows.row_count());
    for (row, blocks) in blocks.chunks_exact(block_count.max(1)).enumerate() {
        runs.push(runs_of(context, blocks, size, scorer.visible(row))?);
    }
    runs.resize(operation.rows.row_count(), Vec::new());
    let selected = context.access.i32_mut("selected", operation.selected)?;
    let count = operation.selected.shape()[1];
    let work_count = block_count * size * operation.query.shape()[1] * operation.keys.width;
    context
        .pool
        .for_each_chunk(selected, count, work_count, |row, selected| {
            let runs = &runs[row];
            let candidate_count: usize = runs.iter().map(Range::len).sum();
            if candidate_count <= count {
                return write_all(selected, runs.iter().cloned().flatten());
            }
            let mut scores = vec![0.0; candidate_count];
            let mut rest = &mut scores[..];
            for run in runs {
                let (scores, after) = rest.split_at_mut(run.len());
                scorer.score_keys(context, row, run.start, &mut [scores]);
                rest = after;
            }
            largest(&scores, selected);
            // From places among the candidates to entries; both ascend.
            let mut entries = runs.iter().cloned().flatten().enumerate();
            for chosen in selected {
                let entry = entries.find(|(place, _)| *place == *chosen as usize);
                *chosen = entry.expect("places of candidates").1 as i32;
            }
        });
    Ok(())
}

/// Visible entries of ascending blocks, neighbours together.
fn runs_of(context: &Context<'_>, blocks: &[i32], size: usize, visible: usize) -> Result<Vec<Range<usize>>, Error> {
    let block_limit = visible.div_ceil(size);
    let mut runs: Vec<Range<usize>> = Vec::new();
    for block in blocks.iter().take_while(|block| **block != -1) {
        let block = context.index("blocks", i64::from(*block), block_limit)?;
        let (start, end) = (block * size, visible.min((block + 1) * size));
        match runs.last_mut() {
            Some(run) if run.end == start => run.end = end,
            Some(run) if run.end > start => return Err(context.index_error("blocks", block as i64, block_limit)),
            _ => runs.push(start..end),
        }
    }
    Ok(runs)
}

/// The entries in order, then -1.
fn write_all(out: &mut [i32], entries: impl Iterator<Item = usize>) {
    out.fill(-1);
    out.iter_mut().zip(entries).for_each(|(out, entry)| *out = entry as i32);
}

fn max(scores: &[f32]) -> f32 {
    scores.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}
