use std::sync::{Arc, Mutex, MutexGuard};

use crate::{Error, pages::Ledger};

/// One sequence in a [`StatePool`](crate::StatePool): its slot, its pages and its length. Dropping it frees them.
#[derive(Debug)]
pub struct Sequence {
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    pub(crate) slot: u32,
    pub(crate) pages: Vec<u32>,
    /// Tokens that the state stands for.
    pub(crate) length: usize,
    /// One past the last position ever written to the tails.
    pub(crate) written: usize,
    pub(crate) rollback_count_max: usize,
    /// Shortest length that the snapshot it was made from can be rolled back to; 0 without one.
    pub(crate) floor: usize,
    /// First position from which the drafter's taps are there without a gap.
    pub(crate) taps_from: usize,
    /// One past the last position that the drafter's windows hold, from `taps_from` on.
    pub(crate) followed: usize,
}

impl Sequence {
    /// Tokens in the state.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether no token has been fed yet.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Shortest length that [`Sequence::roll_back`] can still reach.
    pub fn earliest_len(&self) -> usize {
        self.written.saturating_sub(self.rollback_count_max).max(self.floor)
    }

    /// Forgets the last tokens, so that `length` remain: as if they had never been fed.
    ///
    /// # Errors
    /// [`Error::RollBack`] if `length` is larger than the present one or further back than the tails remember.
    pub fn roll_back(&mut self, length: usize) -> Result<(), Error> {
        if length > self.length || length < self.earliest_len() {
            return Err(Error::RollBack {
                target: length,
                earliest: self.earliest_len(),
            });
        }
        self.length = length;
        self.taps_from = self.taps_from.min(length);
        // The last row of an MTP layer also depends on the token after it.
        self.followed = self.followed.min(length.saturating_sub(1)).max(self.taps_from);
        Ok(())
    }

    /// The tails came from elsewhere, and without what a drafter needs.
    pub(crate) fn forget_taps(&mut self) {
        (self.taps_from, self.followed) = (self.length, self.length);
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        let mut ledger = lock(&self.ledger);
        ledger.release_pages(&self.pages);
        ledger.release_slot(self.slot);
    }
}

/// The ledger is consistent after every statement, so a poisoned lock is no reason to stop.
pub(crate) fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
