//! `cachalot bench-serve`: how a server answers under load.

mod child;
mod plot;
mod text;

use std::{path::PathBuf, time::Duration};

use cachalot_planner::svg;
use cachalot_server::{
    Protocol,
    load::{self, End, LengthMix, LoadOptions, LoadReport, Pace},
};
use clap::{Args, ValueEnum};

use crate::{error::Error, interrupt::Cooperation, numbers::parse_token_count, progress::LateBar};
use child::Child;

/// Load a server with requests and measure how it answers.
///
/// Requests arrive by chance (a Poisson process), whatever the server does, and times count from the moment at which a
/// request was due. With --connections, so many clients send one request after the other instead; --disconnect and
/// --malformed let some of them misbehave. Answers are checked against their protocols. Without --url, a server is
/// started on a free port; what follows `--` are its options.
#[derive(Args, Debug)]
pub struct BenchServeArguments {
    /// Server to load, such as http://127.0.0.1:8000 [default: one that is started, and stopped afterwards]
    #[arg(long, value_name = "URL", conflicts_with = "serve_options")]
    url: Option<String>,

    /// Model: what the started server loads, or the name under which --url knows it [default: built-in, or its first]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,

    /// Key that the server asks for [default: the environment variable CACHALOT_API_KEY]
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,

    /// Protocols of the requests, by turns of chance
    #[arg(long, value_name = "PROTOCOLS", default_value = "chat", value_delimiter = ',')]
    protocol: Vec<ProtocolName>,

    /// Requests a second, in the mean
    #[arg(
        long,
        value_name = "PER_SECOND",
        default_value_t = 2.0,
        conflicts_with = "connections"
    )]
    rate: f64,

    /// Instead: connections on which one request follows the other
    #[arg(long, value_name = "COUNT")]
    connections: Option<usize>,

    /// Requests in all [default: 100]
    #[arg(long, value_name = "COUNT", conflicts_with = "duration")]
    requests: Option<usize>,

    /// Time in which requests are sent, such as 30s, 10m or 1h
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    duration: Option<Duration>,

    /// Lengths of prompts in tokens, each with its part of the requests
    #[arg(long, value_name = "LENGTHS", default_value = "128", value_parser = parse_mix)]
    prompt: LengthMix,

    /// Lengths of answers in tokens at most; a model may end earlier
    #[arg(long, value_name = "LENGTHS", default_value = "64", value_parser = parse_mix)]
    output: LengthMix,

    /// Part of each prompt that is a system prompt which all requests of this length have in common, 0 to 1
    #[arg(long, value_name = "PART", default_value_t = 0.0)]
    shared_prefix: f64,

    /// Part of the requests whose client leaves at a random moment, 0 to 1
    #[arg(long, value_name = "PART", default_value_t = 0.0)]
    disconnect: f64,

    /// Part of the requests that are none, 0 to 1
    #[arg(long, value_name = "PART", default_value_t = 0.0)]
    malformed: f64,

    /// Seconds for an answer, waiting included
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    request_timeout: u64,

    /// Seed of arrivals and requests
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,

    /// Write everything as JSON; `-` prints it instead of the tables
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Draw the distribution of times, and throughput and the server's state over time
    #[arg(long, value_name = "OUT.svg")]
    plot: Option<PathBuf>,

    /// Options of the started server, such as `-- --parallel 32`
    #[arg(last = true, value_name = "SERVE OPTIONS")]
    serve_options: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProtocolName {
    /// /v1/chat/completions
    Chat,
    /// /v1/responses
    Responses,
    /// /v1/messages
    Messages,
}

pub fn run(arguments: &BenchServeArguments) -> Result<(), Error> {
    let cooperation = Cooperation::begin();
    let child = match &arguments.url {
        Some(_) => None,
        None => Some(Child::start(arguments.model.as_deref(), &arguments.serve_options)?),
    };
    let url = match (&arguments.url, &child) {
        (Some(url), _) => url.clone(),
        (None, Some(child)) => child.url().to_owned(),
        (None, None) => unreachable!("one of the two is there"),
    };
    let bar = LateBar::counting("loading the server", arguments.unit());
    let report = load::run(&arguments.options(url), cooperation.flag(), &mut |progress| {
        let scale = arguments.progress_scale();
        bar.set(progress.done / scale, progress.total / scale);
    })?;
    drop(bar);
    drop(child);
    show(arguments, &report)?;
    match (cooperation.is_raised(), text::faults(&report)) {
        (true, _) => Err(Error::Interrupted {
            remedy: "; what was measured until then is above".to_owned(),
        }),
        (false, Some(what)) => Err(Error::BadServer { what }),
        (false, None) => Ok(()),
    }
}

