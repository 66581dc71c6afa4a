//! Steps that check guesses: several rows of an answer at once, of which the right ones are kept.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use crate::{
    Error,
    job::{Ending, Job},
    speculation::{Speculated, propose},
};

use super::{Scheduler, step::panic_message};

impl Scheduler {
    /// Whether a step only writes answers, so that it tells what they cost and may have guesses.
    pub(super) fn is_for_answers(&self, plan: &[(usize, usize)]) -> bool {
        let jobs = plan.iter().map(|(index, _)| &self.running[*index]);
        self.speculator.is_possible() && jobs.into_iter().all(|job| job.is_decoding() && !job.is_suspect)
    }

    /// Guesses tokens for the jobs of a step; returns how many.
    pub(super) fn guess(&mut self, plan: &[(usize, usize)]) -> usize {
        let mut room = self.pool.step_row_count_max().saturating_sub(plan.len());
        let requests: Vec<_> = plan
            .iter()
            .map(|(index, _)| {
                let job = &self.running[*index];
                (job.acceptance, job.guess_count_max())
            })
            .collect();
        let decision = self.speculator.decide(&requests);
        let (mut proposals, mut guessing) = (Vec::new(), Vec::new());
        let mut counts = vec![0; self.running.len()];
        for ((index, _), count) in plan.iter().zip(&decision.counts) {
            counts[*index] = (*count).min(room);
            room -= counts[*index];
        }
        for (index, job) in self
            .running
            .iter_mut()
            .enumerate()
            .filter(|(index, _)| counts[*index] > 0)
        {
            // Guesses are not worth the pages of others.
            if let Some(sequence) = &mut job.sequence
                && self.pool.reserve(sequence, sequence.len() + 1 + counts[index]).is_ok()
                && let Some(proposal) = job.proposal(counts[index])
            {
                proposals.push(proposal);
                guessing.push(index);
            }
        }
        if proposals.is_empty() {
            return 0;
        }
        let (model, pool) = (&self.model, &mut self.pool);
        let survival_min = decision.survival_min;
        let outcome = catch_unwind(AssertUnwindSafe(|| propose(model, pool, proposals, survival_min)));
        let Ok(Ok(guesses)) = outcome else {
            // The sequences are as they were, so the answers go on without.
            self.speculator.disable();
            return 0;
        };
        let mut count = 0;
        for (index, guesses) in guessing.into_iter().zip(guesses) {
            count += guesses.len();
            self.running[index].set_guesses(&guesses);
        }
        count
    }

    /// Draws tokens from the rows of a step with guesses, as long as they are what was guessed, and forgets the rest.
    pub(super) fn draw_guessed(&mut self, plan: &[(usize, usize)], mut logits: Vec<f32>) -> (usize, usize) {
        let vocabulary = self.model.config().vocab_size();
        let mut rows = logits.chunks_exact_mut(vocabulary);
        let (mut ended, mut drafted, mut accepted) = (Vec::new(), 0, 0);
        for (index, _) in plan {
            let job = &mut self.running[*index];
            let guesses = job.take_guesses();
            let mut job_rows: Vec<&mut [f32]> = rows.by_ref().take(1 + guesses.len()).collect();
            // Constraints are code of others.
            let outcome = catch_unwind(AssertUnwindSafe(|| job.draw_checked(&mut job_rows, &guesses)));
            let (kept, ending) = match outcome {
                Ok(outcome) => outcome,
                Err(panic) => {
                    let reason = format!("a panic: {}", panic_message(&*panic));
                    let what = "the constraint";
                    (0, Some(Ending::Failed(Error::Constraint { what, reason })))
                }
            };
            self.speculator.note_request(&mut job.acceptance, guesses.len(), kept);
            (drafted, accepted) = (drafted + guesses.len(), accepted + kept);
            let ending = ending.or_else(|| forget_rest(job));
            ended.extend(ending.map(|ending| (*index, ending)));
        }
        // From the back, so that positions stay right.
        for (index, ending) in ended.into_iter().rev() {
            let mut job = self.running.remove(index);
            // What is remembered of a finished answer has to be its tokens.
            let failure = forget_rest(&mut job);
            self.end(job, failure.unwrap_or(ending));
        }
        (drafted, accepted)
    }

    /// Takes note of what a step for answers took.
    pub(super) fn note_answers(&mut self, request_count: usize, guesses: (usize, usize), times: (Duration, Duration)) {
        let ((drafted, accepted), (draft_time, step_time)) = (guesses, times);
        match drafted {
            0 => self.speculator.note_plain(request_count, step_time),
            _ => self.speculator.note_speculated(&Speculated {
                request_count,
                drafted,
                accepted,
                draft_time,
                step_time,
            }),
        }
    }
}

/// Shortens a job's sequence to the tokens that were drawn.
fn forget_rest(job: &mut Job) -> Option<Ending> {
    let length = job.computed_length();
    let sequence = job.sequence.as_mut()?;
    match sequence.len() > length {
        true => sequence
            .roll_back(length)
            .err()
            .map(|error| Ending::Failed(error.into())),
        false => None,
    }
}
