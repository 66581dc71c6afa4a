//! The compressor (V4 architecture, section 4).

use cachalot_chip::{Compress, Error, RopeDirection};

use super::{
    Context,
    norm::normalise,
    packed::{EntryReader, Packing},
    rope::{rotate, write_angles},
    rows::{RowMap, Span},
};

/// A window that this step completes.
struct Window {
    sequence: usize,
    index: usize,
    /// Where its entry goes in the pool.
    byte_offset: usize,
}

pub(super) fn compress(context: &Context<'_>, operation: &Compress<'_>) -> Result<(), Error> {
    let map = RowMap::new(context, &operation.rows)?;
    let entries = &operation.out;
    let source = Source::new(context, operation, &map)?;
    let norm = context.access.floats("norm", operation.norm)?;
    let frequencies = context.access.f32("frequencies", operation.frequencies)?;
    let page_table = context.access.i32("page_table", entries.page_table)?;
    let pool = context.access.bytes_mut("pool", entries.pool)?;
    let windows = completed_windows(context, operation, &map, pool, page_table)?;
    let packing = Packing::of(entries);
    let mut packed = vec![0u8; windows.len() * packing.row_byte_count()];
    let work_count = 16 * entries.ratio * entries.width;
    context
        .pool
        .for_each_chunk(&mut packed, packing.row_byte_count(), work_count, |index, packed| {
            let window = &windows[index];
            let mut entry = source.pool(window.sequence, window.index);
            context.round(&mut entry);
            normalise(&mut entry, &norm, operation.norm_epsilon);
            context.round(&mut entry);
            let mut angles = vec![0.0; entries.tail];
            write_angles((window.index * entries.ratio) as i32, frequencies, &mut angles);
            let tail = &mut entry[entries.width - entries.tail..];
            rotate(tail, &angles, RopeDirection::Forward);
            context.round(tail);
            packing.pack(&entry, packed);
        });
    for (window, packed) in windows.iter().zip(packed.chunks_exact(packing.row_byte_count())) {
        pool[window.byte_offset..][..packed.len()].copy_from_slice(packed);
    }
    Ok(())
}

fn completed_windows(
    context: &Context<'_>,
    operation: &Compress<'_>,
    map: &RowMap<'_>,
    pool: &[u8],
    page_table: &[i32],
) -> Result<Vec<Window>, Error> {
    let entries = &operation.out;
    let mut windows = Vec::new();
    for sequence in 0..map.sequence_count() {
        let Span {
            row_count,
            first_position,
            ..
        } = map.span(sequence);
        let (first, end) = (
            first_position / entries.ratio,
            (first_position + row_count) / entries.ratio,
        );
        let reader = EntryReader::new(entries, pool, page_table, sequence);
        reader
            .check(end)
            .map_err(|page| context.index_error("page_table", i64::from(page), entries.pool.shape()[0]))?;
        windows.extend((first..end).map(|index| Window {
            sequence,
            index,
            byte_offset: reader.byte_offset(index),
        }));
    }
    Ok(windows)
}

/// The (kv, gate) rows of this step and, before it, of the tails.
struct Source<'a> {
    kv: &'a [f32],
    gate: &'a [f32],
    kv_tail: &'a [f32],
    gate_tail: &'a [f32],
    ape: &'a [f32],
    ring_row_count: usize,
    spans: Vec<Span>,
    slots: Vec<usize>,
    ratio: usize,
    width: usize,
    overlap: bool,
}

impl<'a> Source<'a> {
    fn new(context: &Context<'a>, operation: &Compress<'_>, map: &RowMap<'_>) -> Result<Self, Error> {
        let slot_count = operation.kv_tail.shape()[0];
        let slots = map
            .slots
            .iter()
            .map(|slot| context.index("slots", i64::from(*slot), slot_count));
        Ok(Source {
            kv: context.access.f32("kv", operation.kv)?,
            gate: context.access.f32("gate", operation.gate)?,
            kv_tail: context.access.f32("kv_tail", operation.kv_tail)?,
            gate_tail: context.access.f32("gate_tail", operation.gate_tail)?,
            ape: context.access.f32("ape", operation.ape)?,
            ring_row_count: operation.kv_tail.shape()[1],
            spans: (0..map.sequence_count()).map(|sequence| map.span(sequence)).collect(),
            slots: slots.collect::<Result<_, _>>()?,
            ratio: operation.out.ratio,
            width: operation.out.width,
            overlap: operation.overlap,
        })
    }

    /// `v[ch] = sum_u softmax_u(gate_u[ch]) * kv_u[ch]` over the rows of window `index`.
    fn pool(&self, sequence: usize, index: usize) -> Vec<f32> {
        let start = index * self.ratio;
        let mut rows = Vec::with_capacity(2 * self.ratio);
        if self.overlap {
            // The first half of a row serves the next window, the second half its own.
            if index > 0 {
                rows.extend((start - self.ratio..start).map(|position| self.row(sequence, position, 0)));
            }
            rows.extend((start..start + self.ratio).map(|position| self.row(sequence, position, self.width)));
        } else {
            rows.extend((start..start + self.ratio).map(|position| self.row(sequence, position, 0)));
        }
        let mut max = vec![f32::NEG_INFINITY; self.width];
        for row in &rows {
            for ((max, gate), ape) in max.iter_mut().zip(row.gate).zip(row.ape) {
                *max = max.max(gate + ape);
            }
        }
        let (mut sum, mut pooled) = (vec![0.0f32; self.width], vec![0.0f32; self.width]);
        for row in &rows {
            for channel in 0..self.width {
                let weight = (row.gate[channel] + row.ape[channel] - max[channel]).exp();
                sum[channel] += weight;
                pooled[channel] += weight * row.kv[channel];
            }
        }
        pooled.iter_mut().zip(&sum).for_each(|(pooled, sum)| *pooled /= sum);
        pooled
    }

    /// The `width` channels from `first` of the row at `position`.
    fn row(&self, sequence: usize, position: usize, first: usize) -> Row<'_> {
        let row_width = if self.overlap { 2 * self.width } else { self.width };
        let span = &self.spans[sequence];
        let (kv, gate, row) = if position >= span.first_position {
            (self.kv, self.gate, span.first_row + position - span.first_position)
        } else {
            let place = self.slots[sequence] * self.ring_row_count + position % self.ring_row_count;
            (self.kv_tail, self.gate_tail, place)
        };
        let channels = row * row_width + first..row * row_width + first + self.width;
        let ape_start = position % self.ratio * row_width + first;
        Row {
            kv: &kv[channels.clone()],
            gate: &gate[channels],
            ape: &self.ape[ape_start..][..self.width],
        }
    }
}

struct Row<'a> {
    kv: &'a [f32],
    gate: &'a [f32],
    ape: &'a [f32],
}
