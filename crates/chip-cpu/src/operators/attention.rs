//! Sparse attention with sink (V4 architecture, section 3.3).

use std::{cell::RefCell, ops::Range};

use cachalot_chip::{AttendEntries, Attention, Error, Mode, RowFormat, Rows};
use cachalot_numerics::bf16;

use super::{
    Context,
    packed::{EntryReader, Packing},
    rows::RowMap,
};
#[cfg(target_arch = "x86_64")]
use crate::amx::AttendScratch;
use crate::{
    kernels::Chosen,
    pool::Chunks,
    vector::{add_scaled, dot},
};

pub(super) fn attention(context: &Context<'_>, operation: &Attention<'_>) -> Result<(), Error> {
    let keys = Keys::new(context, operation)?;
    let [head_count, width] = [operation.query.shape()[1], operation.query.shape()[2]];
    let row_count = keys.map.row_count();
    let query = context.access.f32("query", operation.query)?;
    let sink = context.access.f32("sink", operation.sink)?;
    let out = context.access.f32_mut("out", operation.out)?;
    // Few rows: heads are split as well, at the price of unpacking a row's keys more than once.
    let blocks = if row_count < context.pool.thread_count() {
        context.pool.thread_count()
    } else {
        1
    };
    let block_heads = head_count.div_ceil(blocks);
    let block_count = head_count.div_ceil(block_heads);
    let out_heads = Chunks::new(out, width);
    let work_count = 2 * block_heads * width * keys.count_max();
    context.pool.run(row_count * block_count, work_count, &|task| {
        let (row, first_head) = (task / block_count, task % block_count * block_heads);
        let count = block_heads.min(head_count - first_head);
        let first = row * head_count + first_head;
        let heads = Heads {
            queries: &query[first * width..][..count * width],
            sinks: &sink[first_head..][..count],
            width,
            scale: operation.scale,
        };
        // SAFETY: every (row, head) belongs to one task.
        let out = unsafe { out_heads.range(first, count) };
        SCRATCH.with_borrow_mut(|scratch| attend_heads(context, &heads, &keys.of_row(row), scratch, out));
        context.round(out);
    });
    Ok(())
}

/// Some heads of one row.
pub(crate) struct Heads<'a> {
    /// Queries, one after the other.
    pub queries: &'a [f32],
    /// The sink logit of each head.
    pub sinks: &'a [f32],
    /// Channels of a head.
    pub width: usize,
    /// Factor of the scores.
    pub scale: f32,
}

/// Memory that a thread keeps between rows: the keys of a row can be megabytes, too much to allocate for each.
#[derive(Default)]
pub(super) struct Scratch {
    keys: Vec<f32>,
    scores: Vec<f32>,
    #[cfg(target_arch = "x86_64")]
    tiles: AttendScratch,
}

thread_local! {
    pub(super) static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// All heads of a row.
pub(super) fn attend_heads(
    context: &Context<'_>,
    heads: &Heads<'_>,
    keys: &RowKeys<'_>,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let kernels = context.chosen();
    #[cfg(target_arch = "x86_64")]
    if let Some(amx) = kernels.amx()
        && keys.are_exact_in_bf16()
        && heads.scale > 0.0
    {
        return amx.attend(kernels, heads, keys, &mut scratch.tiles, out);
    }
    keys.unpack(kernels, &mut scratch.keys);
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = kernels.avx2() {
        return avx2.attend(heads, &scratch.keys, &mut scratch.scores, out);
    }
    let rows = heads.queries.chunks_exact(heads.width).zip(heads.sinks);
    for ((query, sink), out) in rows.zip(out.chunks_exact_mut(heads.width)) {
        attend(context.mode, query, &scratch.keys, *sink, heads.scale, out);
    }
}

/// One head of one row over unpacked keys.
fn attend(mode: Mode, query: &[f32], keys: &[f32], sink: f32, scale: f32, out: &mut [f32]) {
    let width = query.len();
    let mut scores: Vec<f32> = keys.chunks_exact(width).map(|key| dot(query, key) * scale).collect();
    // Any number at least as large as the scores would do; the official kernel leaves the sink out, which shows where
    // it rounds the weights.
    let floor = if mode == Mode::Official {
        f32::NEG_INFINITY
    } else {
        sink
    };
    let max = scores.iter().copied().fold(floor, f32::max);
    let mut sum = (sink - max).exp();
    for score in &mut scores {
        *score = (*score - max).exp();
        sum += *score;
        if mode == Mode::Official {
            *score = bf16::round(*score);
        }
    }
    out.fill(0.0);
    for (key, weight) in keys.chunks_exact(width).zip(&scores) {
        add_scaled(out, *weight, key);
    }
    out.iter_mut().for_each(|value| *value /= sum);
}

/// The key set of every row.
pub(super) struct Keys<'a> {
    map: RowMap<'a>,
    slots: Vec<usize>,
    fresh: &'a [u8],
    tail: &'a [u8],
    ring_row_count: usize,
    packing: Packing,
    window: usize,
    entries: Option<EntryKeys<'a>>,
}

