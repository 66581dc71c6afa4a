//! The engine's thread: takes requests, gives them memory, runs steps, hands out tokens.

mod admission;
mod queue;
mod rows;
mod step;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cachalot_model::{Model, StatePool};

use crate::{
    Error, ServiceOptions,
    job::{Ending, Job},
    service::Shared,
};

use self::{queue::Queue, rows::Pace};

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
}

impl Scheduler {
    pub fn new(model: Model, pool: StatePool, options: &ServiceOptions, shared: Arc<Shared>) -> Self {
        Scheduler {
            shared,
            queue: Queue::default(),
            running: Vec::new(),
            sequence_count_max: options.sequence_count_max.max(1),
            pace: Pace::new(pool.step_row_count_max(), options.step_time_target),
            is_suspects_turn: false,
            model,
            pool,
        }
    }

    /// Works until the service is dropped.
    pub fn run(mut self) {
        loop {
            let started = Instant::now();
            let may_wait = self.running.is_empty() && self.queue.jobs.is_empty();
            let arrivals = self.shared.exchange(
                self.queue.jobs.len(),
                self.running.len(),
                may_wait,
                self.queue.deadline(),
            );
            let taken = if may_wait { Instant::now() } else { started };
            arrivals.jobs.into_iter().for_each(|job| self.queue.push(job));
            if arrivals.is_stopping {
                self.fail_all();
                return;
            }
            self.end_unwanted();
            self.admit();
            self.spend(|profile| &mut profile.schedule, taken.elapsed());
            if !self.running.is_empty() {
                self.step();
            }
            self.queue.forget_idle(&self.running);
            self.publish();
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

    fn fail_all(&mut self) {
        for job in std::mem::take(&mut self.running) {
            self.end(job, Ending::Failed(Error::ShuttingDown));
        }
        for job in std::mem::take(&mut self.queue.jobs) {
            self.end(job, Ending::Failed(Error::ShuttingDown));
        }
        self.shared.exchange(0, 0, false, None);
    }

    /// Tells the callers' threads how things stand.
    fn publish(&self) {
        let mut status = self.shared.status();
        status.running = self.running.len();
        status.prefilling = self.running.iter().filter(|job| !job.is_decoding()).count();
        let page_bytes = self.pool.page_byte_count() as u64;
        let free = self.pool.free_page_count() as u64;
        status.memory.free_page_bytes = free * page_bytes;
        status.memory.running_page_bytes = (self.pool.page_count() as u64 - free) * page_bytes;
        status.memory.running_tail_bytes = (self.running.len() * self.pool.tail_bytes_per_sequence()) as u64;
    }

    fn spend(&self, part: impl FnOnce(&mut crate::StepProfile) -> &mut Duration, time: Duration) {
        *part(&mut self.shared.status().profile) += time;
    }
}
