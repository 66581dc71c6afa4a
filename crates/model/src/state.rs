//! The memory of all sequences.

use std::sync::{Arc, Mutex};

use cachalot_chip::{Chip, CopyTensor, Mode, Tensor};
use cachalot_numerics::Dtype;

use crate::{
    Error, Sequence, StateOptions,
    family::{Family, Forward},
    memory::{StateBuilder, StateTensors},
    options::ModelOptions,
    pages::{Ledger, PAGE_TOKEN_COUNT},
    sequence::lock,
};

/// Tails, pages and workspace for a number of sequences. Made by [`Model::new_state`](crate::Model::new_state).
///
/// A sequence's state is a slot (tails: the last rows, of windows and of what is not yet compressed) and a list of pages
/// (entries and index keys of 256 tokens, all layers alike). Pages are shared between copies of a
/// sequence and copied before one of them writes.
pub struct StatePool {
    pub(crate) chip: Arc<dyn Chip>,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    /// The model that the pool was made for.
    pub(crate) family: Arc<dyn Family>,
    pub(crate) tensors: StateTensors,
    pub(crate) forward: Box<dyn Forward>,
    pub(crate) inputs: StepInputs,
    pub(crate) sizes: Sizes,
}

/// Sizes that a pool was made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub sequence_count_max: usize,
    pub step_row_count_max: usize,
    pub rollback_count_max: usize,
    pub sequence_page_count_max: usize,
    /// Tokens that one sequence may have.
    pub context: usize,
}

/// Device tensors that say what a step's rows are, `I32`.
pub(crate) struct StepInputs {
    pub tokens: Tensor,
    pub positions: Tensor,
    pub sequences: Tensor,
    pub first_rows: Tensor,
    pub slots: Tensor,
    pub page_table: Tensor,
    pub output_rows: Tensor,
}

impl StatePool {
    pub(crate) fn new(
        chip: Arc<dyn Chip>,
        family: Arc<dyn Family>,
        context: usize,
        options: &ModelOptions,
        state: &StateOptions,
    ) -> Result<Self, Error> {
        let slot_count = state.sequence_count_max.max(1);
        // More than all sequences can have would never be used.
        let token_count_max = context.saturating_mul(slot_count);
        let token_count = state.token_count_max.unwrap_or(context).clamp(1, token_count_max);
        // Each sequence may leave its last page partly empty.
        let full_page_count = token_count.div_ceil(PAGE_TOKEN_COUNT);
        let page_count = full_page_count + slot_count;
        let sizes = Sizes {
            sequence_count_max: slot_count,
            step_row_count_max: state.step_row_count_max.max(1),
            rollback_count_max: state.rollback_count_max,
            sequence_page_count_max: context.div_ceil(PAGE_TOKEN_COUNT).min(full_page_count),
            context: context.min(full_page_count * PAGE_TOKEN_COUNT),
        };
        let mut builder = StateBuilder::new(&*chip, slot_count, page_count, sizes.rollback_count_max);
        builder.draft_count_max = state.draft_count_max;
        let forward = Arc::clone(&family).new_forward(options, &mut builder, sizes.step_row_count_max)?;
        Ok(StatePool {
            ledger: Arc::new(Mutex::new(Ledger::new(page_count, slot_count))),
            tensors: builder.finish(),
            family,
            forward,
            inputs: StepInputs::new(&*chip, &sizes)?,
            sizes,
            chip,
        })
    }

    /// A new, empty sequence.
    ///
    /// # Errors
    /// [`Error::Sequences`] if all slots are taken.
    pub fn new_sequence(&self) -> Result<Sequence, Error> {
        let slot = lock(&self.ledger).take_slot()?;
        Ok(Sequence {
            ledger: Arc::clone(&self.ledger),
            slot,
            pages: Vec::new(),
            length: 0,
            written: 0,
            rollback_count_max: self.sizes.rollback_count_max,
            floor: 0,
            taps_from: 0,
            followed: 0,
        })
    }

    /// A second sequence with the same tokens: tails are copied, pages are shared.
    ///
    /// # Errors
    /// [`Error::Sequences`], [`Error::ForeignSequence`], or an error of the chip.
    pub fn copy_sequence(&self, sequence: &Sequence) -> Result<Sequence, Error> {
        self.check_own(sequence)?;
        let mut copy = self.new_sequence()?;
        for tail in &self.tensors.tails {
            let x = &tail.ring.narrow(sequence.slot as usize, 1);
            let out = &tail.ring.narrow(copy.slot as usize, 1);
            self.chip.enqueue(Mode::Reference, &CopyTensor { x, out }.into())?;
        }
        lock(&self.ledger).share_pages(&sequence.pages);
        copy.pages.clone_from(&sequence.pages);
        (copy.length, copy.written, copy.floor) = (sequence.length, sequence.written, sequence.floor);
        copy.forget_taps();
        Ok(copy)
    }