struct EntryKeys<'a> {
    readers: Vec<EntryReader<'a>>,
    ratio: usize,
    /// Chosen entries and their number for each row.
    selected: Option<(&'a [i32], usize)>,
}

impl<'a> Keys<'a> {
    fn new(context: &Context<'a>, operation: &Attention<'_>) -> Result<Self, Error> {
        let map = RowMap::new(context, &operation.rows)?;
        let slot_count = operation.tail.shape()[0];
        let slots = map
            .slots
            .iter()
            .map(|slot| context.index("slots", i64::from(*slot), slot_count));
        let slots = slots.collect::<Result<_, _>>()?;
        let width = operation.query.shape()[2];
        let entries = operation
            .entries
            .as_ref()
            .map(|attend| EntryKeys::new(context, attend, &map))
            .transpose()?;
        Ok(Keys {
            map,
            slots,
            fresh: context.access.bytes("fresh", operation.fresh)?,
            tail: context.access.bytes("tail", operation.tail)?,
            ring_row_count: operation.tail.shape()[1],
            packing: Packing {
                format: operation.format,
                width,
                tail: operation.rotary,
            },
            window: operation.window,
            entries,
        })
    }

    /// Keys that are entries only.
    pub fn of_entries(context: &Context<'a>, rows: &Rows<'_>, attend: &AttendEntries<'_>) -> Result<Self, Error> {
        let map = RowMap::new(context, rows)?;
        let entries = EntryKeys::new(context, attend, &map)?;
        Ok(Keys {
            slots: Vec::new(),
            fresh: &[],
            tail: &[],
            ring_row_count: 0,
            packing: Packing::of(&attend.entries),
            window: 0,
            entries: Some(entries),
            map,
        })
    }

    /// An upper bound of the keys of a row.
    pub fn count_max(&self) -> usize {
        let position_max = self.map.positions.iter().copied().max().unwrap_or(0) as usize;
        let entry_count = self.entries.as_ref().map_or(0, |entries| match entries.selected {
            Some((_, count)) => count,
            None => (position_max + 1) / entries.ratio,
        });
        self.window + entry_count
    }

    pub fn of_row(&self, row: usize) -> RowKeys<'_> {
        let (position, sequence) = (self.map.positions[row] as usize, self.map.sequences[row] as usize);
        RowKeys {
            keys: self,
            sequence,
            positions: match self.window {
                0 => 0..0,
                window => (position + 1).saturating_sub(window)..position + 1,
            },
            entries: self
                .entries
                .as_ref()
                .map(|entries| (&entries.readers[sequence], entries.chosen(row, position))),
        }
    }

    fn window_row(&self, sequence: usize, position: usize) -> &'a [u8] {
        let span = self.map.span(sequence);
        let row_byte_count = self.packing.row_byte_count();
        if position >= span.first_position {
            let row = span.first_row + position - span.first_position;
            return &self.fresh[row * row_byte_count..][..row_byte_count];
        }
        let place = self.slots[sequence] * self.ring_row_count + position % self.ring_row_count;
        &self.tail[place * row_byte_count..][..row_byte_count]
    }
}

/// The keys of one row.
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "slots are for the tile unit")
)]
pub(crate) struct RowKeys<'a> {
    keys: &'a Keys<'a>,
    sequence: usize,
    /// The window.
    positions: Range<usize>,
    entries: Option<(&'a EntryReader<'a>, ChosenEntries<'a>)>,
}

#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "slots are for the tile unit")
)]
impl<'a> RowKeys<'a> {
    /// Slots of a block of [`RowKeys::slot`].
    pub const BLOCK_SLOT_COUNT: usize = 32;

    /// How the keys of a block of slots are packed.
    pub fn packing(&self, block: usize) -> &Packing {
        match &self.entries {
            Some((reader, _)) if block * Self::BLOCK_SLOT_COUNT < self.entry_slot_count() => &reader.packing,
            _ => &self.keys.packing,
        }
    }

    /// Whether every key is a row of bf16 values, or of shorter ones whose products with their scales are as short.
    pub fn are_exact_in_bf16(&self) -> bool {
        use RowFormat::{Bf16, Fp4Fine, Fp8, Fp8Tail};
        let window = self.keys.packing.format;
        // Entries of 4 bits lie beside windows of 8.
        let is_exact = |entry: RowFormat| entry == window || (entry, window) == (Fp4Fine, Fp8);
        let entries = self.entries.as_ref();
        matches!(window, Bf16 | Fp8Tail | Fp8) && entries.is_none_or(|(reader, _)| is_exact(reader.packing.format))
    }

