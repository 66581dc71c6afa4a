//! Entries that one layer makes for many (V4.1).

use cachalot_chip::{Error, PoolWindows, RopeDirection, StoreEntries};

use super::{
    Context,
    packed::{EntryReader, Packing},
    rope::{rotate, write_angles},
    rows::RowMap,
};

pub(super) fn pool_windows(context: &Context<'_>, operation: &PoolWindows<'_>) -> Result<(), Error> {
    let map = RowMap::new(context, &operation.rows)?;
    let width = operation.kv.shape()[1];
    let kv = context.access.f32("kv", operation.kv)?;
    let gate = context.access.f32("gate", operation.gate)?;
    let kv_tail = context.access.f32("kv_tail", operation.kv_tail)?;
    let gate_tail = context.access.f32("gate_tail", operation.gate_tail)?;
    let out = context.access.f32_mut("out", operation.out)?;
    let [slot_count, ring_row_count] = [operation.kv_tail.shape()[0], operation.kv_tail.shape()[1]];
    let slots = map
        .slots
        .iter()
        .map(|slot| context.index("slots", i64::from(*slot), slot_count));
    let slots = slots.collect::<Result<Vec<_>, _>>()?;
    let work_count = 16 * operation.ratio * width;
    context.pool.for_each_chunk(out, width, work_count, |row, out| {
        let (position, sequence) = (map.positions[row] as usize, map.sequences[row] as usize);
        if !(position + 1).is_multiple_of(operation.ratio) {
            out.fill(0.0);
            return;
        }
        let span = map.span(sequence);
        let rows: Vec<(&[f32], &[f32])> = (position + 1 - operation.ratio..=position)
            .map(|position| match position.checked_sub(span.first_position) {
                Some(row) => (
                    &kv[(span.first_row + row) * width..],
                    &gate[(span.first_row + row) * width..],
                ),
                None => {
                    let place = slots[sequence] * ring_row_count + position % ring_row_count;
                    (&kv_tail[place * width..], &gate_tail[place * width..])
                }
            })
            .collect();
        for (channel, out) in out.iter_mut().enumerate() {
            let gates = rows.iter().map(|(_, gate)| gate[channel]);
            let max = gates.fold(f32::NEG_INFINITY, f32::max);
            let (mut sum, mut weighted) = (0.0, 0.0);
            for (kv, gate) in &rows {
                let weight = (gate[channel] - max).exp();
                sum += weight;
                weighted += weight * kv[channel];
            }
            *out = weighted / sum;
        }
        context.round(out);
    });
    Ok(())
}

pub(super) fn store_entries(context: &Context<'_>, operation: &StoreEntries<'_>) -> Result<(), Error> {
    let map = RowMap::new(context, &operation.rows)?;
    let entries = &operation.out;
    let (width, tail) = (entries.width, entries.tail);
    let x = context.access.f32("x", operation.x)?;
    let frequencies = context.access.f32("frequencies", operation.frequencies)?;
    let page_table = context.access.i32("page_table", entries.page_table)?;
    let pool = context.access.bytes_mut("pool", entries.pool)?;
    // Row, entry and place of every completed window.
    let mut windows: Vec<(usize, usize, usize)> = Vec::new();
    for sequence in 0..map.sequence_count() {
        let span = map.span(sequence);
        let end = (span.first_position + span.row_count) / entries.ratio;
        let reader = EntryReader::new(entries, pool, page_table, sequence);
        reader
            .check(end)
            .map_err(|page| context.index_error("page_table", i64::from(page), entries.pool.shape()[0]))?;
        windows.extend((span.first_position / entries.ratio..end).map(|entry| {
            let row = span.first_row + (entry + 1) * entries.ratio - 1 - span.first_position;
            (row, entry, reader.byte_offset(entry))
        }));
    }
    let packing = Packing::of(entries);
    let mut packed = vec![0u8; windows.len() * packing.row_byte_count()];
    context
        .pool
        .for_each_chunk(&mut packed, packing.row_byte_count(), 16 * width, |index, packed| {
            let (row, entry, _) = windows[index];
            let mut values = x[row * width..][..width].to_vec();
            let mut angles = vec![0.0; tail];
            write_angles((entry * entries.ratio) as i32, frequencies, &mut angles);
            let rotary = &mut values[width - tail..];
            rotate(rotary, &angles, RopeDirection::Forward);
            context.round(rotary);
            packing.pack(&values, packed);
        });
    for ((_, _, byte_offset), packed) in windows.iter().zip(packed.chunks_exact(packing.row_byte_count())) {
        pool[*byte_offset..][..packed.len()].copy_from_slice(packed);
    }
    Ok(())
}
