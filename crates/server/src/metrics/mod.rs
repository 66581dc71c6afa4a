//! What the server counts, and how it is shown to Prometheus.

mod histogram;
mod process;
mod render;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

pub use histogram::Histogram;
pub use render::render;

use crate::backend::Reuse;

/// Counters of the HTTP side. Can be shared between threads.
#[derive(Debug, Default)]
pub struct Metrics {
    /// From a request to the first token of its answer.
    pub time_to_first_token: Histogram,
    /// Between two tokens of an answer.
    pub time_per_token: Histogram,
    /// From a request to the end of its answer.
    pub answer_time: Histogram,
    /// Answers whose client went away or did not read.
    pub cancelled_count: AtomicU64,
    /// Answers being written.
    pub open_count: AtomicU64,
    /// Connections open.
    pub connection_count: AtomicU64,
    responses: Mutex<BTreeMap<(&'static str, u16), u64>>,
    reuse: Mutex<ReuseCounts>,
}

/// Prompt tokens by where they came from.
#[derive(Clone, Debug, Default)]
pub struct ReuseCounts {
    /// Tokens of all prompts.
    pub prompt: u64,
    /// Those taken from the prefix cache.
    pub reused: u64,
    /// Tokens not reused and prompts that missed some, by reason.
    pub missed: BTreeMap<&'static str, (u64, u64)>,
}

impl Metrics {
    /// Counts a response of `route`, which is a pattern and not what the client wrote.
    pub fn count_response(&self, route: &'static str, status: u16) {
        let mut responses = self.responses.lock().unwrap_or_else(PoisonError::into_inner);
        *responses.entry((route, status)).or_default() += 1;
    }

    /// Counts what a prompt took from the prefix cache.
    pub fn count_reuse(&self, reuse: &Reuse) {
        let mut counts = self.reuse.lock().unwrap_or_else(PoisonError::into_inner);
        counts.prompt += reuse.prompt as u64;
        counts.reused += reuse.reused as u64;
        if let Some((reason, _)) = reuse.missed {
            let (tokens, prompts) = counts.missed.entry(reason).or_default();
            *tokens += reuse.prompt.saturating_sub(reuse.reused) as u64;
            *prompts += 1;
        }
    }

    /// What prompts took from the prefix cache so far.
    pub fn reuse(&self) -> ReuseCounts {
        self.reuse.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a token, `first` or `since` the one before.
    pub fn count_token(&self, first: bool, since: Duration) {
        match first {
            true => self.time_to_first_token.observe(since),
            false => self.time_per_token.observe(since),
        }
    }

    fn responses(&self) -> BTreeMap<(&'static str, u16), u64> {
        self.responses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Adds one to a count as long as it lives.
pub struct Gauged<'a>(&'a AtomicU64);

impl<'a> Gauged<'a> {
    /// Adds one to `count`.
    pub fn enter(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Gauged(count)
    }
}

impl Drop for Gauged<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
