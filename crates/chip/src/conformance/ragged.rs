//! Steps with rows of several sequences: which rows, what the rings hold, where the entries are.

use std::ops::Range;

use super::{
    case::{Argument, Case, Loaded, UNWRITTEN_BYTE},
    values::Values,
};
use crate::Rows;

/// Rows of several sequences in one step.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub sequences: Vec<Sequence>,
    pub slot_count: usize,
}

/// The rows of one sequence in a step.
#[derive(Clone, Debug)]
pub(super) struct Sequence {
    /// Number of the sequence in the data of the case; keeps its value when a row is cut out.
    pub index: usize,
    pub slot: usize,
    pub first_position: usize,
    pub row_count: usize,
    /// Row of the whole step where the sequence starts.
    pub first_source_row: usize,
}

impl Sequence {
    pub fn end(&self) -> usize {
        self.first_position + self.row_count
    }
}

impl Step {
    /// Up to four sequences: new ones, prefill that continues anywhere, decode steps, and one without rows.
    pub fn random(values: &mut Values, sequence_count: usize, position_max: usize) -> Self {
        let slot_count = sequence_count + values.below(3);
        let slots = values.permutation(slot_count);
        let mut first_source_row = 0;
        let sequences = (0..sequence_count).map(|index| {
            let first_position = [0, values.below(position_max)][values.below(3).min(1)];
            let row_count = [
                1,
                values.below(12),
                values.below(12),
                1 + values.below(position_max / 2),
            ][values.below(4)];
            let sequence = Sequence {
                index,
                slot: slots[index],
                first_position,
                row_count,
                first_source_row,
            };
            first_source_row += row_count;
            sequence
        });
        Step {
            sequences: sequences.collect(),
            slot_count,
        }
    }

    pub fn row_count(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.row_count).sum()
    }

    /// Sequence and position of every row.
    pub fn rows(&self) -> impl Iterator<Item = (&Sequence, usize)> {
        let sequences = self.sequences.iter();
        sequences
            .flat_map(|sequence| (sequence.first_position..sequence.end()).map(move |position| (sequence, position)))
    }

    /// Row of the whole step for every row of this one.
    pub fn source_rows(&self) -> Vec<usize> {
        let rows = self.rows();
        rows.map(|(sequence, position)| sequence.first_source_row + position - sequence.first_position)
            .collect()
    }

    /// The step that has row `row` of this one only.
    pub fn row_alone(&self, row: usize) -> Step {
        let (sequence, position) = self.rows().nth(row).expect("a row of the step");
        let alone = Sequence {
            first_position: position,
            row_count: 1,
            first_source_row: row,
            ..sequence.clone()
        };
        Step {
            sequences: vec![alone],
            slot_count: self.slot_count,
        }
    }

    /// Up to `count` rows spread over the step, if it has more than one row.
    pub fn sample_rows(&self, count: usize) -> Vec<usize> {
        let row_count = self.row_count();
        if row_count < 2 {
            return Vec::new();
        }
        let mut rows: Vec<usize> = (0..count).map(|i| i * (row_count - 1) / (count - 1)).collect();
        rows.dedup();
        rows
    }

    /// The tensors of [`Rows`].
    pub fn arguments(&self) -> Vec<Argument> {
        let rows: Vec<_> = self.rows().collect();
        let positions: Vec<i32> = rows.iter().map(|(_, position)| *position as i32).collect();
        let mut sequences = Vec::new();
        let mut first_rows = vec![0];
        for (number, sequence) in self.sequences.iter().enumerate() {
            sequences.extend(vec![number as i32; sequence.row_count]);
            first_rows.push(sequences.len() as i32);
        }
        let slots: Vec<i32> = self.sequences.iter().map(|sequence| sequence.slot as i32).collect();
        vec![
            Argument::i32("positions", &[positions.len()], &positions),
            Argument::i32("sequences", &[sequences.len()], &sequences),
            Argument::i32("first_rows", &[first_rows.len()], &first_rows),
            Argument::i32("slots", &[slots.len()], &slots),
        ]
    }

    /// Rings `[slots, ring_row_count, row bytes]` that hold what came before this step, the rest unwritten.
    ///
    /// `history` gives the bytes of a sequence's row by its position.
    pub fn rings(&self, ring_row_count: usize, history: &[Vec<Vec<u8>>], row_byte_count: usize) -> Vec<u8> {
        let mut rings = vec![UNWRITTEN_BYTE; self.slot_count * ring_row_count * row_byte_count];
        for sequence in &self.sequences {
            let (end, rows_of_sequence) = (sequence.first_position, &history[sequence.index]);
            let first = end.saturating_sub(ring_row_count);
            for (position, bytes) in (first..end).zip(&rows_of_sequence[first..end]) {
                let place = sequence.slot * ring_row_count + position % ring_row_count;
                rings[place * row_byte_count..][..row_byte_count].copy_from_slice(bytes);
            }
        }
        rings
    }

    /// The bytes of this step's rows.
    pub fn fresh(&self, history: &[Vec<Vec<u8>>]) -> Vec<u8> {
        let rows = self.rows();
        rows.flat_map(|(sequence, position)| history[sequence.index][position].iter().copied())
            .collect()
    }

    /// Faults in the tensors of [`Rows`]; `slots` only where the operator has rings.
    pub fn refuse_bad_rows(&self, mut case: Case, has_rings: bool) -> Case {
        if self.row_count() > 0 {
            case = case
                .refuses("positions", 0, -1)
                .refuses("sequences", 0, self.sequences.len() as i64);
            case = case.refuses("first_rows", self.sequences.len(), self.row_count() as i64 + 1);
        }
        let busy = self.sequences.iter().position(|sequence| sequence.row_count > 0);
        if let (Some(busy), true) = (busy, has_rings) {
            case = case
                .refuses("slots", busy, self.slot_count as i64)
                .refuses("slots", busy, -1);
        }
        case
    }
}

