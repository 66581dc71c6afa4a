//! The front of the engine: requests in, events out.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use cachalot_model::{Model, StateOptions};

use crate::{
    CacheOptions, Error, Request, RequestHandle, ServiceStatus, Sink, Speculation,
    cache::{self, PrefixCache},
    job::Job,
    scheduler::Scheduler,
    speculation,
};

/// Sizes and limits of a [`Service`].
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// Tokens that one sequence may have. Default: the model's context.
    pub context: Option<usize>,
    /// Tokens that the state memory holds, all sequences and the prefix cache together. Default: twice the context. Chips
    /// that share the host's memory commit it when it is used.
    pub token_count_max: Option<usize>,
    /// Sequences that run at once. Default 16.
    pub sequence_count_max: usize,
    /// Rows of a step. Default 512.
    pub step_row_count_max: usize,
    /// How long a step should take while answers are being written: prompts are computed in pieces that keep to it.
    /// Default 250 ms.
    pub step_time_target: Duration,
    /// Requests that may wait. Default 256.
    pub queue_length_max: usize,
    /// The prefix cache, or none to compute every prompt from its start. Default: in memory only.
    pub cache: Option<CacheOptions>,
    /// Guesses of the model's drafter, if it was loaded ([`ModelOptions::drafter`](cachalot_model::ModelOptions)).
    pub speculation: Speculation,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        ServiceOptions {
            context: None,
            token_count_max: None,
            sequence_count_max: 16,
            step_row_count_max: 512,
            step_time_target: Duration::from_millis(250),
            queue_length_max: 256,
            cache: Some(CacheOptions::default()),
            speculation: Speculation::default(),
        }
    }
}

/// A model that answers many requests at once.
///
/// One thread runs steps; each takes a row of every answer being written and pieces of prompts (continuous batching).
/// Answers do not depend on what else is computed. Dropping the service ends the thread; requests that are not finished
/// hear [`Event::Failed`](crate::Event::Failed) with [`Error::ShuttingDown`].
pub struct Service {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    vocabulary: usize,
    /// Token that stands for an image, in models that know one.
    image_token: Option<u32>,
    context: usize,
    queue_length_max: usize,
}

/// What the callers' threads and the engine's thread have in common.
pub(crate) struct Shared {
    inbox: Mutex<Inbox>,
    /// Signals a change of the inbox to the engine's thread.
    arrived: Condvar,
    /// Signals to [`Service::drain`] that nothing is left to do.
    idle: Condvar,
    next_id: AtomicU64,
    pub status: Mutex<ServiceStatus>,
}

#[derive(Default)]
struct Inbox {
    jobs: Vec<Job>,
    /// Jobs that the engine's thread holds but has not admitted.
    waiting: usize,
    /// Jobs that the engine's thread computes.
    running: usize,
    is_draining: bool,
    is_stopping: bool,
    is_cancel_requested: bool,
}

/// What the engine's thread finds in the inbox.
pub(crate) struct Arrivals {
    pub jobs: Vec<Job>,
    pub is_stopping: bool,
}

impl Service {
    /// Takes the state memory and starts the thread.
    ///
    /// # Errors
    /// [`Error::Model`] if the state memory cannot be had, [`Error::Thread`].
    pub fn start(model: Model, options: ServiceOptions) -> Result<Service, Error> {
        let sequence_count_max = options.sequence_count_max.max(1);
        let context = options.context.unwrap_or(usize::MAX).min(model.config().context());
        let pool = model.new_state(&StateOptions {
            sequence_count_max,
            token_count_max: Some(options.token_count_max.unwrap_or(context.saturating_mul(2))),
            // Every answer being written has a row in every step.
            step_row_count_max: options.step_row_count_max.max(sequence_count_max),
            ..speculation::state_options(&model, options.speculation)
        })?;
        let context = context.min(pool.context());
        let (vocabulary, image_token) = (model.config().vocab_size(), model.image_token());
        let shared = Arc::new(Shared {
            inbox: Mutex::default(),
            arrived: Condvar::new(),
            idle: Condvar::new(),
            next_id: AtomicU64::new(1),
            status: Mutex::default(),
        });
        let queue_length_max = options.queue_length_max;
        let cache = options.cache.clone().map(|options| {
            let identity = cache::identity(&model, &pool);
            PrefixCache::new(options, identity, &pool)
        });
        let scheduler = Scheduler::new(model, pool, cache, &options, Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || scheduler.run())
            .map_err(Error::Thread)?;
        Ok(Service {
            shared,
            thread: Some(thread),
            vocabulary,
            image_token,
            context,
            queue_length_max,
        })
    }

