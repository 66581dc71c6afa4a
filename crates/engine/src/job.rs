//! A request on its way through the service.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
    time::Instant,
};

use cachalot_model::Sequence;

use crate::{
    Constraint, Error, Event, Finish, FinishReason, Flow, MissReason, Request, RequestHandle, Sampler, Sink,
    TokenEvent, Usage,
    sampling::{History, log_probabilities},
    speculation::{Acceptance, Proposal},
};

/// A request with its answer so far. Queued jobs have no sequence.
pub(crate) struct Job {
    pub id: u64,
    pub priority: i32,
    pub group: Option<String>,
    pub deadline: Option<Instant>,
    pub borders: Vec<usize>,
    /// The prompt and the answer so far; the last token may not have been computed yet.
    pub tokens: Vec<u32>,
    pub prompt_length: usize,
    pub sequence: Option<Sequence>,
    /// Steps that failed with this job in them.
    pub failed_step_count: u32,
    /// A step with this job in it failed, and it has not drawn a token since: it runs alone.
    pub is_suspect: bool,
    pub submitted: Instant,
    pub admitted: Option<Instant>,
    sink: Box<dyn Sink>,
    handle: RequestHandle,
    is_unheard: bool,
    /// A token that was drawn and not told yet.
    untold: Option<TokenEvent>,
    sampler: Sampler,
    history: History,
    stop_tokens: Vec<u32>,
    logprob_count: Option<usize>,
    constraint: Option<Box<dyn Constraint>>,
    /// Tokens of prompt and answer at most.
    length_max: usize,
    first_token: Option<Instant>,
    reused: usize,
    interrupted: u32,
    /// How often guesses of this answer were right.
    pub acceptance: Acceptance,
    /// The last token and the guesses after it, while a step checks them; else empty.
    checked: Vec<u32>,
    /// Tokens that the step before left in the sequence, if it checked guesses.
    valid_length: Option<usize>,
}

/// Why and how a job leaves the service.
pub(crate) enum Ending {
    Finished(FinishReason, Option<u32>),
    Failed(Error),
}

/// See [`Job::parts`].
type Parts<'a> = (&'a mut Sequence, &'a [u32], &'a [u32], Option<&'a mut dyn Constraint>);

impl Ending {
    /// A name for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Ending::Finished(FinishReason::Stop, _) => "stop",
            Ending::Finished(FinishReason::Length, _) => "length",
            Ending::Finished(FinishReason::Cancelled, _) => "cancelled",
            Ending::Finished(FinishReason::Deadline, _) => "deadline",
            Ending::Failed(Error::Deadline { .. }) => "deadline",
            Ending::Failed(_) => "failed",
        }
    }
}

impl Job {
    pub fn new(request: Request, sink: Box<dyn Sink>, handle: RequestHandle, context: usize) -> Result<Self, Error> {
        let prompt_length = request.prompt.len();
        let answer_length_max = request.token_count_max.unwrap_or(context);
        let sampler = Sampler::new(request.sampling)?;
        let history = match sampler.options().adjusts() {
            true => History::new(&request.prompt),
            false => History::default(),
        };
        Ok(Job {
            id: handle.id,
            priority: request.priority,
            group: request.group,
            deadline: request.deadline,
            borders: request.borders,
            tokens: request.prompt,
            prompt_length,
            sequence: None,
            failed_step_count: 0,
            is_suspect: false,
            submitted: Instant::now(),
            admitted: None,
            sink,
            handle,
            is_unheard: false,
            untold: None,
            sampler,
            history,
            stop_tokens: request.stop_tokens,
            logprob_count: request.logprob_count,
            constraint: request.constraint,
            length_max: prompt_length.saturating_add(answer_length_max).min(context),
            first_token: None,
            reused: 0,
            interrupted: 0,
            acceptance: Acceptance::default(),
            checked: Vec::new(),
            valid_length: None,
        })
    }

    /// Tokens that the next steps have to compute; 1 while an answer is written.
    pub fn remaining(&self) -> usize {
        self.tokens.len() - self.sequence.as_ref().map_or(0, Sequence::len)
    }

