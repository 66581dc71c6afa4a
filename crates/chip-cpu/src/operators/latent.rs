//! Latent attention (V3): keys into their pool, queries into the space of the latents, attention.

use cachalot_chip::{Error, KeyForm, LatentAttention, LatentQuery, RopeDirection, StoreKeys};

use super::{
    Context,
    attention::{Heads, Keys, SCRATCH, attend_heads},
    norm::{layer_normalise, normalise},
    packed::{EntryReader, Packing},
    rope::{rotate, rotate_halves},
    rows::RowMap,
};
use crate::{
    memory::CpuMatrix,
    pool::Chunks,
    product::{self, Out, Product},
};

/// The logit of the sink that attention to latents does not have: its weight is zero beside any score.
const NO_SINK: f32 = -1e30;

pub(super) fn store_keys(context: &Context<'_>, operation: &StoreKeys<'_>) -> Result<(), Error> {
    let map = RowMap::new(context, &operation.rows)?;
    let entries = &operation.out;
    let x = context.access.f32("x", operation.x)?;
    let angles = context.access.f32("angles", operation.angles)?;
    let angle_count = 2 * operation.angles.shape()[1];
    let floats = |name, tensor| context.access.floats(name, tensor);
    let (norm, bias) = match operation.form {
        KeyForm::Latent { norm } => (floats("norm", norm)?, None),
        KeyForm::Index { norm, bias } => (floats("norm", norm)?, Some(floats("bias", bias)?)),
    };
    let page_table = context.access.i32("page_table", entries.page_table)?;
    let pool = context.access.bytes_mut("pool", entries.pool)?;
    let mut byte_offsets = Vec::with_capacity(map.row_count());
    for sequence in 0..map.sequence_count() {
        let span = map.span(sequence);
        let (first, end) = (span.first_position, span.first_position + span.row_count);
        let reader = EntryReader::new(entries, pool, page_table, sequence);
        reader
            .check(end)
            .map_err(|page| context.index_error("page_table", i64::from(page), entries.pool.shape()[0]))?;
        byte_offsets.extend((first..end).map(|position| reader.byte_offset(position)));
    }
    let packing = Packing::of(entries);
    let mut packed = vec![0u8; byte_offsets.len() * packing.row_byte_count()];
    context.pool.for_each_chunk(
        &mut packed,
        packing.row_byte_count(),
        16 * entries.width,
        |row, packed| {
            let mut key = x[row * entries.width..][..entries.width].to_vec();
            let angles = &angles[row * angle_count..][..angle_count];
            let rotary = match &bias {
                None => {
                    let (latent, tail) = key.split_at_mut(entries.width - entries.tail);
                    normalise(latent, &norm, operation.epsilon);
                    context.round(latent);
                    rotate(tail, angles, RopeDirection::Forward);
                    tail
                }
                Some(bias) => {
                    layer_normalise(&mut key, &norm, bias, operation.epsilon);
                    context.round(&mut key);
                    rotate_halves(&mut key[..angle_count], angles);
                    &mut key[..angle_count]
                }
            };
            context.round(rotary);
            packing.pack(&key, packed);
        },
    );
    for (byte_offset, packed) in byte_offsets
        .into_iter()
        .zip(packed.chunks_exact(packing.row_byte_count()))
    {
        pool[byte_offset..][..packed.len()].copy_from_slice(packed);
    }
    Ok(())
}

pub(super) fn query(context: &Context<'_>, operation: &LatentQuery<'_>) -> Result<(), Error> {
    let matrix = CpuMatrix::of(operation.absorb)?;
    let [row_count, head_count, width] = [0, 1, 2].map(|side| operation.query.shape()[side]);
    let query = context.access.f32("query", operation.query)?;
    let angles = context.access.f32("angles", operation.angles)?;
    let out = context.access.f32_mut("out", operation.out)?;
    let angle_count = 2 * operation.angles.shape()[1];
    let latent = matrix.rows / head_count;
    let out_width = latent + angle_count;
    if row_count > 0 {
        let all = Out::new(out, head_count * out_width);
        let products: Vec<_> = (0..head_count)
            .map(|head| Product {
                matrix,
                first_row: head * latent,
                row_count: latent,
                x: &query[head * width..],
                x_stride: head_count * width,
                x_count: row_count,
                term_count: 2,
                out: all.shifted(head * out_width),
            })
            .collect();
        product::run(context.pool, context.chosen(), &products);
    }
    context
        .pool
        .for_each_chunk(out, head_count * out_width, 4 * head_count * out_width, |row, out| {
            let angles = &angles[row * angle_count..][..angle_count];
            let queries = query[row * head_count * width..].chunks_exact(width);
            for (out, query) in out.chunks_exact_mut(out_width).zip(queries) {
                let tail = &mut out[latent..];
                tail.copy_from_slice(&query[width - angle_count..]);
                rotate(tail, angles, RopeDirection::Forward);
                context.round(out);
            }
        });
    Ok(())
}

pub(super) fn attention(context: &Context<'_>, operation: &LatentAttention<'_>) -> Result<(), Error> {
    let keys = Keys::of_entries(context, &operation.rows, &operation.keys)?;
    let [row_count, head_count, width] = [0, 1, 2].map(|side| operation.query.shape()[side]);
    let latent = width - operation.keys.entries.tail;
    let query = context.access.f32("query", operation.query)?;
    let out = context.access.f32_mut("out", operation.out)?;
    // As for V4: few rows share the threads by heads, at the price of unpacking a row's keys more than once.
    let blocks = match row_count < context.pool.thread_count() {
        true => context.pool.thread_count(),
        false => 1,
    };
    let block_heads = head_count.div_ceil(blocks).max(1);
    let block_count = head_count.div_ceil(block_heads);
    let sinks = vec![NO_SINK; block_heads];
    let out_heads = Chunks::new(out, latent);
    let work_count = 2 * block_heads * width * keys.count_max();
    context.pool.run(row_count * block_count, work_count, &|task| {
        let (row, first_head) = (task / block_count, task % block_count * block_heads);
        let count = block_heads.min(head_count - first_head);
        let first = row * head_count + first_head;
        let heads = Heads {
            queries: &query[first * width..][..count * width],
            sinks: &sinks[..count],
            width,
            scale: operation.scale,
        };
        // Values are keys without their tails; the kernels sum whole keys.
        let mut sums = vec![0.0; count * width];
        SCRATCH.with_borrow_mut(|scratch| attend_heads(context, &heads, &keys.of_row(row), scratch, &mut sums));
        // SAFETY: every (row, head) belongs to one task.
        let out = unsafe { out_heads.range(first, count) };
        for (out, sums) in out.chunks_exact_mut(latent.max(1)).zip(sums.chunks_exact(width)) {
            out.copy_from_slice(&sums[..latent]);
        }
        context.round(out);
    });
    Ok(())
}