    /// Number of slots, whole blocks.
    pub fn slot_count(&self) -> usize {
        let first_block = self.positions.start / Self::BLOCK_SLOT_COUNT;
        let window_blocks = self.positions.end.div_ceil(Self::BLOCK_SLOT_COUNT) - first_block;
        self.entry_slot_count() + window_blocks * Self::BLOCK_SLOT_COUNT
    }

    /// The packed key in a slot, if one is there.
    ///
    /// Entries come first, by index or in the order in which they were chosen, then the window. Both start at a block's
    /// border, and window keys are at their position's place in a block: rows of a sequence agree on the slots of what
    /// they share.
    pub fn slot(&self, slot: usize) -> Option<&'a [u8]> {
        let entry_slot_count = self.entry_slot_count();
        if slot < entry_slot_count {
            let (reader, chosen) = self.entries.as_ref()?;
            return chosen.get(slot).map(|index| reader.row(index));
        }
        let first = self.positions.start / Self::BLOCK_SLOT_COUNT * Self::BLOCK_SLOT_COUNT;
        let position = first + slot - entry_slot_count;
        let is_seen = self.positions.contains(&position);
        is_seen.then(|| self.keys.window_row(self.sequence, position))
    }

    fn entry_slot_count(&self) -> usize {
        self.entry_count().next_multiple_of(Self::BLOCK_SLOT_COUNT)
    }

    fn entry_count(&self) -> usize {
        self.entries.as_ref().map_or(0, |(_, chosen)| chosen.len())
    }

    /// All keys as `f32`: window rows by position, then entries.
    fn unpack(&self, kernels: Chosen, keys: &mut Vec<f32>) {
        let packing = &self.keys.packing;
        let width = packing.width;
        keys.resize((self.positions.len() + self.entry_count()) * width, 0.0);
        let (window_keys, entry_keys) = keys.split_at_mut(self.positions.len() * width);
        for (position, key) in self.positions.clone().zip(window_keys.chunks_exact_mut(width)) {
            packing.unpack(kernels, self.keys.window_row(self.sequence, position), key);
        }
        if let Some((reader, chosen)) = &self.entries {
            for (place, key) in entry_keys.chunks_exact_mut(width).enumerate() {
                let index = chosen.get(place).expect("as many keys as chosen entries");
                reader.packing.unpack(kernels, reader.row(index), key);
            }
        }
    }
}

/// Entries of one row.
enum ChosenEntries<'a> {
    All(usize),
    Selected(&'a [i32]),
}

impl ChosenEntries<'_> {
    fn len(&self) -> usize {
        match self {
            ChosenEntries::All(count) => *count,
            ChosenEntries::Selected(indices) => indices.len(),
        }
    }

    /// The entry in a place.
    fn get(&self, place: usize) -> Option<usize> {
        match self {
            ChosenEntries::All(count) => (place < *count).then_some(place),
            ChosenEntries::Selected(indices) => indices.get(place).map(|index| *index as usize),
        }
    }
}

impl<'a> EntryKeys<'a> {
    fn new(context: &Context<'a>, attend: &AttendEntries<'_>, map: &RowMap<'a>) -> Result<Self, Error> {
        let pool = context.access.bytes("pool", attend.entries.pool)?;
        let page_table = context.access.i32("page_table", attend.entries.page_table)?;
        let ratio = attend.entries.ratio;
        let mut readers = Vec::with_capacity(map.sequence_count());
        for sequence in 0..map.sequence_count() {
            let reader = EntryReader::new(&attend.entries, pool, page_table, sequence);
            let span = map.span(sequence);
            reader
                .check((span.first_position + span.row_count) / ratio)
                .map_err(|page| context.index_error("page_table", i64::from(page), attend.entries.pool.shape()[0]))?;
            readers.push(reader);
        }
        let selected = match attend.selected {
            Some(tensor) => Some((context.access.i32("selected", tensor)?, tensor.shape()[1])),
            None => None,
        };
        let keys = EntryKeys {
            readers,
            ratio,
            selected,
        };
        keys.check_selected(context, map)?;
        Ok(keys)
    }

    /// Chosen entries must be visible: anything else would read what no row has written.
    fn check_selected(&self, context: &Context<'_>, map: &RowMap<'_>) -> Result<(), Error> {
        for row in 0..map.row_count() {
            let position = map.positions[row] as usize;
            let visible = (position + 1) / self.ratio;
            if let ChosenEntries::Selected(indices) = self.chosen(row, position) {
                for index in indices {
                    context.index("selected", i64::from(*index), visible)?;
                }
            }
        }
        Ok(())
    }

    fn chosen(&self, row: usize, position: usize) -> ChosenEntries<'a> {
        match self.selected {
            None => ChosenEntries::All((position + 1) / self.ratio),
            Some((indices, count)) => {
                let indices = &indices[row * count..][..count];
                let valid = indices.iter().position(|index| *index == -1).unwrap_or(count);
                ChosenEntries::Selected(&indices[..valid])
            }
        }
    }
}
