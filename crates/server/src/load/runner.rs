//! Sends requests when they are due, and collects what becomes of them.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    End, LoadOptions, LoadReport, Pace, Progress,
    client::{Connection, Outcome, Target, exchange},
    random::Random,
    report::{Collector, Over},
    request::{Author, Sent},
    watch,
};
use crate::Error;

/// Longest time before a client leaves; the times are spread evenly on a logarithmic scale below it.
const LEAVING_SECONDS: (f64, f64) = (0.001, 3.0);

/// A client that was refused waits so long at most, whatever the server says.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Words for a token where the server does not tell: about those of English texts.
const WORDS_PER_TOKEN: f64 = 0.75;

const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Sends requests to a server until their end, or until `stop` becomes true, and waits for what becomes of them.
///
/// # Errors
/// [`Error::Url`] and [`Error::Unreachable`] for a server that cannot be used, [`Error::Load`] for options out of range.
pub fn run(options: &LoadOptions, stop: &AtomicBool, progress: &mut dyn FnMut(Progress)) -> Result<LoadReport, Error> {
    check(options)?;
    let target = Target::new(&options.url, options.api_key.as_deref())?;
    // One thread: what the generator takes is the server's loss where both are on one machine.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(Error::Threads)?;
    runtime.block_on(async {
        let author = Arc::new(introduce(options, &target).await?);
        let run = Arc::new(Run {
            target,
            author,
            options: options.clone(),
            origin: Instant::now(),
            sent_count: AtomicUsize::new(0),
            is_stopped: AtomicBool::new(false),
        });
        Ok(run.carry_out(stop, progress).await)
    })
}

fn check(options: &LoadOptions) -> Result<(), Error> {
    let wrong = |what, value: String, expected| Error::Load { what, value, expected };
    for (what, share) in [
        ("--shared-prefix", options.shared_prefix),
        ("--disconnect", options.disconnect),
        ("--malformed", options.malformed),
    ] {
        if !(0.0..=1.0).contains(&share) {
            return Err(wrong(what, share.to_string(), "a part of all, 0 to 1"));
        }
    }
    match options.pace {
        Pace::Arrivals(rate) if !(rate.is_finite() && rate > 0.0) => {
            Err(wrong("--rate", rate.to_string(), "requests a second, above 0"))
        }
        Pace::Connections(0) => Err(wrong("--connections", "0".to_owned(), "at least one connection")),
        _ if options.protocols.is_empty() => Err(wrong("--protocol", String::new(), "chat, responses or messages")),
        _ => Ok(()),
    }
}

/// Asks the server for its model and for the length of words.
async fn introduce(options: &LoadOptions, target: &Target) -> Result<Author, Error> {
    let unreachable = |reason| Error::Unreachable {
        url: options.url.clone(),
        reason,
    };
    let list = target.fetch("/v1/models", None).await.map_err(unreachable)?;
    let list: Value = serde_json::from_slice(&list).map_err(|error| unreachable(error.to_string()))?;
    let model = match (&options.model, list["data"][0]["id"].as_str()) {
        (Some(model), _) => model.clone(),
        (None, Some(model)) => model.to_owned(),
        (None, None) => return Err(unreachable("it lists no model".to_owned())),
    };
    let question = json!({ "model": model, "prompt": Author::sample() })
        .to_string()
        .into_bytes();
    let words_per_token = match target.fetch("/tokenize", Some(question)).await {
        Ok(bytes) => {
            let reply: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let count = reply["tokens"].as_array().map_or(0, Vec::len);
            if count == 0 {
                WORDS_PER_TOKEN
            } else {
                Author::sample_word_count() as f64 / count as f64
            }
        }
        Err(_) => WORDS_PER_TOKEN,
    };
    Ok(Author::new(options, model, words_per_token))
}

struct Run {
    target: Target,
    author: Arc<Author>,
    options: LoadOptions,
    origin: Instant,
    sent_count: AtomicUsize,
    is_stopped: AtomicBool,
}

