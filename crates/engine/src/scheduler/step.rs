//! One step: rows of many jobs through the model, tokens to their sinks.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use cachalot_chip::ChipTransfer;
use cachalot_model::{Chunk, Outputs};

use crate::{
    Error, StepProfile,
    job::{Ending, Job},
};

use super::{ROLLBACK, Scheduler, rows};

/// Steps that may fail with a job in them before it is given up.
const FAILED_STEP_COUNT_MAX: u32 = 2;

impl Scheduler {
    pub(super) fn step(&mut self) {
        let started = Instant::now();
        let plan = self.plan();
        let planned = Instant::now();
        if plan.is_empty() {
            return;
        }
        let is_for_answers = self.is_for_answers(&plan);
        let guess_count = match is_for_answers {
            true => self.guess(&plan),
            false => 0,
        };
        let guessed = Instant::now();
        let outcome = self.compute(&plan);
        let computed = Instant::now();
        let row_count: usize = plan.iter().map(|(_, rows)| rows).sum::<usize>() + guess_count;
        match outcome {
            Ok(logits) if guess_count > 0 => {
                let guesses = self.draw_guessed(&plan, logits);
                self.note_answers(plan.len(), guesses, (guessed - planned, guessed.elapsed()));
                self.note_rates(0, plan.len() + guesses.1, guessed.elapsed());
            }
            Ok(logits) => {
                self.note_step(&plan, computed - planned);
                self.remember_stops(&plan);
                self.draw(&plan, logits);
                if is_for_answers {
                    self.note_answers(plan.len(), (0, 0), (Duration::ZERO, planned.elapsed()));
                }
            }
            Err(reason) => self.contain(&plan, &reason),
        }
        self.pace.observe(row_count, computed - guessed);
        let mut status = self.shared.status();
        status.step_count += 1;
        let StepProfile {
            schedule,
            model,
            sample,
            ..
        } = &mut status.profile;
        *schedule += planned - started;
        *model += computed - planned;
        *sample += computed.elapsed();
    }

    /// Jobs of the next step, by their positions among those running, each with its number of rows.
    fn plan(&mut self) -> Vec<(usize, usize)> {
        let mut wanted = self.wanted_rows();
        for (id, rows) in &mut wanted {
            match self.make_room(*id, *rows) {
                Ok(true) => {}
                Ok(false) => *rows = 0,
                Err(error) => {
                    *rows = 0;
                    let index = self.running.iter().position(|job| job.id == *id);
                    if let Some(job) = index.map(|index| self.running.remove(index)) {
                        self.end(job, Ending::Failed(error));
                    }
                }
            }
        }
        let rows_of = |job: &Job| wanted.iter().find(|(id, _)| *id == job.id).map_or(0, |(_, rows)| *rows);
        let rows = self.running.iter().map(rows_of).enumerate();
        rows.filter(|(_, rows)| *rows > 0).collect()
    }

    /// Jobs by id with the rows that they should get in the next step.
    fn wanted_rows(&mut self) -> Vec<(u64, usize)> {
        let mut candidates: Vec<&Job> = self.running.iter().collect();
        candidates.sort_by_key(|job| (std::cmp::Reverse(job.priority), job.id));
        let has_suspects = candidates.iter().any(|job| job.is_suspect);
        let has_others = candidates.iter().any(|job| !job.is_suspect);
        if has_suspects {
            self.is_suspects_turn = !self.is_suspects_turn || !has_others;
            let is_suspects_turn = self.is_suspects_turn;
            candidates.retain(|job| job.is_suspect == is_suspects_turn);
            if is_suspects_turn {
                // Alone, so that a request whose steps fail takes nobody with it again.
                candidates.truncate(1);
            }
        }
        let (decoding, prefilling): (Vec<&Job>, Vec<&Job>) = candidates.into_iter().partition(|job| job.is_decoding());
        let wanted: Vec<usize> = prefilling.iter().map(|job| job.remaining()).collect();
        let shares = rows::share(self.pace.prefill_row_count(decoding.len()), &wanted);
        let decoding = decoding.into_iter().map(|job| (job.id, 1));
        let prefilling = prefilling.iter().zip(shares);
        let prefilling = prefilling.map(|(job, rows)| (job.id, self.rows_to_stop(job, rows)));
        decoding.chain(prefilling).collect()
    }

    /// `rows`, but no further than to where the prefix cache shall remember the state.
    fn rows_to_stop(&self, job: &Job, rows: usize) -> usize {
        let stop = self
            .cache
            .as_ref()
            .and_then(|cache| job.next_stop(cache.snapshot_interval()));
        match stop {
            Some(stop) => rows.min(stop - (job.tokens.len() - job.remaining())),
            None => rows,
        }
    }

    /// Remembers the states of jobs that reached such a position.
    fn remember_stops(&mut self, plan: &[(usize, usize)]) {
        for (index, rows) in plan {
            let job = &self.running[*index];
            let Some(cache) = &self.cache else {
                return;
            };
            let length = job.tokens.len() - job.remaining();
            let is_stop = job.borders.contains(&length) || length.is_multiple_of(cache.snapshot_interval());
            let rollback = match length {
                length if length == job.prompt_length => ROLLBACK,
                length if length < job.prompt_length && is_stop && *rows > 0 => 0,
                _ => continue,
            };
            let job = self.running.swap_remove(*index);
            self.remember(&job, rollback, false);
            self.running.push(job);
            let last = self.running.len() - 1;
            self.running.swap(*index, last);
        }
    }

