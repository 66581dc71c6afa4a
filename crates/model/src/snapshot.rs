//! State outside of sequences: pages kept for later, tails as bytes, and sequences made from both.
//!
//! A snapshot of a sequence is its pages, shared, and the rows of its tails that later steps may read. Rows are written in
//! the order of their positions, so the bytes depend on the tokens alone and not on where the sequence lived.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
};

use cachalot_chip::Tensor;

use crate::{
    Error, Sequence, StatePool,
    memory::Pool,
    pages::{Ledger, PAGE_TOKEN_COUNT},
    sequence::lock,
};

/// A page held outside of a sequence. Its bytes never change; dropping it frees the page once no sequence uses it.
#[derive(Debug)]
pub struct Page {
    ledger: Arc<Mutex<Ledger>>,
    number: u32,
}

impl Page {
    /// Whether somebody else uses the page too.
    pub fn is_shared(&self) -> bool {
        lock(&self.ledger).is_shared(self.number)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        lock(&self.ledger).release_pages(&[self.number]);
    }
}

impl Clone for Page {
    fn clone(&self) -> Self {
        lock(&self.ledger).share_pages(&[self.number]);
        Page {
            ledger: Arc::clone(&self.ledger),
            number: self.number,
        }
    }
}

impl StatePool {
    /// Pages of the pool.
    pub fn page_count(&self) -> usize {
        lock(&self.ledger).page_count()
    }

    /// Pages that nobody uses.
    pub fn free_page_count(&self) -> usize {
        lock(&self.ledger).free_page_count()
    }

    /// Bytes of one page, all layers together.
    pub fn page_byte_count(&self) -> usize {
        self.tensors.pools.iter().map(Pool::page_byte_count).sum()
    }

    /// Pages that hold a sequence's tokens `range.start * 256 .. range.end * 256`, shared with it.
    ///
    /// # Errors
    /// [`Error::ForeignSequence`].
    ///
    /// # Panics
    /// If the sequence has fewer pages.
    pub fn share_pages(&self, sequence: &Sequence, range: Range<usize>) -> Result<Vec<Page>, Error> {
        self.check_own(sequence)?;
        let numbers = &sequence.pages[range];
        lock(&self.ledger).share_pages(numbers);
        Ok(numbers.iter().map(|number| self.page(*number)).collect())
    }

    /// A copy of the `index`-th page of a sequence, for a page that the sequence goes on writing.
    ///
    /// # Errors
    /// [`Error::ForeignSequence`], [`Error::Pages`], or an error of the chip.
    ///
    /// # Panics
    /// If the sequence has fewer pages.
    pub fn detach_page(&self, sequence: &Sequence, index: usize) -> Result<Page, Error> {
        self.check_own(sequence)?;
        let page = self.new_page()?;
        self.copy_page(sequence.pages[index], page.number)?;
        Ok(page)
    }

    /// A page's bytes: [`StatePool::page_byte_count`] of them.
    ///
    /// # Errors
    /// [`Error::ForeignSequence`], or an error of the chip.
    pub fn read_page(&self, page: &Page) -> Result<Vec<u8>, Error> {
        self.check_own_page(page)?;
        let mut bytes = vec![0; self.page_byte_count()];
        let mut rest = &mut bytes[..];
        for pool in &self.tensors.pools {
            let (part, after) = rest.split_at_mut(pool.page_byte_count());
            self.chip.read(&pool.entries.narrow(page.number as usize, 1), part)?;
            rest = after;
        }
        Ok(bytes)
    }

    /// A new page with the bytes of [`StatePool::read_page`].
    ///
    /// # Errors
    /// [`Error::SnapshotLength`], [`Error::Pages`], or an error of the chip.
    pub fn write_page(&self, bytes: &[u8]) -> Result<Page, Error> {
        check_length("page", self.page_byte_count(), bytes.len())?;
        let page = self.new_page()?;
        let mut rest = bytes;
        for pool in &self.tensors.pools {
            let (part, after) = rest.split_at(pool.page_byte_count());
            self.chip.write(&pool.entries.narrow(page.number as usize, 1), part)?;
            rest = after;
        }
        Ok(page)
    }

    /// How far a sequence can be rolled back in a snapshot of it, at most `rollback` tokens.
    pub fn snapshot_rollback(&self, sequence: &Sequence, rollback: usize) -> usize {
        let reach = sequence.length - sequence.earliest_len().min(sequence.length);
        reach.min(rollback)
    }

    /// Bytes of the tails of a snapshot after `length` tokens that can be rolled back by `rollback`.
    pub fn tail_byte_count(&self, length: usize, rollback: usize) -> usize {
        let tails = self.tail_rows(length, rollback);
        tails.map(|(tail, rows)| rows.len() * row_bytes(tail)).sum()
    }