    /// Queues a request. `sink` hears what becomes of it, unless it is refused here.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`], [`Error::PromptTooLong`], [`Error::Sampling`], [`Error::Model`] for a token outside the
    /// vocabulary, [`Error::Image`], [`Error::QueueFull`], [`Error::ShuttingDown`].
    pub fn submit(&self, request: Request, sink: Box<dyn Sink>) -> Result<RequestHandle, Error> {
        self.check(&request)?;
        let handle = RequestHandle {
            id: self.shared.next_id.fetch_add(1, Ordering::Relaxed),
            cancelled: Arc::new(AtomicBool::new(false)),
            wake: Arc::downgrade(&self.shared),
        };
        let job = Job::new(request, sink, handle.clone(), self.context)?;
        let mut inbox = self.shared.inbox();
        if inbox.is_draining || inbox.is_stopping {
            return Err(Error::ShuttingDown);
        }
        let waiting = inbox.waiting + inbox.jobs.len();
        if waiting >= self.queue_length_max {
            let retry_after = self.shared.status().retry_after();
            return Err(Error::QueueFull { waiting, retry_after });
        }
        inbox.jobs.push(job);
        drop(inbox);
        self.shared.arrived.notify_one();
        Ok(handle)
    }

    /// Tokens that prompt and answer may have together.
    pub fn context(&self) -> usize {
        self.context
    }

    /// What the service does and has done.
    pub fn status(&self) -> ServiceStatus {
        let mut status = self.shared.status().clone();
        let inbox = self.shared.inbox();
        status.waiting = inbox.waiting + inbox.jobs.len();
        status.is_draining = inbox.is_draining;
        status
    }

    /// Takes no more requests and waits until all are finished, or for `patience`. Those that are left can be cancelled,
    /// or end with the service.
    pub fn drain(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut inbox = self.shared.inbox();
        inbox.is_draining = true;
        while inbox.jobs.len() + inbox.waiting + inbox.running > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.idle.wait_timeout(inbox, left);
            inbox = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }

    fn check(&self, request: &Request) -> Result<(), Error> {
        if request.prompt.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if request.prompt.len() >= self.context {
            return Err(Error::PromptTooLong {
                length: request.prompt.len(),
                context: self.context,
            });
        }
        let vocabulary = self.vocabulary;
        if let Some(token) = request.prompt.iter().find(|token| **token as usize >= vocabulary) {
            return Err(Error::Model(cachalot_model::Error::Token {
                token: *token,
                vocabulary,
            }));
        }
        match self.image_token.filter(|token| request.prompt.contains(token)) {
            Some(token) => Err(Error::Image { token }),
            None => Ok(()),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.inbox().is_stopping = true;
        self.shared.arrived.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn status(&self) -> MutexGuard<'_, ServiceStatus> {
        self.status.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Wakes the engine's thread: a request was cancelled.
    pub fn notify_cancelled(&self) {
        self.inbox().is_cancel_requested = true;
        self.arrived.notify_one();
    }

    /// Tells how many jobs wait and run, and takes new ones. Without work it waits for some, at most until `deadline`.
    pub fn exchange(&self, waiting: usize, running: usize, may_wait: bool, deadline: Option<Instant>) -> Arrivals {
        let mut inbox = self.inbox();
        (inbox.waiting, inbox.running) = (waiting, running);
        if waiting + running + inbox.jobs.len() == 0 {
            self.idle.notify_all();
        }
        while may_wait && inbox.jobs.is_empty() && !inbox.is_stopping && !inbox.is_cancel_requested {
            let Some(deadline) = deadline else {
                inbox = self
                    .arrived
                    .wait(inbox)
                    .unwrap_or_else(|poisoned| poisoned.into_inner());
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.arrived.wait_timeout(inbox, left);
            inbox = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        inbox.is_cancel_requested = false;
        let jobs = std::mem::take(&mut inbox.jobs);
        inbox.waiting += jobs.len();
        Arrivals {
            jobs,
            is_stopping: inbox.is_stopping,
        }
    }
}
