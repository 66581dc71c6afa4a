//! The lightning indexer (V4 architecture, section 5).

use cachalot_chip::{Error, IndexQuery, Mode, RowFormat, SelectEntries};
use cachalot_numerics::{bf16, quantise};

use super::{
    Context,
    packed::{EntryReader, rotate_index_row},
    route::largest,
    rows::RowMap,
};
use crate::{
    kernels::Chosen,
    vector::{Vectors, cross_dots, dot},
};

pub(super) fn query(context: &Context<'_>, operation: &IndexQuery<'_>) -> Result<(), Error> {
    let query = context.access.f32_mut("query", operation.query)?;
    if operation.format != RowFormat::Fp4Hadamard {
        return Ok(());
    }
    let width = operation.query.shape()[2];
    let official = context.mode == Mode::Official;
    context.pool.for_each_chunk(query, width, 16 * width, |_, head| {
        if official {
            rotate_index_row(head);
            quantise::round_fp4(head, RowFormat::FP4_GROUP);
        } else {
            cachalot_numerics::hadamard::transform(head);
        }
    });
    Ok(())
}

pub(super) fn select_entries(context: &Context<'_>, operation: &SelectEntries<'_>) -> Result<(), Error> {
    let map = RowMap::new(context, &operation.rows)?;
    let [head_count, width] = [operation.query.shape()[1], operation.query.shape()[2]];
    let query = context.access.f32("query", operation.query)?;
    let weights = context.access.f32("weights", operation.weights)?;
    let pool = context.access.bytes("pool", operation.keys.pool)?;
    let page_table = context.access.i32("page_table", operation.keys.page_table)?;
    let selected = context.access.i32_mut("selected", operation.selected)?;
    let count = operation.selected.shape()[1];
    check_pages(context, operation, &map, pool, page_table)?;
    let visible_max = map
        .positions
        .iter()
        .map(|position| (*position as usize + 1) / operation.keys.ratio)
        .max();
    let work_count = visible_max.unwrap_or(0) * head_count * width;
    context
        .pool
        .for_each_chunk(selected, count, work_count, |row, selected| {
            let visible = (map.positions[row] as usize + 1) / operation.keys.ratio;
            selected.fill(-1);
            if visible <= count {
                selected
                    .iter_mut()
                    .zip(0..visible as i32)
                    .for_each(|(selected, entry)| *selected = entry);
                return;
            }
            let keys = EntryReader::new(&operation.keys, pool, page_table, map.sequences[row] as usize);
            let query = &query[row * head_count * width..][..head_count * width];
            let weights = &weights[row * head_count..][..head_count];
            let weights: Vec<f32> = weights.iter().map(|weight| weight * operation.scale).collect();
            let scores = match context.mode {
                Mode::Official => official_scores(query, &weights, &keys, visible),
                Mode::Reference | Mode::Fast => scores(context.chosen(), query, &weights, &keys, visible),
            };
            let mut best = largest(&scores, count);
            best.sort_unstable();
            selected
                .iter_mut()
                .zip(best)
                .for_each(|(selected, entry)| *selected = entry as i32);
        });
    Ok(())
}

/// Every visible key must lie in the pool.
fn check_pages(
    context: &Context<'_>,
    operation: &SelectEntries<'_>,
    map: &RowMap<'_>,
    pool: &[u8],
    page_table: &[i32],
) -> Result<(), Error> {
    for sequence in 0..map.sequence_count() {
        let span = map.span(sequence);
        let visible = (span.first_position + span.row_count) / operation.keys.ratio;
        let reader = EntryReader::new(&operation.keys, pool, page_table, sequence);
        reader
            .check(visible)
            .map_err(|page| context.index_error("page_table", i64::from(page), operation.keys.pool.shape()[0]))?;
    }
    Ok(())
}

/// Keys that are unpacked at a time.
const BLOCK_KEY_COUNT: usize = 24;

/// The scores of all visible keys. Every key is summed over the heads in their order.
fn scores(kernels: Chosen, query: &[f32], weights: &[f32], keys: &EntryReader<'_>, visible: usize) -> Vec<f32> {
    let width = keys.packing.width;
    let mut block = vec![0.0; BLOCK_KEY_COUNT * width];
    let mut products = vec![0.0; weights.len() * BLOCK_KEY_COUNT];
    let mut scores = vec![0.0f32; visible];
    for (index, scores) in scores.chunks_mut(BLOCK_KEY_COUNT).enumerate() {
        let block = &mut block[..scores.len() * width];
        for (key, out) in block.chunks_exact_mut(width).enumerate() {
            keys.packing
                .unpack(kernels, keys.row(index * BLOCK_KEY_COUNT + key), out);
        }
        let (queries, block) = (Vectors::new(query, width), Vectors::new(block, width));
        cross_dots(kernels, queries, block, width, &mut products, BLOCK_KEY_COUNT);
        for (products, weight) in products.chunks_exact(BLOCK_KEY_COUNT).zip(weights) {
            for (score, product) in scores.iter_mut().zip(products) {
                *score += product.max(0.0) * weight;
            }
        }
    }
    scores
}

/// The scores with every step rounded to bf16. `weights` are scaled and not rounded yet.
fn official_scores(query: &[f32], weights: &[f32], keys: &EntryReader<'_>, visible: usize) -> Vec<f32> {
    let width = keys.packing.width;
    let mut key = vec![0.0; width];
    let weights: Vec<f32> = weights.iter().map(|weight| bf16::round(*weight)).collect();
    let score = |index: usize| {
        keys.packing.unpack(Chosen::PORTABLE, keys.row(index), &mut key);
        let mut score = 0.0;
        for (head, weight) in query.chunks_exact(width).zip(&weights) {
            score += bf16::round(bf16::round(dot(head, &key)).max(0.0) * weight);
        }
        bf16::round(score)
    };
    (0..visible).map(score).collect()
}