    /// Whether the next step draws a token after computing only one.
    pub fn is_decoding(&self) -> bool {
        self.tokens.len() > self.prompt_length && self.remaining() == 1
    }

    /// The next position in the prompt after which the prefix cache shall remember the state: a border, a multiple of
    /// `interval` or the prompt's end. None once the prompt is computed.
    pub fn next_stop(&self, interval: usize) -> Option<usize> {
        let position = self.sequence.as_ref().map_or(0, Sequence::len);
        if position >= self.prompt_length {
            return None;
        }
        let borders = self.borders.iter().copied().filter(|border| *border > position);
        let regular = (position / interval + 1) * interval;
        borders.chain([regular, self.prompt_length]).min()
    }

    /// Tokens that this job can ever have.
    pub fn length_max(&self) -> usize {
        self.length_max
    }

    /// Whether it ends without a further token.
    pub fn ending(&self, now: Instant) -> Option<Ending> {
        if self.is_unheard || self.handle.cancelled.load(Ordering::Relaxed) {
            return Some(Ending::Finished(FinishReason::Cancelled, None));
        }
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return Some(match self.first_token {
                Some(_) => Ending::Finished(FinishReason::Deadline, None),
                None => Ending::Failed(Error::Deadline {
                    waited: now - self.submitted,
                }),
            });
        }
        (self.tokens.len() >= self.length_max).then_some(Ending::Finished(FinishReason::Length, None))
    }

    /// Tokens that may be guessed: the model draws one more after them.
    pub fn guess_count_max(&self) -> usize {
        self.length_max.saturating_sub(self.tokens.len() + 1)
    }

    /// What guesses need of the job.
    pub fn proposal(&mut self, count: usize) -> Option<Proposal<'_>> {
        Some(Proposal {
            sequence: self.sequence.as_mut()?,
            tokens: &self.tokens,
            count,
            sampler: &self.sampler,
            history: &self.history,
        })
    }

    /// Has the next step check guesses.
    pub fn set_guesses(&mut self, guesses: &[u32]) {
        self.checked.clear();
        if !guesses.is_empty() {
            self.checked.extend(self.tokens.last());
            self.checked.extend(guesses);
        }
    }

    /// The guesses that a step has checked.
    pub fn take_guesses(&mut self) -> Vec<u32> {
        let checked = std::mem::take(&mut self.checked);
        checked.get(1..).unwrap_or_default().to_vec()
    }

    /// Draws from the logits after the last token and after each guess, until a token is not what was guessed. Returns
    /// the number of right guesses.
    pub fn draw_checked(&mut self, rows: &mut [&mut [f32]], guesses: &[u32]) -> (usize, Option<Ending>) {
        let first = self.tokens.len();
        for (index, logits) in rows.iter_mut().enumerate() {
            self.valid_length = Some(first + index);
            match self.draw(logits) {
                Ok(None) => {}
                Ok(ending) => return (index, ending),
                Err(error) => return (index, Some(Ending::Failed(error))),
            }
            self.tell();
            let is_right = guesses
                .get(index)
                .is_some_and(|guess| self.tokens.last() == Some(guess));
            let is_wanted = !self.is_unheard && !self.handle.cancelled.load(Ordering::Relaxed);
            if !is_right || !is_wanted {
                return (index + usize::from(is_right), None);
            }
        }
        (guesses.len(), None)
    }

    /// Tokens at the start of the sequence that are the answer's own.
    pub fn computed_length(&self) -> usize {
        let length = self.sequence.as_ref().map_or(0, Sequence::len);
        self.valid_length.map_or(length, |valid| valid.min(length))
    }

    /// What a step needs of the job: its sequence, its tokens, the last of them with guesses, if there are any, and the
    /// constraint on the token after them.
    pub fn parts(&mut self) -> Option<Parts<'_>> {
        let constraint = self
            .constraint
            .as_mut()
            .map(|constraint| &mut **constraint as &mut dyn Constraint);
        self.valid_length = None;
        Some((self.sequence.as_mut()?, &self.tokens, &self.checked, constraint))
    }

    /// Tells the sink, once, that the job runs.
    pub fn admit(&mut self, now: Instant, reused: usize, missed: Option<MissReason>) {
        if self.admitted.is_some() {
            return;
        }
        self.admitted = Some(now);
        self.reused = reused.min(self.prompt_length);
        self.deliver(Event::Admitted {
            reused: self.reused,
            missed,
            prompt: self.prompt_length,
        });
    }

    /// Tells the sink how much of the prompt is computed, unless the answer has begun.
    pub fn report_prefill(&mut self) {
        let done = self.sequence.as_ref().map_or(0, Sequence::len);
        if self.first_token.is_none() {
            self.deliver(Event::Prefill {
                done,
                total: self.prompt_length,
            });
        }
    }

    /// Draws the next token, which [`Job::tell`] delivers. `logits` are changed.
    pub fn draw(&mut self, logits: &mut [f32]) -> Result<Option<Ending>, Error> {
        let position = self.tokens.len();
        let raw = self.logprob_count.map(|_| logits.to_vec());
        let mask = match &mut self.constraint {
            Some(constraint) => constraint.mask()?,
            None => None,
        };
        self.sampler.adjust(logits, &self.history, mask);
        let token = self.sampler.sample(logits, position)?;
        let (logprob, top) = match (self.logprob_count, raw) {
            (Some(count), Some(raw)) => {
                let (own, top) = log_probabilities(&raw, token, count).ok_or(Error::NonFinite { position })?;
                (Some(own), top)
            }
            _ => (None, Vec::new()),
        };
        if let Some(constraint) = &mut self.constraint {
            constraint.commit(token)?;
        }
        self.first_token.get_or_insert_with(Instant::now);
        self.is_suspect = false;
        if self.stop_tokens.contains(&token) {
            return Ok(Some(Ending::Finished(FinishReason::Stop, Some(token))));
        }
        self.tokens.push(token);
        if self.sampler.options().adjusts() {
            self.history.push(token);
        }
        self.untold = Some(TokenEvent { token, logprob, top });
        Ok(None)
    }

    /// Delivers the token that was drawn last. Apart from drawing, because a sink mostly wakes another thread: told one
    /// right after the other, all answers of a step wake it once.
    pub fn tell(&mut self) {
        if let Some(token) = self.untold.take() {
            self.deliver(Event::Token(token));
        }
    }

    /// Goes back to the queue without its sequence.
    pub fn interrupt(&mut self) {
        self.sequence = None;
        self.checked.clear();
        self.valid_length = None;
        self.interrupted += 1;
    }

    /// Takes its leave of the sink. The sequence's memory is free afterwards.
    pub fn end(mut self, ending: Ending) {
        self.sequence = None;
        self.tell();
        let event = match ending {
            Ending::Failed(error) => Event::Failed(error),
            Ending::Finished(reason, stop_token) => Event::Finished(Finish {
                reason,
                stop_token,
                usage: self.usage(stop_token),
            }),
        };
        self.is_unheard = false;
        self.deliver(event);
    }

    fn usage(&self, stop_token: Option<u32>) -> Usage {
        let now = Instant::now();
        let admitted = self.admitted.unwrap_or(now);
        let first_token = self.first_token.unwrap_or(now);
        Usage {
            prompt: self.prompt_length,
            reused: self.reused,
            generated: self.tokens.len() - self.prompt_length + usize::from(stop_token.is_some()),
            queued: admitted - self.submitted,
            prefill: first_token.saturating_duration_since(admitted),
            decode: now - first_token,
            interrupted: self.interrupted,
        }
    }

    fn deliver(&mut self, event: Event) {
        if self.is_unheard {
            return;
        }
        // A sink that panics is a listener that left; the steps of the others must go on.
        let flow = catch_unwind(AssertUnwindSafe(|| self.sink.event(event)));
        self.is_unheard = !matches!(flow, Ok(Flow::Continue));
    }
}