    /// Tokens that one sequence may have.
    pub fn context(&self) -> usize {
        self.sizes.context
    }

    /// Rows that one step may have.
    pub fn step_row_count_max(&self) -> usize {
        self.sizes.step_row_count_max
    }

    /// Tokens for which unused pages are left.
    pub fn free_token_count(&self) -> usize {
        lock(&self.ledger).free_page_count() * PAGE_TOKEN_COUNT
    }

    /// Bytes of tails for each sequence, committed when a sequence is first used.
    pub fn tail_bytes_per_sequence(&self) -> usize {
        let tails = self.tensors.tails.iter();
        let tail_bytes = tails.map(|tail| tail.ring.byte_count() / self.sizes.sequence_count_max);
        tail_bytes.sum::<usize>() + self.tensors.private_byte_count
    }

    /// Bytes of entries and index keys for each token.
    pub fn entry_bytes_per_token(&self) -> f64 {
        self.page_byte_count() as f64 / PAGE_TOKEN_COUNT as f64
    }

    pub(crate) fn check_own(&self, sequence: &Sequence) -> Result<(), Error> {
        if Arc::ptr_eq(&self.ledger, &sequence.ledger) {
            Ok(())
        } else {
            Err(Error::ForeignSequence)
        }
    }

    /// Gives `sequence` pages for positions `sequence.length .. end` that nobody else reads, so that no step up to there
    /// wants for pages.
    ///
    /// # Errors
    /// [`Error::Context`], [`Error::Pages`], [`Error::ForeignSequence`], or an error of the chip.
    pub fn reserve(&self, sequence: &mut Sequence, end: usize) -> Result<(), Error> {
        self.check_own(sequence)?;
        let first = sequence.length / PAGE_TOKEN_COUNT;
        let page_count = end.div_ceil(PAGE_TOKEN_COUNT);
        if page_count > self.sizes.sequence_page_count_max {
            return Err(Error::Context {
                length: end,
                context: self.sizes.context,
            });
        }
        let shared: Vec<usize> = {
            let ledger = lock(&self.ledger);
            (first..page_count.min(sequence.pages.len()))
                .filter(|i| ledger.is_shared(sequence.pages[*i]))
                .collect()
        };
        let new_count = page_count.saturating_sub(sequence.pages.len());
        let mut new_pages = lock(&self.ledger).take_pages(shared.len() + new_count)?;
        for index in shared {
            let page = new_pages
                .pop()
                .expect("as many pages were taken as are replaced and added");
            if let Err(error) = self.copy_page(sequence.pages[index], page) {
                new_pages.push(page);
                lock(&self.ledger).release_pages(&new_pages);
                return Err(error);
            }
            let old = std::mem::replace(&mut sequence.pages[index], page);
            lock(&self.ledger).release_pages(&[old]);
        }
        sequence.pages.extend(new_pages);
        Ok(())
    }

    pub(crate) fn copy_page(&self, from: u32, to: u32) -> Result<(), Error> {
        for pool in &self.tensors.pools {
            let x = &pool.entries.narrow(from as usize, 1);
            let out = &pool.entries.narrow(to as usize, 1);
            self.chip.enqueue(Mode::Reference, &CopyTensor { x, out }.into())?;
        }
        Ok(())
    }
}

impl StepInputs {
    fn new(chip: &dyn Chip, sizes: &Sizes) -> Result<Self, Error> {
        // Steps round the table's width up to a power of two.
        let page_count = sizes.sequence_page_count_max.next_power_of_two();
        StepInputs::of(chip, sizes.step_row_count_max, sizes.sequence_count_max, page_count)
    }

    /// For steps of `row_count` rows of `sequence_count` sequences with `page_count` pages each.
    pub(crate) fn of(
        chip: &dyn Chip,
        row_count: usize,
        sequence_count: usize,
        page_count: usize,
    ) -> Result<Self, Error> {
        let i32 = |count: usize| chip.allocate(Dtype::I32, &[count]);
        Ok(StepInputs {
            tokens: i32(row_count)?,
            positions: i32(row_count)?,
            sequences: i32(row_count)?,
            first_rows: i32(sequence_count + 1)?,
            slots: i32(sequence_count)?,
            page_table: i32(sequence_count * page_count)?,
            output_rows: i32(row_count)?,
        })
    }
}