    /// Runs the model, and beside it the constraints of the tokens to come; a fault of the chip or a panic becomes a
    /// reason.
    fn compute(&mut self, plan: &[(usize, usize)]) -> Result<Vec<f32>, String> {
        let (model, pool, running) = (&self.model, &mut self.pool, &mut self.running);
        let mut rows = vec![0; running.len()];
        plan.iter().for_each(|(index, count)| rows[*index] = *count);
        let mut chunks: Vec<Chunk<'_>> = Vec::with_capacity(plan.len());
        let mut constraints = Vec::new();
        for (job, rows) in running.iter_mut().zip(rows).filter(|(_, rows)| *rows > 0) {
            let (sequence, tokens, checked, constraint) = job.parts().ok_or("a running job has no sequence")?;
            let range = sequence.len()..sequence.len() + rows;
            let is_last = range.end == tokens.len();
            constraints.extend(constraint.filter(|_| is_last));
            let (tokens, outputs) = match (checked.is_empty(), is_last) {
                (false, _) => (checked, Outputs::All),
                (true, true) => (&tokens[range], Outputs::Last),
                (true, false) => (&tokens[range], Outputs::None),
            };
            chunks.push(Chunk {
                sequence,
                tokens,
                outputs,
            });
        }
        let run = || -> Result<Vec<f32>, Error> {
            match model.step(pool, &mut chunks)? {
                Some(logits) => Ok(model.chip().read_f32(&logits)?),
                None => Ok(model.chip().synchronize().map(|()| Vec::new())?),
            }
        };
        let outcome = if constraints.is_empty() {
            catch_unwind(AssertUnwindSafe(run))
        } else {
            std::thread::scope(|scope| {
                // Masks stay in the constraints, and so do errors: both are asked for again when the token is drawn.
                let masks = scope.spawn(|| constraints.into_iter().for_each(|constraint| drop(constraint.mask())));
                let outcome = catch_unwind(AssertUnwindSafe(run));
                let _ = masks.join();
                outcome
            })
        };
        match outcome {
            Ok(Ok(logits)) => Ok(logits),
            Ok(Err(error)) => Err(error.to_string()),
            Err(panic) => Err(format!("a panic: {}", panic_message(&*panic))),
        }
    }

    /// Draws a token for each job whose last row was computed.
    fn draw(&mut self, plan: &[(usize, usize)], mut logits: Vec<f32>) {
        let vocabulary = self.model.config().vocab_size();
        let mut rows = logits.chunks_exact_mut(vocabulary);
        let mut ended = Vec::new();
        for (index, _) in plan {
            let job = &mut self.running[*index];
            job.report_prefill();
            if job.remaining() > 0 {
                continue;
            }
            let Some(logits) = rows.next() else {
                break;
            };
            // Constraints are code of others.
            match catch_unwind(AssertUnwindSafe(|| job.draw(logits))) {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(ending))) => ended.push((*index, ending)),
                Ok(Err(error)) => ended.push((*index, Ending::Failed(error))),
                Err(panic) => {
                    let reason = format!("a panic: {}", panic_message(&*panic));
                    let what = "the constraint";
                    ended.push((*index, Ending::Failed(Error::Constraint { what, reason })));
                }
            }
        }
        self.running.iter_mut().for_each(Job::tell);
        // From the back, so that positions stay right.
        for (index, ending) in ended.into_iter().rev() {
            let job = self.running.remove(index);
            self.end(job, ending);
        }
    }

    /// After a failed step: its jobs lost their state and are replayed, each alone, or given up.
    fn contain(&mut self, plan: &[(usize, usize)], reason: &str) {
        self.shared.status().failed_step_count += 1;
        for (index, _) in plan.iter().rev() {
            let mut job = self.running.remove(*index);
            job.failed_step_count += 1;
            job.is_suspect = true;
            if job.failed_step_count >= FAILED_STEP_COUNT_MAX {
                let (reason, attempts) = (reason.to_owned(), job.failed_step_count);
                self.end(job, Ending::Failed(Error::StepFailed { reason, attempts }));
            } else {
                job.interrupt();
                self.queue.push(job);
            }
        }
    }

    fn note_step(&mut self, plan: &[(usize, usize)], time: Duration) {
        let (mut prefilled, mut decoded) = (0, 0);
        for (index, rows) in plan {
            let job = &self.running[*index];
            self.queue.charge(&job.group, *rows);
            // The row has been computed, so a job that was writing its answer has nothing left.
            let was_decoding = *rows == 1 && job.tokens.len() > job.prompt_length && job.remaining() == 0;
            *(if was_decoding { &mut decoded } else { &mut prefilled }) += rows;
        }
        self.note_rates(prefilled, decoded, time);
    }

    /// Counts tokens of prompts and answers.
    fn note_rates(&self, prefilled: usize, decoded: usize, time: Duration) {
        let mut status = self.shared.status();
        status.prefill_token_count += prefilled as u64;
        status.decode_token_count += decoded as u64;
        let seconds = time.as_secs_f64().max(1e-9);
        let blend = |mean: &mut f64, count: usize| {
            if count > 0 {
                let found = count as f64 / seconds;
                *mean = if *mean == 0.0 { found } else { 0.9 * *mean + 0.1 * found };
            }
        };
        blend(&mut status.prefill_tokens_per_second, prefilled);
        blend(&mut status.decode_tokens_per_second, decoded);
    }
}

pub(super) fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("of unknown cause")
}
