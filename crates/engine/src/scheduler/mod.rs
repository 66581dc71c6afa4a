//! The engine's thread: takes requests, gives them memory, runs steps, hands out tokens.

mod admission;
mod queue;
mod rows;
mod speculate;
mod step;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cachalot_model::{Model, StatePool};

use crate::{
    Error, ServiceOptions,
    cache::PrefixCache,
    job::{Ending, Job},
    service::Shared,
    speculation::Speculator,
};

use self::{queue::Queue, rows::Pace};

/// Tokens by which remembered ends of prompts and answers can be rolled back: what follows often differs from what the
/// prompt said, for example in whether the model is to think.
const ROLLBACK: usize = 8;

/// Bytes of files that are handed to the cache's thread between two steps.
const FILE_BYTE_COUNT_PER_STEP: u64 = 8 << 20;

/// How long an idle service waits before it looks after files again.
const FILE_WAIT: Duration = Duration::from_millis(2);

/// How long an ending service waits for files.
const FILE_PATIENCE: Duration = Duration::from_secs(30);

/// Everything that the engine's thread owns.
pub(crate) struct Scheduler {
    model: Model,
    pool: StatePool,
    shared: Arc<Shared>,
    queue: Queue,
    running: Vec<Job>,
    sequence_count_max: usize,
    pace: Pace,
    /// Whether the next step is for jobs whose last step failed; such steps alternate with those of the others.
    is_suspects_turn: bool,
    cache: Option<PrefixCache>,
    speculator: Speculator,
    /// Whether the first waiting job found no memory and nothing has become free since.
    is_blocked: bool,
}

impl Scheduler {
    pub fn new(
        model: Model,
        pool: StatePool,
        cache: Option<PrefixCache>,
        options: &ServiceOptions,
        shared: Arc<Shared>,
    ) -> Self {
        Scheduler {
            shared,
            queue: Queue::default(),
            running: Vec::new(),
            sequence_count_max: options.sequence_count_max.max(1),
            pace: Pace::new(pool.step_row_count_max(), options.step_time_target),
            is_suspects_turn: false,
            cache,
            speculator: Speculator::new(options.speculation, model.draft_count_max().unwrap_or(0)),
            is_blocked: false,
            model,
            pool,
        }
    }

    /// Works until the service is dropped.
    pub fn run(mut self) {
        loop {
            let may_wait = self.running.is_empty() && self.queue.jobs.is_empty();
            let has_files = self.cache.as_ref().is_some_and(PrefixCache::has_work);
            let deadline = has_files.then(|| Instant::now() + FILE_WAIT);
            let arrivals = self
                .shared
                .exchange(self.queue.jobs.len(), self.running.len(), may_wait, deadline);
            let started = Instant::now();
            self.is_blocked &= arrivals.jobs.is_empty();
            arrivals.jobs.into_iter().for_each(|job| self.queue.push(job));
            if arrivals.is_stopping {
                self.stop();
                return;
            }
            self.end_unwanted();
            self.admit();
            self.spend(|profile| &mut profile.schedule, started.elapsed());
            if !self.running.is_empty() {
                self.step();
            }
            self.queue.forget_idle(&self.running);
            self.write_files();
            self.publish();
        }
    }

    /// Lets the prefix cache write some files.
    fn write_files(&mut self) {
        let started = Instant::now();
        if let Some(cache) = self.cache.as_mut().filter(|cache| cache.has_work()) {
            cache.pump(&self.pool, FILE_BYTE_COUNT_PER_STEP, Duration::ZERO);
            self.spend(|profile| &mut profile.cache, started.elapsed());
        }
    }

    /// Keeps the state of a job's sequence for prompts that begin with its tokens.
    fn remember(&mut self, job: &Job, rollback: usize, is_over: bool) {
        let started = Instant::now();
        if let (Some(cache), Some(sequence)) = (&mut self.cache, &job.sequence) {
            cache.remember(&self.pool, sequence, &job.tokens, rollback, is_over);
            self.spend(|profile| &mut profile.cache, started.elapsed());
        }
    }

    /// Ends jobs that nobody waits for any more, and those that are complete.
    fn end_unwanted(&mut self) {
        let now = Instant::now();
        for index in (0..self.queue.jobs.len()).rev() {
            if let Some(ending) = self.queue.jobs[index].ending(now) {
                let job = self.queue.jobs.remove(index);
                self.end(job, ending);
            }
        }
        for index in (0..self.running.len()).rev() {
            if let Some(ending) = self.running[index].ending(now) {
                let job = self.running.remove(index);
                self.end(job, ending);
            }
        }
    }

    fn end(&mut self, job: Job, ending: Ending) {
        if matches!(ending, Ending::Finished(..)) {
            self.remember(&job, ROLLBACK, true);
        }
        self.is_blocked = false;
        let mut status = self.shared.status();
        *status.ended_counts.entry(ending.name()).or_default() += 1;
        if let Some(admitted) = job.admitted {
            let duration = admitted.elapsed();
            status.request_duration = match status.request_duration {
                Duration::ZERO => duration,
                mean => (mean * 7 + duration) / 8,
            };
        }
        drop(status);
        job.end(ending);
    }

    /// Ends all jobs and finishes the cache's files.
    fn stop(&mut self) {
        for job in std::mem::take(&mut self.running) {
            self.end(job, Ending::Failed(Error::ShuttingDown));
        }
        for job in std::mem::take(&mut self.queue.jobs) {
            self.end(job, Ending::Failed(Error::ShuttingDown));
        }
        self.shared.exchange(0, 0, false, None);
        if let Some(cache) = &mut self.cache {
            cache.flush(&self.pool, FILE_PATIENCE);
        }
    }

    /// Tells the callers' threads how things stand.
    fn publish(&self) {
        let mut status = self.shared.status();
        status.speculation = self.speculator.status();
        status.running = self.running.len();
        status.prefilling = self.running.iter().filter(|job| !job.is_decoding()).count();
        let page_bytes = self.pool.page_byte_count() as u64;
        let free = self.pool.free_page_count() as u64;
        status.memory.free_page_bytes = free * page_bytes;
        status.memory.used_page_bytes = (self.pool.page_count() as u64 - free) * page_bytes;
        status.memory.running_tail_bytes = (self.running.len() * self.pool.tail_bytes_per_sequence()) as u64;
        if let Some(cache) = &self.cache {
            (status.memory.cached_page_bytes, status.memory.cached_tail_bytes) = cache.memory_byte_counts();
            status.memory.disk_bytes = cache.disk_byte_count();
            if status.cache_fault.as_deref() != cache.disk_fault() {
                status.cache_fault = cache.disk_fault().map(str::to_owned);
            }
        }
    }

    fn spend(&self, part: impl FnOnce(&mut crate::StepProfile) -> &mut Duration, time: Duration) {
        *part(&mut self.shared.status().profile) += time;
    }
}