    /// The rows of a sequence's tails that steps after it, or after rolling it back by up to `rollback` tokens, may read.
    ///
    /// # Errors
    /// [`Error::ForeignSequence`]; [`Error::RollBack`] if `rollback` is more than [`StatePool::snapshot_rollback`];
    /// or an error of the chip.
    pub fn read_tail(&self, sequence: &Sequence, rollback: usize) -> Result<Vec<u8>, Error> {
        self.check_own(sequence)?;
        if rollback > self.snapshot_rollback(sequence, rollback) {
            return Err(Error::RollBack {
                target: sequence.length.saturating_sub(rollback),
                earliest: sequence.earliest_len(),
            });
        }
        let mut bytes = vec![0; self.tail_byte_count(sequence.length, rollback)];
        let mut rest = &mut bytes[..];
        for (tail, rows) in self.tail_rows(sequence.length, rollback) {
            for part in ring_parts(tail, sequence.slot, rows) {
                let (bytes, after) = rest.split_at_mut(part.byte_count());
                self.chip.read(&part, bytes)?;
                rest = after;
            }
        }
        Ok(bytes)
    }

    /// A sequence of `length` tokens made of pages, shared, and the bytes of [`StatePool::read_tail`]; its steps give what
    /// those of the original would have given.
    ///
    /// # Errors
    /// [`Error::SnapshotLength`] if pages or bytes do not fit the length, [`Error::Sequences`], or an error of the chip.
    pub fn restore_sequence(
        &self,
        pages: &[Page],
        length: usize,
        rollback: usize,
        tail: &[u8],
    ) -> Result<Sequence, Error> {
        check_length("page list", length.div_ceil(PAGE_TOKEN_COUNT), pages.len())?;
        check_length("tail", self.tail_byte_count(length, rollback), tail.len())?;
        pages.iter().try_for_each(|page| self.check_own_page(page))?;
        let mut sequence = self.new_sequence()?;
        let mut rest = tail;
        for (tail, rows) in self.tail_rows(length, rollback) {
            for part in ring_parts(tail, sequence.slot, rows) {
                let (bytes, after) = rest.split_at(part.byte_count());
                self.chip.write(&part, bytes)?;
                rest = after;
            }
        }
        let numbers: Vec<u32> = pages.iter().map(|page| page.number).collect();
        lock(&self.ledger).share_pages(&numbers);
        sequence.pages = numbers;
        (sequence.length, sequence.written) = (length, length);
        sequence.floor = length.saturating_sub(rollback);
        sequence.forget_taps();
        Ok(sequence)
    }

    /// Each tail with the positions whose rows a snapshot needs.
    fn tail_rows(&self, length: usize, rollback: usize) -> impl Iterator<Item = (&Tensor, Range<usize>)> {
        let earliest = length.saturating_sub(rollback);
        let tails = self.tensors.tails.iter();
        tails.map(move |tail| (&tail.ring, tail.reach.first(earliest)..length))
    }

    fn page(&self, number: u32) -> Page {
        Page {
            ledger: Arc::clone(&self.ledger),
            number,
        }
    }

    fn new_page(&self) -> Result<Page, Error> {
        let numbers = lock(&self.ledger).take_pages(1)?;
        Ok(self.page(numbers[0]))
    }

    fn check_own_page(&self, page: &Page) -> Result<(), Error> {
        if Arc::ptr_eq(&self.ledger, &page.ledger) {
            Ok(())
        } else {
            Err(Error::ForeignSequence)
        }
    }
}

/// The rows of `positions` in a slot's ring, as one or two tensors in the order of positions.
fn ring_parts(tail: &Tensor, slot: u32, positions: Range<usize>) -> impl Iterator<Item = Tensor> {
    let (row_count, width) = (tail.shape()[1], tail.shape()[2]);
    let ring = tail.narrow(slot as usize, 1).reshape(&[row_count, width]);
    let first = positions.start % row_count;
    let before_wrap = positions.len().min(row_count - first);
    let parts = [(first, before_wrap), (0, positions.len() - before_wrap)];
    parts
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(move |(first, count)| ring.narrow(first, count))
}

fn row_bytes(tail: &Tensor) -> usize {
    tail.byte_count() / (tail.shape()[0] * tail.shape()[1])
}

fn check_length(what: &'static str, expected: usize, found: usize) -> Result<(), Error> {
    if expected == found {
        Ok(())
    } else {
        Err(Error::SnapshotLength { what, expected, found })
    }
}
