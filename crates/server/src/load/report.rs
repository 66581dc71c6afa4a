//! What was measured.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::{client::Outcome, stream::StreamReader};

/// Details of failures that are kept of each kind.
const EXAMPLE_COUNT_MAX: usize = 3;

/// A run of the load generator. Times in seconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LoadReport {
    /// The server.
    pub url: String,
    /// Its model.
    pub model: String,
    /// From the first request to the end of the last.
    pub seconds: f64,
    /// Requests sent.
    pub sent: u64,
    /// Whole answers.
    pub answered: u64,
    /// Requests whose client left before the end.
    pub left: u64,
    /// Malformed requests that were refused as such.
    pub malformed_refused: u64,
    /// Other refusals, by status and type.
    pub refused: BTreeMap<String, u64>,
    /// What is neither an answer nor a refusal in the protocol's form, by kind.
    pub failed: BTreeMap<String, u64>,
    /// Details of some of these.
    pub failures: Vec<String>,
    /// From the request that was due to the first piece of the answer.
    pub first_token: Distribution,
    /// Time of a token after the first, the mean of each answer.
    pub per_token: Distribution,
    /// From the request that was due to the end of the answer.
    pub whole: Distribution,
    /// Tokens of the prompts that were answered, as the server counts.
    pub prompt_tokens: u64,
    /// Those of them that the server reused.
    pub reused_tokens: u64,
    /// Tokens of the answers.
    pub output_tokens: u64,
    /// What happened in each second.
    pub timeline: Vec<Second>,
    /// What the server said of itself meanwhile, if it has Cachalot's metrics.
    pub server: Vec<ServerSample>,
    /// Whether the server had nothing left to do within half a minute after the end, if it says so.
    pub is_settled: Option<bool>,
}

/// A second of a run.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Second {
    /// Requests that were sent in it.
    pub sent: u64,
    /// Requests that were refused or failed and had been sent in it.
    pub not_answered: u64,
    /// Tokens of answers that came in it, spread evenly over each answer.
    pub output_tokens: f64,
}

/// What the server said of itself.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ServerSample {
    /// Seconds since the run began.
    pub seconds: f64,
    /// Requests that waited.
    pub queued: f64,
    /// Requests that were computed.
    pub running: f64,
    /// Connections open.
    pub connections: f64,
    /// Memory of the process in the machine's memory, in bytes.
    pub resident_bytes: f64,
}

/// How durations are spread, in seconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Distribution {
    /// Durations.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Half took no longer.
    pub p50: f64,
    /// Nine of ten took no longer.
    pub p90: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
    /// All percentiles, from the first to the hundredth.
    pub percentiles: Vec<f64>,
}

impl Distribution {
    /// Of durations in any order.
    pub fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let count = seconds.len();
        if count == 0 {
            return Distribution::default();
        }
        // The smallest duration that so many of a hundred do not exceed.
        let percentile = |percent: usize| seconds[(percent * count).div_ceil(100).max(1) - 1];
        Distribution {
            count,
            mean: seconds.iter().sum::<f64>() / count as f64,
            p50: percentile(50),
            p90: percentile(90),
            p99: percentile(99),
            max: seconds[count - 1],
            percentiles: (1..=100).map(percentile).collect(),
        }
    }
}

/// Collects outcomes.
#[derive(Debug, Default)]
pub struct Collector {
    report: LoadReport,
    first: Vec<f64>,
    per_token: Vec<f64>,
    whole: Vec<f64>,
}

/// A request that is over. Times since the run began.
#[derive(Debug)]
pub struct Over {
    pub due: Duration,
    pub ended: Duration,
    /// Since the run began, for the reader's moments.
    pub origin: std::time::Instant,
    pub is_malformed: bool,
    pub outcome: Outcome,
}

