//! Prometheus' text format.

use std::{fmt::Write, sync::atomic::Ordering, time::Duration};

use super::Metrics;
use crate::{backend::BackendStatus, health::Report};

/// All figures, one metric after the other.
pub fn render(metrics: &Metrics, status: &BackendStatus, health: &Report) -> String {
    let mut page = Page::default();
    requests(&mut page, metrics);
    model(&mut page, status);
    reuse(&mut page, metrics);
    memory(&mut page, status);
    page.gauge(
        "healthy",
        "1 if the last probe generated a token.",
        f64::from(health.is_healthy),
    );
    let age = health.age_seconds.unwrap_or(f64::NAN);
    page.gauge("probe_age_seconds", "Seconds since the last probe ended.", age);
    for figure in &status.others {
        match figure.is_counter {
            true => page.counter(figure.name, figure.help, figure.value),
            false => page.gauge(figure.name, figure.help, figure.value),
        }
    }
    if let Some(bytes) = super::process::resident_bytes() {
        // The name that Prometheus' own libraries give it.
        let name = "process_resident_memory_bytes";
        let help = "Bytes of the process in the machine's memory, mapped weights included.";
        let _ = writeln!(page.0, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {bytes}");
    }
    page.0
}

fn requests(page: &mut Page, metrics: &Metrics) {
    let responses = metrics.responses();
    let lines = responses
        .iter()
        .map(|((route, status), count)| (format!("route=\"{route}\",status=\"{status}\""), *count as f64));
    page.family(
        "http_responses_total",
        "counter",
        "HTTP responses by route and status.",
        lines,
    );
    let load = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed) as f64;
    let connections = load(&metrics.connection_count);
    page.gauge("connections", "Connections open.", connections);
    page.gauge(
        "answers_open",
        "Answers waiting or being written.",
        load(&metrics.open_count),
    );
    page.counter(
        "answers_cancelled_total",
        "Answers whose client went away or did not read.",
        load(&metrics.cancelled_count),
    );
    for (histogram, name, help) in [
        (
            &metrics.time_to_first_token,
            "cachalot_time_to_first_token_seconds",
            "From a request to the first token of its answer.",
        ),
        (
            &metrics.time_per_token,
            "cachalot_time_per_token_seconds",
            "Between two tokens of an answer.",
        ),
        (
            &metrics.answer_time,
            "cachalot_answer_seconds",
            "From a request to the end of its answer.",
        ),
    ] {
        histogram.render(name, help, &mut page.0);
    }
}

fn model(page: &mut Page, status: &BackendStatus) {
    page.gauge(
        "queue_requests",
        "Requests that wait for the model.",
        status.queued as f64,
    );
    page.gauge("running_requests", "Requests that are computed.", status.running as f64);
    let prefill = status.prefill_token_count as f64;
    page.counter("prefill_tokens_total", "Prompt tokens computed.", prefill);
    let decode = status.decode_token_count as f64;
    page.counter("decode_tokens_total", "Tokens generated.", decode);
    page.gauge(
        "prefill_tokens_per_second",
        "Prompt tokens computed in the last seconds.",
        status.prefill_tokens_per_second,
    );
    page.gauge(
        "decode_tokens_per_second",
        "Tokens generated in the last seconds.",
        status.decode_tokens_per_second,
    );
    let part = |(part, time): &(&str, Duration)| (format!("part=\"{part}\""), time.as_secs_f64());
    page.family(
        "step_seconds_total",
        "counter",
        "Time spent in the parts of the model's steps.",
        status.step_times.iter().map(part),
    );
    if let Some((reached, ceiling)) = status.bytes_per_second {
        page.gauge(
            "decode_bytes_per_second",
            "Bytes read for decoding, each second.",
            reached,
        );
        page.gauge(
            "memory_bytes_per_second_ceiling",
            "What the machine's memory can deliver.",
            ceiling,
        );
    }
}

fn reuse(page: &mut Page, metrics: &Metrics) {
    let counts = metrics.reuse();
    page.counter("prompt_tokens_total", "Tokens of all prompts.", counts.prompt as f64);
    page.counter(
        "prompt_tokens_reused_total",
        "Prompt tokens taken from the prefix cache.",
        counts.reused as f64,
    );
    let reason = |reason: &&str| format!("reason=\"{reason}\"");
    let tokens = counts
        .missed
        .iter()
        .map(|(name, (tokens, _))| (reason(name), *tokens as f64));
    page.family(
        "prompt_tokens_missed_total",
        "counter",
        "Prompt tokens that had to be computed, by the reason why they were not reused.",
        tokens,
    );
    let prompts = counts
        .missed
        .iter()
        .map(|(name, (_, prompts))| (reason(name), *prompts as f64));
    page.family(
        "prompts_missed_total",
        "counter",
        "Prompts that were not reused to their end, by reason.",
        prompts,
    );
}

fn memory(page: &mut Page, status: &BackendStatus) {
    let kinds = status
        .memory_bytes
        .iter()
        .map(|(kind, bytes)| (format!("kind=\"{kind}\""), *bytes as f64));
    page.family("memory_bytes", "gauge", "Bytes of memory by kind.", kinds);
    page.gauge(
        "cache_fault",
        "1 if prompts should be kept on disk and cannot be.",
        f64::from(status.cache_fault.is_some()),
    );
}

/// The text so far. Names get the prefix `cachalot_`.
#[derive(Default)]
struct Page(String);

impl Page {
    fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "counter", help, [(String::new(), value)]);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "gauge", help, [(String::new(), value)]);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str, lines: impl IntoIterator<Item = (String, f64)>) {
        let _ = writeln!(self.0, "# HELP cachalot_{name} {help}\n# TYPE cachalot_{name} {kind}");
        for (labels, value) in lines {
            let _ = match labels.is_empty() {
                true => writeln!(self.0, "cachalot_{name} {value}"),
                false => writeln!(self.0, "cachalot_{name}{{{labels}}} {value}"),
            };
        }
    }
}