/// The rows of a loaded case.
pub(super) fn rows(loaded: &Loaded) -> Rows<'_> {
    Rows {
        positions: loaded.tensor("positions"),
        sequences: loaded.tensor("sequences"),
        first_rows: loaded.tensor("first_rows"),
        slots: loaded.tensor("slots"),
    }
}

/// Pages of the entries of all sequences, in random order.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    pub page_entry_count: usize,
    pub page_count: usize,
    /// Pages of each sequence.
    pub of_sequence: Vec<Vec<i32>>,
}

impl Pages {
    /// Room for the entries of every sequence at the end of the step. Unused places of the table hold -1.
    pub fn random(values: &mut Values, step: &Step, ratio: usize, page_entry_count: usize) -> Self {
        let used = |sequence: &Sequence| (sequence.end() / ratio).div_ceil(page_entry_count);
        let table_width = step.sequences.iter().map(used).max().unwrap_or(0).max(1) + values.below(2);
        let page_count = step.sequences.iter().map(used).sum::<usize>() + 1 + values.below(3);
        let mut free = values.permutation(page_count).into_iter();
        let of_sequence = step.sequences.iter().map(|sequence| {
            let mut pages = vec![-1; table_width];
            pages
                .iter_mut()
                .take(used(sequence))
                .zip(&mut free)
                .for_each(|(page, free)| *page = free as i32);
            pages
        });
        Pages {
            page_entry_count,
            page_count,
            of_sequence: of_sequence.collect(),
        }
    }

    /// The table of a step's sequences.
    pub fn table(&self, step: &Step) -> Argument {
        let pages = step
            .sequences
            .iter()
            .flat_map(|sequence| self.of_sequence[sequence.index].iter().copied());
        let pages: Vec<i32> = pages.collect();
        let width = self.of_sequence.first().map_or(1, Vec::len);
        Argument::i32("page_table", &[step.sequences.len(), width], &pages).last_free()
    }

    /// Where an entry lies in the pool.
    pub fn bytes_of(&self, sequence: usize, entry: usize, row_byte_count: usize) -> Range<usize> {
        let page = self.of_sequence[sequence][entry / self.page_entry_count] as usize;
        let start = (page * self.page_entry_count + entry % self.page_entry_count) * row_byte_count;
        start..start + row_byte_count
    }

    /// The bytes of a pool that holds `entries[sequence]`, the rest unwritten.
    pub fn pool(&self, entries: &[Vec<Vec<u8>>], row_byte_count: usize) -> Vec<u8> {
        let mut pool = vec![UNWRITTEN_BYTE; self.page_count * self.page_entry_count * row_byte_count];
        for (sequence, entries) in entries.iter().enumerate() {
            for (entry, bytes) in entries.iter().enumerate() {
                pool[self.bytes_of(sequence, entry, row_byte_count)].copy_from_slice(bytes);
            }
        }
        pool
    }

    /// A page number outside the pool, at a place that the operator has to read.
    pub fn refuse_bad_page(&self, case: Case, step: &Step, ratio: usize) -> Case {
        let busy = step
            .sequences
            .iter()
            .position(|sequence| sequence.row_count > 0 && sequence.end() / ratio > sequence.first_position / ratio);
        match busy {
            Some(number) => {
                let last = (step.sequences[number].end() / ratio - 1) / self.page_entry_count;
                let element = number * self.of_sequence[0].len() + last;
                case.refuses("page_table", element, self.page_count as i64)
                    .refuses("page_table", element, -1)
            }
            None => case,
        }
    }
}
