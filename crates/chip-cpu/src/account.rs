//! What the chip's memory is spent on.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Bytes by purpose, and their limit.
#[derive(Debug)]
pub(crate) struct Account {
    limit: Option<u64>,
    /// Weights outside streamed experts, mapped files included.
    weights: AtomicU64,
    /// Tensors allocated by the chip's user: states and workspace.
    tensors: AtomicU64,
}

/// Bytes of a tensor, given back when dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    account: Arc<Account>,
    byte_count: u64,
}

impl Account {
    pub fn new(limit: Option<u64>) -> Self {
        Account {
            limit,
            weights: AtomicU64::new(0),
            tensors: AtomicU64::new(0),
        }
    }

    /// Bytes that the chip may use in all; none if nothing limits it.
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Bytes of weights. Those of a model that is gone are not given back: a process with a limit loads one.
    pub fn weights(&self) -> u64 {
        self.weights.load(Ordering::Relaxed)
    }

    /// Bytes of allocated tensors, whether they were touched or not.
    pub fn tensors(&self) -> u64 {
        self.tensors.load(Ordering::Relaxed)
    }

    /// Bytes left for streamed experts.
    pub fn left(&self) -> u64 {
        let limit = self.limit.unwrap_or(u64::MAX);
        limit.saturating_sub(self.weights().saturating_add(self.tensors()))
    }

    pub fn add_weights(&self, byte_count: usize) {
        self.weights.fetch_add(byte_count as u64, Ordering::Relaxed);
    }

    pub fn charge(self: &Arc<Self>, byte_count: usize) -> Charge {
        let byte_count = byte_count as u64;
        self.tensors.fetch_add(byte_count, Ordering::Relaxed);
        Charge {
            account: Arc::clone(self),
            byte_count,
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.tensors.fetch_sub(self.byte_count, Ordering::Relaxed);
    }
}
