//! Memory for jobs: who gets a sequence, who has to wait, who is sent back.
//!
//! A job runs when there are pages for all its tokens and a page more. A job that grows beyond them takes pages from the
//! prefix cache, then from running jobs of lower rank, which go back to the queue and are resumed later. The job of
//! highest rank never waits: the pool holds at least one whole context.

use std::time::Instant;

use cachalot_model::{Error as ModelError, PAGE_TOKEN_COUNT, Sequence};

use crate::{
    Error, MissReason,
    cache::{Found, PrefixCache},
    job::{Ending, Job},
};

use super::Scheduler;

/// Sequence for a job with the reason why not more of its tokens are in it.
struct Start {
    sequence: Sequence,
    missed: Option<MissReason>,
}

impl Scheduler {
    /// Starts waiting jobs in their order as long as memory lasts.
    pub(super) fn admit(&mut self) {
        while let Some(index) = self.queue.next().filter(|_| !self.is_blocked) {
            match self.start(index) {
                Ok(Some(start)) => {
                    // Interrupted jobs were added behind it.
                    let mut job = self.queue.jobs.remove(index);
                    self.note_admission(&mut job, start);
                    self.running.push(job);
                }
                Ok(None) => self.is_blocked = true,
                Err(error) => {
                    let job = self.queue.jobs.remove(index);
                    self.end(job, Ending::Failed(error));
                }
            }
        }
    }

    /// A sequence with memory for the job, or none while there is not enough.
    fn start(&mut self, index: usize) -> Result<Option<Start>, Error> {
        let job = &self.queue.jobs[index];
        let priority = job.priority;
        let length = job.tokens.len();
        let reserved = (length + PAGE_TOKEN_COUNT).min(job.length_max()).max(length);
        loop {
            if self.running.len() < self.sequence_count_max
                && let Some(start) = self.start_with(index, reserved)?
            {
                return Ok(Some(start));
            }
            if !self.interrupt_below(priority) {
                return Ok(None);
            }
        }
    }

    /// A sequence for the job with pages for `reserved` tokens, at the cost of the prefix cache.
    fn start_with(&mut self, index: usize, reserved: usize) -> Result<Option<Start>, Error> {
        let started = Instant::now();
        let found = match &mut self.cache {
            Some(cache) => cache.start(&self.pool, &self.queue.jobs[index].tokens)?,
            None => Found {
                sequence: None,
                missed: Some(MissReason::Disabled),
            },
        };
        self.spend(|profile| &mut profile.cache, started.elapsed());
        let mut sequence = match found.sequence {
            Some(sequence) => sequence,
            None => self.pool.new_sequence()?,
        };
        loop {
            match self.pool.reserve(&mut sequence, reserved) {
                Ok(()) => {
                    let missed = found.missed;
                    return Ok(Some(Start { sequence, missed }));
                }
                Err(ModelError::Pages { wanted, free }) => {
                    let cache = self.cache.as_mut();
                    let is_enough = |cache: &&mut PrefixCache| free + cache.releasable_page_count() >= wanted;
                    if !cache.filter(is_enough).is_some_and(PrefixCache::release_one) {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn note_admission(&mut self, job: &mut Job, start: Start) {
        let reused = start.sequence.len();
        job.sequence = Some(start.sequence);
        let is_first = job.admitted.is_none();
        if is_first {
            job.acceptance = self.speculator.expectation();
        }
        job.admit(Instant::now(), reused, start.missed);
        if is_first {
            let mut status = self.shared.status();
            status.admitted_count += 1;
            status.prompt_token_count += job.prompt_length as u64;
            status.reused_token_count += reused as u64;
            if let Some(missed) = start.missed {
                *status.missed_token_counts.entry(missed.name()).or_default() += (job.prompt_length - reused) as u64;
            }
        }
    }

    /// Sees to it that the running job at `index` has pages for `row_count` more tokens, at the cost of jobs of lower
    /// rank. Returns whether it still runs; the positions of others change if not all jobs keep running.
    pub(super) fn make_room(&mut self, id: u64, row_count: usize) -> Result<bool, Error> {
        loop {
            let Some(job) = self.running.iter_mut().find(|job| job.id == id) else {
                return Ok(false);
            };
            let Some(sequence) = &mut job.sequence else {
                return Ok(false);
            };
            match self.pool.reserve(sequence, sequence.len() + row_count) {
                Ok(()) => return Ok(true),
                Err(ModelError::Pages { .. }) => {
                    if self.cache.as_mut().is_some_and(PrefixCache::release_one) {
                        continue;
                    }
                    let lowest = self.lowest().expect("the job itself runs");
                    self.interrupt(lowest);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends a running job of a priority below `priority` back to the queue, if there is one.
    fn interrupt_below(&mut self, priority: i32) -> bool {
        match self.lowest() {
            Some(index) if self.running[index].priority < priority => {
                self.interrupt(index);
                true
            }
            _ => false,
        }
    }

    /// The running job of the lowest priority that came last.
    fn lowest(&self) -> Option<usize> {
        (0..self.running.len()).min_by_key(|index| {
            let job = &self.running[*index];
            (job.priority, std::cmp::Reverse(job.id))
        })
    }

    fn interrupt(&mut self, index: usize) {
        let mut job = self.running.remove(index);
        self.remember(&job, 0, true);
        job.interrupt();
        self.is_blocked = false;
        self.shared.status().interrupted_count += 1;
        self.queue.push(job);
    }
}