impl BenchServeArguments {
    fn options(&self, url: String) -> LoadOptions {
        let protocol = |name: &ProtocolName| match name {
            ProtocolName::Chat => Protocol::ChatCompletions,
            ProtocolName::Responses => Protocol::Responses,
            ProtocolName::Messages => Protocol::Messages,
        };
        LoadOptions {
            // A started server's model is the only one that it has.
            model: self.model.clone().filter(|_| self.url.is_some()),
            url,
            api_key: self.api_key.clone().or_else(|| std::env::var("CACHALOT_API_KEY").ok()),
            protocols: self.protocol.iter().map(protocol).collect(),
            pace: self.connections.map_or(Pace::Arrivals(self.rate), Pace::Connections),
            end: match (self.duration, self.requests) {
                (Some(duration), _) => End::Time(duration),
                (None, requests) => End::Requests(requests.unwrap_or(100)),
            },
            prompt_lengths: self.prompt.clone(),
            output_lengths: self.output.clone(),
            shared_prefix: self.shared_prefix,
            disconnect: self.disconnect,
            malformed: self.malformed,
            answer_time_max: Duration::from_secs(self.request_timeout),
            seed: self.seed,
        }
    }

    fn unit(&self) -> &'static str {
        if self.duration.is_some() { "seconds" } else { "requests" }
    }

    /// Progress of time comes in milliseconds.
    fn progress_scale(&self) -> u64 {
        if self.duration.is_some() { 1000 } else { 1 }
    }
}

fn show(arguments: &BenchServeArguments, report: &LoadReport) -> Result<(), Error> {
    if let Some(path) = &arguments.plot {
        write(path, &svg::render_column(&plot::plots(report)))?;
    }
    let json = serde_json::to_string_pretty(report).expect("plain values");
    match &arguments.json {
        Some(path) if path.as_os_str() == "-" => return super::print(&json),
        Some(path) => write(path, &(json + "\n"))?,
        None => {}
    }
    super::print(&text::report(report))
}

fn write(path: &std::path::Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })
}

/// `128:0.5,1k:0.4,8k:0.1`, or `128` alone.
fn parse_mix(text: &str) -> Result<LengthMix, String> {
    let part = |part: &str| {
        let (length, weight) = part.split_once(':').unwrap_or((part, "1"));
        let weight = weight
            .trim()
            .parse::<f64>()
            .map_err(|_| format!("'{weight}' is no weight; expected lengths with weights, such as 128:0.5,1k:0.5"))?;
        Ok((parse_token_count(length.trim())?, weight))
    };
    let lengths = text.split(',').map(part).collect::<Result<Vec<_>, String>>()?;
    LengthMix::new(lengths).map_err(|error| error.to_string())
}

/// `90s`, `10m`, `1h` or seconds alone.
fn parse_time(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => f64::NAN,
    };
    let seconds = number.trim().parse::<f64>().map(|number| number * factor);
    match seconds {
        // A month.
        Ok(seconds) if seconds > 0.0 && seconds <= 2.7e6 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected a time above 0, such as 30s, 10m or 1h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, seconds) in [("90", 90.0), ("0.5s", 0.5), ("10m", 600.0), ("2 h", 7200.0)] {
            assert_eq!(parse_time(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["", "0", "-1s", "1x", "m", "inf", "1e99"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mixes() {
        assert_eq!(parse_mix("128:0.5, 1k:2").unwrap().to_string(), "128:0.5,1024:2");
        assert_eq!(parse_mix("64").unwrap().to_string(), "64:1");
        for text in ["", "0:1", "128:", "128:-1", "128:1,,", "x:1"] {
            assert!(parse_mix(text).is_err(), "{text}");
        }
    }
}