impl Collector {
    /// Counts a request.
    pub fn take(&mut self, over: Over) {
        self.report.sent += 1;
        self.second(over.due).sent += 1;
        match over.outcome {
            Outcome::Answered(ref reader) => self.answer(&over, reader),
            Outcome::Left => self.report.left += 1,
            Outcome::Refused { status, .. } if over.is_malformed && (400..429).contains(&status) => {
                self.report.malformed_refused += 1;
            }
            Outcome::Refused { kind, status, .. } if (500..503).contains(&status) => {
                self.second(over.due).not_answered += 1;
                *self
                    .report
                    .failed
                    .entry(format!("fault of the server: {kind}"))
                    .or_default() += 1;
            }
            Outcome::Refused { kind, .. } => {
                self.second(over.due).not_answered += 1;
                *self.report.refused.entry(kind).or_default() += 1;
            }
            Outcome::Failed(kind, details) => {
                self.second(over.due).not_answered += 1;
                let count = self.report.failed.entry(kind.to_owned()).or_default();
                *count += 1;
                if *count <= EXAMPLE_COUNT_MAX as u64 {
                    self.report.failures.push(format!("{kind}: {details}"));
                }
            }
        }
    }

    fn answer(&mut self, over: &Over, reader: &StreamReader) {
        let report = &mut self.report;
        report.answered += 1;
        report.prompt_tokens += reader.prompt_tokens;
        report.reused_tokens += reader.reused_tokens;
        let token_count = reader.output_tokens.unwrap_or(0);
        report.output_tokens += token_count;
        self.whole.push((over.ended.saturating_sub(over.due)).as_secs_f64());
        let (Some(first), Some(last)) = (reader.first, reader.last) else {
            return;
        };
        let (first, last) = (first.duration_since(over.origin), last.duration_since(over.origin));
        self.first.push(first.saturating_sub(over.due).as_secs_f64());
        let span = last.saturating_sub(first).as_secs_f64();
        if token_count > 1 {
            self.per_token.push(span / (token_count - 1) as f64);
        }
        self.spread(first.as_secs_f64(), last.as_secs_f64(), token_count as f64);
    }

    /// Puts tokens evenly into the seconds between two moments.
    fn spread(&mut self, first: f64, last: f64, token_count: f64) {
        let (begin, end) = (first.floor() as u64, last.floor() as u64);
        let span = last - first;
        for second in begin..=end {
            let from = first.max(second as f64);
            let to = last.min((second + 1) as f64);
            let share = if span > 0.0 { (to - from).max(0.0) / span } else { 1.0 };
            self.second(Duration::from_secs(second)).output_tokens += share * token_count;
        }
    }

    fn second(&mut self, moment: Duration) -> &mut Second {
        let index = moment.as_secs() as usize;
        if self.report.timeline.len() <= index {
            self.report.timeline.resize(index + 1, Second::default());
        }
        &mut self.report.timeline[index]
    }

    /// The report of a run that took `seconds`.
    pub fn finish(self, seconds: f64) -> LoadReport {
        LoadReport {
            seconds,
            first_token: Distribution::of(self.first),
            per_token: Distribution::of(self.per_token),
            whole: Distribution::of(self.whole),
            ..self.report
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        // numpy.percentile([1..10], [50, 90, 99], method="inverted_cdf") is 5, 9, 10.
        let found = Distribution::of((1..=10).rev().map(f64::from).collect());
        assert_eq!(
            (found.p50, found.p90, found.p99, found.max, found.mean),
            (5.0, 9.0, 10.0, 10.0, 5.5)
        );
        assert_eq!((found.percentiles.len(), found.percentiles[99]), (100, 10.0));
        assert_eq!(Distribution::of(Vec::new()).count, 0);
    }

    #[test]
    fn tokens_are_spread_over_seconds() {
        let mut collector = Collector::default();
        collector.spread(0.5, 2.5, 8.0);
        collector.spread(1.2, 1.2, 1.0);
        let tokens: Vec<f64> = collector
            .report
            .timeline
            .iter()
            .map(|second| second.output_tokens)
            .collect();
        assert_eq!(tokens, [2.0, 5.0, 2.0]);
    }
}
