//! Times and throughput, drawn.

use cachalot_planner::svg::{Plot, Scale, Series};
use cachalot_server::load::{Distribution, LoadReport};

/// How times are spread, and what happened over time.
pub fn plots(report: &LoadReport) -> Vec<Plot> {
    let mut plots = vec![spread(report), throughput(report)];
    if report.server.iter().any(|sample| sample.resident_bytes.is_finite()) {
        plots.push(memory(report));
    }
    plots
}

fn spread(report: &LoadReport) -> Plot {
    let series = |name: &str, times: &Distribution| Series {
        name: name.to_owned(),
        // Beyond the hundredth percentile lies nothing, which a logarithm cannot show.
        points: times
            .percentiles
            .iter()
            .take(99)
            .enumerate()
            .map(|(index, seconds)| (1e3 * seconds, (99 - index) as f64))
            .collect(),
        joined: true,
    };
    Plot {
        title: format!("{}: how long {} answers took", report.model, report.answered),
        x: "milliseconds".to_owned(),
        y: "% of answers that took longer".to_owned(),
        scale: Scale::Logarithmic,
        series: vec![
            series("first token", &report.first_token),
            series("each further token", &report.per_token),
            series("whole answer", &report.whole),
        ],
    }
}

fn throughput(report: &LoadReport) -> Plot {
    // The last second is not a whole one.
    let whole = report.timeline.len().min(report.seconds as usize);
    let series = |name: &str, value: &dyn Fn(usize) -> f64| Series {
        name: name.to_owned(),
        points: (0..whole).map(|second| (second as f64 + 0.5, value(second))).collect(),
        joined: true,
    };
    let seconds = &report.timeline;
    let queue = Series {
        name: "requests waiting".to_owned(),
        points: report
            .server
            .iter()
            .map(|sample| (sample.seconds, sample.queued))
            .collect(),
        joined: true,
    };
    let mut lines = vec![
        series("tokens of answers", &|second| seconds[second].output_tokens),
        series("requests sent", &|second| seconds[second].sent as f64),
        series("refused or failed", &|second| seconds[second].not_answered as f64),
    ];
    if !queue.points.is_empty() {
        lines.push(queue);
    }
    Plot {
        title: "throughput".to_owned(),
        x: "seconds since the first request".to_owned(),
        y: "a second".to_owned(),
        scale: Scale::Linear,
        series: lines,
    }
}

fn memory(report: &LoadReport) -> Plot {
    let points = report
        .server
        .iter()
        .map(|sample| (sample.seconds, sample.resident_bytes / 1e6));
    Plot {
        title: "memory of the server".to_owned(),
        x: "seconds since the first request".to_owned(),
        y: "MB".to_owned(),
        scale: Scale::Linear,
        series: vec![Series {
            name: "resident".to_owned(),
            points: points.collect(),
            joined: true,
        }],
    }
}
