//! How one expert lies in its files, and in a slot.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use cachalot_chip::{Error, ExpertSource, FileRange, MatrixPlace, MatrixSource};
use cachalot_numerics::MatrixFormat;

use super::{
    file::{BLOCK, DirectFile},
    slot::Slot,
};
use crate::memory::CpuMatrix;

/// Ranges of a file that are closer than this are read together.
const GAP_BYTES_MAX: u64 = 64 << 10;

/// One expert: what is read from where, and what lies where afterwards.
#[derive(Debug)]
pub(super) struct Layout {
    pub runs: Vec<Run>,
    /// `w1`, `w2`, `w3`.
    pub parts: [Part; 3],
    /// Bytes of a slot that holds it.
    pub slot_bytes: usize,
}

/// A contiguous read. File offset, slot offset and length are multiples of [`BLOCK`].
#[derive(Debug)]
pub(super) struct Run {
    pub file: Arc<DirectFile>,
    pub start: u64,
    pub byte_count: usize,
    /// Bytes from `start` on that have to be in the file; behind them, blocks are only filled up.
    pub needed: usize,
    pub slot_offset: usize,
    /// Which of the parts it begins with, for messages.
    pub part: usize,
}

/// One matrix in a slot.
#[derive(Debug)]
pub(super) struct Part {
    pub name: String,
    pub rows: usize,
    pub columns: usize,
    pub format: MatrixFormat,
    weights: Range<usize>,
    scales: Range<usize>,
}

/// An expert in memory.
#[derive(Debug)]
pub(crate) struct Resident {
    /// `w1`, `w2`, `w3`.
    pub matrices: [CpuMatrix; 3],
}

impl Layout {
    /// Plans the reads of an expert; `open` gives the file of a range.
    ///
    /// # Errors
    /// [`Error::SourceLength`] if places and sources disagree, or what `open` returns.
    pub fn new(
        source: ExpertSource,
        places: [MatrixPlace; 3],
        mut open: impl FnMut(&FileRange, &str) -> Result<Arc<DirectFile>, Error>,
    ) -> Result<Self, Error> {
        let sources = [source.w1, source.w2, source.w3];
        let mut ranges: Vec<(usize, &FileRange)> = Vec::with_capacity(6);
        for (index, (source, place)) in sources.iter().zip(&places).enumerate() {
            source.check()?;
            check_length(&source.name, source.weights.len(), place.weights.byte_count)?;
            let scale_byte_count = place.scales.as_ref().map_or(0, |range| range.byte_count);
            check_length(&source.name, source.scales.len(), scale_byte_count)?;
            ranges.push((index, &place.weights));
            ranges.extend(place.scales.iter().map(|range| (index, range)));
        }
        ranges.sort_by_key(|(_, range)| (Arc::as_ptr(&range.file), range.start));
        let mut runs: Vec<Run> = Vec::new();
        for (part, range) in ranges {
            let end = range.start + range.byte_count as u64;
            match runs.last_mut() {
                Some(run)
                    if Arc::ptr_eq(run.file.stored(), &range.file)
                        && range.start <= run.start + run.byte_count as u64 + GAP_BYTES_MAX =>
                {
                    run.needed = run.needed.max((end - run.start) as usize);
                    run.byte_count = run.needed.next_multiple_of(BLOCK);
                }
                _ => {
                    let start = range.start - range.start % BLOCK as u64;
                    let needed = (end - start) as usize;
                    runs.push(Run {
                        file: open(range, &sources[part].name)?,
                        start,
                        byte_count: needed.next_multiple_of(BLOCK),
                        needed,
                        slot_offset: 0,
                        part,
                    });
                }
            }
        }
        let mut slot_bytes = 0;
        for run in &mut runs {
            run.slot_offset = slot_bytes;
            slot_bytes += run.byte_count;
        }
        let [w1, w2, w3] = sources;
        let [p1, p2, p3] = &places;
        let part = |source: MatrixSource, place: &MatrixPlace| Part {
            weights: in_slot(&runs, &place.weights),
            scales: place.scales.as_ref().map_or(0..0, |range| in_slot(&runs, range)),
            name: source.name,
            rows: source.rows,
            columns: source.columns,
            format: source.format,
        };
        let parts = [part(w1, p1), part(w2, p2), part(w3, p3)];
        Ok(Layout {
            runs,
            parts,
            slot_bytes,
        })
    }

    /// The expert in a slot that has been filled, its scales and codes checked.
    ///
    /// # Errors
    /// [`Error::Read`] if a file changed meanwhile, [`Error::BadScale`], [`Error::BadWeight`].
    pub fn resident(&self, slot: Slot) -> Result<Resident, Error> {
        for run in &self.runs {
            run.file.check_unchanged(&self.parts[run.part].name)?;
        }
        let bytes = Bytes::from_owner(slot);
        let matrix = |part: &Part| {
            let matrix = CpuMatrix::load(MatrixSource {
                name: part.name.clone(),
                rows: part.rows,
                columns: part.columns,
                format: part.format,
                weights: bytes.slice(part.weights.clone()),
                scales: bytes.slice(part.scales.clone()),
            })?;
            matrix.check()?;
            Ok(matrix)
        };
        let [w1, w2, w3] = &self.parts;
        Ok(Resident {
            matrices: [matrix(w1)?, matrix(w2)?, matrix(w3)?],
        })
    }
}

/// Where a range of a file lies in a slot.
fn in_slot(runs: &[Run], range: &FileRange) -> Range<usize> {
    let end = range.start + range.byte_count as u64;
    let run = runs.iter().find(|run| {
        Arc::ptr_eq(run.file.stored(), &range.file)
            && (run.start..=run.start + run.needed as u64).contains(&range.start)
            && end <= run.start + run.needed as u64
    });
    let run = run.expect("every range was put into a run");
    let start = run.slot_offset + (range.start - run.start) as usize;
    start..start + range.byte_count
}

fn check_length(name: &str, expected: usize, found: usize) -> Result<(), Error> {
    if expected == found {
        return Ok(());
    }
    Err(Error::SourceLength {
        name: name.to_owned(),
        expected,
        found,
    })
}
