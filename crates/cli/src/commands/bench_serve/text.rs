//! The report for people.

use cachalot_planner::units::{short, short_bytes, short_seconds};
use cachalot_server::load::{Distribution, LoadReport, ServerSample};

use crate::{
    numbers::{grouped, seconds},
    table::table,
};

pub fn report(report: &LoadReport) -> String {
    let mut text = format!(
        "{} at {}, {}\n\n{}",
        report.model,
        report.url,
        seconds(report.seconds),
        requests(report)
    );
    if report.answered > 0 {
        text.push('\n');
        text.push_str(&times(report));
        text.push_str("first token: from the moment at which the request was due; each further: mean of an answer\n\n");
        text.push_str(&tokens(report));
    }
    if let Some(server) = server(report) {
        text.push('\n');
        text.push_str(&server);
    }
    for failure in &report.failures {
        text.push_str(&format!("{failure}\n"));
    }
    text.trim_end().to_owned()
}

/// What no server may do, if it was done: answers against the protocol, and work left over.
pub fn faults(report: &LoadReport) -> Option<String> {
    let failed: Vec<String> = report
        .failed
        .iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    match (failed.is_empty(), report.is_settled) {
        (true, None | Some(true)) => None,
        (true, Some(false)) => {
            Some("requests were still computed half a minute after the last client had left".to_owned())
        }
        (false, _) => Some(failed.join(", ")),
    }
}

fn requests(report: &LoadReport) -> String {
    let mut rows = Vec::new();
    let mut row = |name: String, count: u64| {
        let share = format!("{:.1} %", 100.0 * count as f64 / report.sent.max(1) as f64);
        rows.push(vec![name, grouped(count), share]);
    };
    row("sent".to_owned(), report.sent);
    row("answered".to_owned(), report.answered);
    for (name, count) in [
        ("client left", report.left),
        ("malformed, refused", report.malformed_refused),
    ] {
        if count > 0 {
            row(name.to_owned(), count);
        }
    }
    for (kind, count) in &report.refused {
        row(format!("refused: {kind}"), *count);
    }
    for (kind, count) in &report.failed {
        row(format!("FAILED: {kind}"), *count);
    }
    table(&["requests", "", ""], &rows)
}

fn times(report: &LoadReport) -> String {
    let row = |name: &str, times: &Distribution| {
        let cells = [times.p50, times.p90, times.p99, times.mean, times.max].map(short_seconds);
        std::iter::once(name.to_owned()).chain(cells).collect::<Vec<String>>()
    };
    let rows = [
        row("first token", &report.first_token),
        row("each further token", &report.per_token),
        row("whole answer", &report.whole),
    ];
    table(&["time", "p50", "p90", "p99", "mean", "longest"], &rows)
}

fn tokens(report: &LoadReport) -> String {
    let mean = |count: u64| short(count as f64 / report.answered.max(1) as f64);
    let rate = |count: u64| short(count as f64 / report.seconds.max(1e-9));
    let prompts = vec![
        "prompts".to_owned(),
        grouped(report.prompt_tokens),
        mean(report.prompt_tokens),
        rate(report.prompt_tokens),
    ];
    let reused = vec![
        "of them reused".to_owned(),
        grouped(report.reused_tokens),
        mean(report.reused_tokens),
        rate(report.reused_tokens),
    ];
    let answers = vec![
        "answers".to_owned(),
        grouped(report.output_tokens),
        mean(report.output_tokens),
        rate(report.output_tokens),
    ];
    table(
        &["tokens", "in all", "an answer", "a second"],
        &[prompts, reused, answers],
    )
}

/// The server's own figures: memory after the first tenth of the run, when buffers have grown, against the end.
fn server(report: &LoadReport) -> Option<String> {
    let last = report.server.last()?;
    let warm = report
        .server
        .iter()
        .find(|sample| sample.seconds >= report.seconds / 10.0)
        .unwrap_or(last);
    let most = |value: &dyn Fn(&ServerSample) -> f64| report.server.iter().map(value).fold(0.0, f64::max);
    let row = |name: &str, value: &dyn Fn(&ServerSample) -> f64, shown: &dyn Fn(f64) -> String| {
        vec![
            name.to_owned(),
            shown(value(warm)),
            shown(most(value)),
            shown(value(last)),
        ]
    };
    let count = |value: f64| format!("{value:.0}");
    let mut rows = vec![
        row("requests waiting", &|sample| sample.queued, &count),
        row("requests computed", &|sample| sample.running, &count),
        row("connections", &|sample| sample.connections, &count),
    ];
    if last.resident_bytes.is_finite() {
        rows.push(row("memory", &|sample| sample.resident_bytes, &short_bytes));
    }
    Some(table(&["server", "at 10 %", "most", "afterwards"], &rows))
}