impl Run {
    async fn carry_out(self: &Arc<Self>, stop: &AtomicBool, progress: &mut dyn FnMut(Progress)) -> LoadReport {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let watching = tokio::spawn(watch::watch(self.target.clone(), self.origin, Arc::clone(&samples)));
        let (sender, mut overs) = mpsc::unbounded_channel();
        match self.options.pace {
            Pace::Arrivals(rate) => drop(tokio::spawn(Arc::clone(self).arrive(rate, sender))),
            Pace::Connections(count) => {
                for index in 0..count {
                    tokio::spawn(Arc::clone(self).converse(index as u64, sender.clone()));
                }
                drop(sender);
            }
        }
        let mut collector = Collector::default();
        let mut over_count = 0;
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        loop {
            tokio::select! {
                over = overs.recv() => match over {
                    Some(over) => { over_count += 1; collector.take(over); }
                    None => break,
                },
                _ = ticks.tick() => {
                    progress(self.progress(over_count));
                    if stop.load(Ordering::Relaxed) {
                        self.is_stopped.store(true, Ordering::Relaxed);
                    }
                }
            }
        }
        let seconds = self.origin.elapsed().as_secs_f64();
        watching.abort();
        let mut report = collector.finish(seconds);
        report.url = self.target.url.clone();
        report.model = self.author.model().to_owned();
        report.server = std::mem::take(&mut *samples.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some((is_settled, last)) = watch::settle(&self.target, self.origin).await {
            report.is_settled = Some(is_settled);
            report.server.push(last);
        }
        report
    }

    fn progress(&self, over: u64) -> Progress {
        let (done, total) = match self.options.end {
            End::Requests(count) => (over, count as u64),
            End::Time(time) => (self.origin.elapsed().as_millis() as u64, time.as_millis() as u64),
        };
        Progress {
            over,
            total,
            done: done.min(total),
        }
    }

    /// Whether another request is to be sent; counts it.
    fn goes_on(&self) -> bool {
        if self.is_stopped.load(Ordering::Relaxed) {
            return false;
        }
        match self.options.end {
            End::Requests(count) => self.sent_count.fetch_add(1, Ordering::Relaxed) < count,
            End::Time(time) => self.origin.elapsed() < time,
        }
    }

    /// Requests that arrive by chance, each on a connection of its own.
    async fn arrive(self: Arc<Self>, rate: f64, overs: mpsc::UnboundedSender<Over>) {
        let mut random = Random::new(self.options.seed);
        let mut due = 0.0;
        while self.goes_on() {
            due += random.exponential() / rate;
            if let End::Time(time) = self.options.end
                && due >= time.as_secs_f64()
            {
                return;
            }
            let moment = Duration::from_secs_f64(due);
            tokio::time::sleep_until((self.origin + moment).into()).await;
            if self.is_stopped.load(Ordering::Relaxed) {
                return;
            }
            let mut own = Random::new(random.next());
            let run = Arc::clone(&self);
            let overs = overs.clone();
            tokio::spawn(async move {
                let (over, _) = run.one(&mut None, &mut own, moment).await;
                let _ = overs.send(over);
            });
        }
    }

    /// Requests one after the other.
    async fn converse(self: Arc<Self>, index: u64, overs: mpsc::UnboundedSender<Over>) {
        let mut random = Random::new(self.options.seed.wrapping_add(index << 20));
        let mut connection = None;
        while self.goes_on() {
            let due = self.origin.elapsed();
            let (over, pause) = self.one(&mut connection, &mut random, due).await;
            if overs.send(over).is_err() {
                return;
            }
            // Spread, so that those refused together do not come back together.
            tokio::time::sleep(pause.mul_f64(0.5 + random.unit())).await;
        }
    }

    /// One request, and how long to wait after it.
    async fn one(&self, connection: &mut Option<Connection>, random: &mut Random, due: Duration) -> (Over, Duration) {
        let sent = self.author.write(random);
        let outcome = if random.unit() < self.options.disconnect {
            self.leave(connection, &sent, random).await
        } else {
            let time_max = self.options.answer_time_max;
            let done = tokio::time::timeout(time_max, exchange(connection, &self.target, &sent)).await;
            done.unwrap_or_else(|_| Outcome::Failed("not over in time", format!("{} s", time_max.as_secs())))
        };
        let pause = match &outcome {
            Outcome::Refused {
                status: 429 | 503,
                retry_after,
                ..
            } => retry_after.unwrap_or(Duration::from_secs(1)).min(PAUSE_MAX),
            Outcome::Failed("not connected", _) => Duration::from_millis(200),
            _ => Duration::ZERO,
        };
        let over = Over {
            due,
            ended: self.origin.elapsed(),
            origin: self.origin,
            is_malformed: sent.is_malformed,
            outcome,
        };
        (over, pause)
    }

    /// Leaves at a random moment: within the request, or while the answer is awaited or read. A fast server may be done
    /// before.
    async fn leave(&self, connection: &mut Option<Connection>, sent: &Sent, random: &mut Random) -> Outcome {
        if random.below(4) == 0 {
            self.target.send_half(sent).await;
            return Outcome::Left;
        }
        let (soonest, latest) = LEAVING_SECONDS;
        let seconds = soonest * (latest / soonest).powf(random.unit());
        let exchange = exchange(connection, &self.target, sent);
        // The connection is held by what is dropped here when time is up.
        let done = tokio::time::timeout(Duration::from_secs_f64(seconds), exchange).await;
        done.unwrap_or(Outcome::Left)
    }
}
