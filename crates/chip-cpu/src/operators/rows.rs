//! Operators that move or add rows.

use cachalot_chip::{Add, CopyTensor, Embed, Error, GatherRows, Rows, WriteTail};

use super::{Context, experts::ELEMENT_BLOCK};
use crate::{memory::CpuMatrix, vector};

pub(super) fn embed(context: &Context<'_>, operation: &Embed<'_>) -> Result<(), Error> {
    let table = CpuMatrix::of_table(operation.table)?;
    let tokens = context.access.i32("tokens", operation.tokens)?;
    let streams = context.access.f32_mut("streams", operation.streams)?;
    let [stream_count, width] = [operation.streams.shape()[1], operation.streams.shape()[2]];
    let rows = tokens
        .iter()
        .map(|token| context.index("tokens", i64::from(*token), table.rows))
        .collect::<Result<Vec<_>, _>>()?;
    rows.iter().try_for_each(|row| table.check_row(*row))?;
    let row_width = stream_count * width;
    context
        .pool
        .for_each_chunk(streams, row_width, row_width, |index, streams| {
            let (first, rest) = streams.split_at_mut(width);
            table.decode_row(rows[index], first);
            rest.chunks_exact_mut(width)
                .for_each(|stream| stream.copy_from_slice(first));
        });
    Ok(())
}

/// Host-readable form of [`Rows`], checked against itself.
pub(super) struct RowMap<'a> {
    pub positions: &'a [i32],
    pub sequences: &'a [i32],
    pub first_rows: &'a [i32],
    pub slots: &'a [i32],
}

impl<'a> RowMap<'a> {
    pub fn new(context: &Context<'a>, rows: &Rows<'_>) -> Result<Self, Error> {
        let map = RowMap {
            positions: context.access.i32("positions", rows.positions)?,
            sequences: context.access.i32("sequences", rows.sequences)?,
            first_rows: context.access.i32("first_rows", rows.first_rows)?,
            slots: context.access.i32("slots", rows.slots)?,
        };
        map.check(context)?;
        Ok(map)
    }

    /// Everything below relies on rows of a sequence being adjacent and ascending.
    fn check(&self, context: &Context<'_>) -> Result<(), Error> {
        let row_count = self.positions.len();
        let mut row = 0;
        for (sequence, border) in self.first_rows.windows(2).enumerate() {
            let (first, end) = (i64::from(border[0]), i64::from(border[1]));
            if first != row as i64 || end < first || end > row_count as i64 {
                return Err(context.index_error("first_rows", end, row_count + 1));
            }
            let first_position = self.positions.get(row).copied().unwrap_or(0);
            if first_position < 0 {
                return Err(context.index_error("positions", i64::from(first_position), i32::MAX as usize));
            }
            while row < end as usize {
                let expected = first_position + (row as i64 - first) as i32;
                if self.positions[row] != expected {
                    return Err(context.index_error("positions", i64::from(self.positions[row]), i32::MAX as usize));
                }
                if self.sequences[row] != sequence as i32 {
                    return Err(context.index_error("sequences", i64::from(self.sequences[row]), self.slots.len()));
                }
                row += 1;
            }
        }
        if row != row_count {
            return Err(context.index_error("first_rows", row as i64, row_count + 1));
        }
        Ok(())
    }

    pub fn sequence_count(&self) -> usize {
        self.slots.len()
    }

    pub fn row_count(&self) -> usize {
        self.positions.len()
    }

    /// First row, row count and first position of a sequence.
    pub fn span(&self, sequence: usize) -> Span {
        let first_row = self.first_rows[sequence] as usize;
        let row_count = self.first_rows[sequence + 1] as usize - first_row;
        let first_position = if row_count > 0 {
            self.positions[first_row] as usize
        } else {
            0
        };
        Span {
            first_row,
            row_count,
            first_position,
        }
    }
}

/// The rows of one sequence in a step.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub first_row: usize,
    pub row_count: usize,
    pub first_position: usize,
}

pub(super) fn write_tail(context: &Context<'_>, operation: &WriteTail<'_>) -> Result<(), Error> {
    let map = RowMap::new(context, &operation.rows)?;
    let rows = context.access.bytes("x", operation.x)?;
    let ring = context.access.bytes_mut("ring", operation.ring)?;
    let [slot_count, ring_row_count] = [operation.ring.shape()[0], operation.ring.shape()[1]];
    let row_byte_count = operation.x.shape()[1] * operation.x.dtype().byte_count();
    for sequence in 0..map.sequence_count() {
        let slot = context.index("slots", i64::from(map.slots[sequence]), slot_count)?;
        let Span {
            first_row,
            row_count,
            first_position,
        } = map.span(sequence);
        for row in row_count.saturating_sub(ring_row_count)..row_count {
            let source = &rows[(first_row + row) * row_byte_count..][..row_byte_count];
            let place = slot * ring_row_count + (first_position + row) % ring_row_count;
            ring[place * row_byte_count..][..row_byte_count].copy_from_slice(source);
        }
    }
    Ok(())
}

pub(super) fn add(context: &Context<'_>, operation: &Add<'_>) -> Result<(), Error> {
    let b = context.access.f32("b", operation.b)?;
    let out = context.access.f32_mut("out", operation.out)?;
    if !operation.a.overlaps(operation.out) {
        out.copy_from_slice(context.access.f32("a", operation.a)?);
    }
    context
        .pool
        .for_each_chunk(out, ELEMENT_BLOCK, ELEMENT_BLOCK, |block, out| {
            vector::add(out, &b[block * ELEMENT_BLOCK..]);
            context.round(out);
        });
    Ok(())
}

pub(super) fn gather(context: &Context<'_>, operation: &GatherRows<'_>) -> Result<(), Error> {
    let x = context.access.bytes("x", operation.x)?;
    let rows = context.access.i32("rows", operation.rows)?;
    let out = context.access.bytes_mut("out", operation.out)?;
    let row_count = operation.x.shape()[0];
    let row_byte_count = x.len() / row_count.max(1);
    for (row, out) in rows.iter().zip(out.chunks_exact_mut(row_byte_count.max(1))) {
        let row = context.index("rows", i64::from(*row), row_count)?;
        out.copy_from_slice(&x[row * row_byte_count..][..row_byte_count]);
    }
    Ok(())
}

pub(super) fn copy(context: &Context<'_>, operation: &CopyTensor<'_>) -> Result<(), Error> {
    let x = context.access.bytes("x", operation.x)?;
    context.access.bytes_mut("out", operation.out)?.copy_from_slice(x);
    Ok(())
}
