//! A load generator: requests that arrive by chance, or many connections that misbehave.
//!
//! Open loop ([`Pace::Arrivals`]): requests arrive as a Poisson process, whatever the server does, and times count from
//! the arrival that was due; a slow server cannot slow its own measurement down. Closed loop ([`Pace::Connections`]):
//! each connection sends a request, waits for what becomes of it, and sends the next; some leave at a random moment,
//! some send what is no request.

mod client;
mod mix;
mod random;
mod report;
mod request;
mod runner;
mod stream;
mod watch;

use std::time::Duration;

pub use mix::LengthMix;
pub use report::{Distribution, LoadReport, Second, ServerSample};
pub use runner::run;

use crate::Protocol;

/// What is asked of a server.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The server, such as `http://127.0.0.1:8000`.
    pub url: String,
    /// Key to be sent, if the server wants one.
    pub api_key: Option<String>,
    /// The model's name; the first one that the server lists without it.
    pub model: Option<String>,
    /// Protocols, each for an equal part of the requests. Completions are not among them.
    pub protocols: Vec<Protocol>,
    /// When requests are sent.
    pub pace: Pace,
    /// When no more requests are sent.
    pub end: End,
    /// Tokens of prompts, about.
    pub prompt_lengths: LengthMix,
    /// Tokens of answers at most; a model that ends earlier does.
    pub output_lengths: LengthMix,
    /// Part of each prompt that all of its length have in common, 0 to 1; it is sent as a system prompt.
    pub shared_prefix: f64,
    /// Part of the requests whose client leaves at a random moment, 0 to 1.
    pub disconnect: f64,
    /// Part of the requests that are none, 0 to 1.
    pub malformed: f64,
    /// Time for a whole answer.
    pub answer_time_max: Duration,
    /// Same seed, same requests at the same times.
    pub seed: u64,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// By chance, so many a second in the mean.
    Arrivals(f64),
    /// One after the other on each of so many connections.
    Connections(usize),
}

/// When no more requests are sent; those under way are waited for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// After so many.
    Requests(usize),
    /// After so long.
    Time(Duration),
}

/// What was done so far.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Requests that are over.
    pub over: u64,
    /// Requests in all, or milliseconds in all.
    pub total: u64,
    /// How much of `total` is done.
    pub done: u64,
}
