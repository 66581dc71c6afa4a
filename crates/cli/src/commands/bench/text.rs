//! The results for people.

use cachalot_planner::units::{short, short_bytes, short_seconds};

use super::results::{self, Ceiling, Point, Results};
use crate::table::table;

pub fn report(results: &Results) -> String {
    let mut text = format!(
        "{}, {} mode, {}\nreads {} of weights for a token{}\n\n{}",
        results.model,
        results.mode,
        results.chip,
        short_bytes(results.active_weight_bytes as f64),
        results
            .dense
            .as_ref()
            .map_or(String::new(), |format| format!(", the dense part as {format}")),
        ceilings(results),
    );
    if !results.points.is_empty() {
        text.push('\n');
        text.push_str(&points(results));
        text.push_str(
            "bytes: weights and state that a token needs at least; of peak: of the ceiling marked *; of floor: the part of \
             the time\nthat is left if every operator runs at its ceiling; predicted: tok/s that `cachalot plan` \
             expects\n",
        );
        if results.points.iter().any(|point| point.generated_state) {
            text.push_str("state of contexts above 0: generated, not fed\n");
        }
    }
    if results.points.iter().any(|point| point.disk.is_some()) {
        text.push('\n');
        text.push_str(&streamed(results));
        text.push_str(
            "floor: the bytes read for a token at the disk's ceiling, then the head at memory's, which can start only \
             after the last\nexpert; or the floor of a model in memory if that is longer\n",
        );
    }
    for point in &results.points {
        let name = point.name();
        match (point.waited_for_disk, point.discarded) {
            (true, _) => text.push_str(&format!("{name}: every repetition waited for weights from the disk\n")),
            (false, 0) => {}
            (false, count) => text.push_str(&format!(
                "{name}: left out {count} more repetitions, which waited for weights from the disk\n"
            )),
        }
    }
    for skipped in &results.skipped {
        let name = results::name(skipped.phase, skipped.tokens, skipped.batch);
        text.push_str(&format!("skipped {name}: {}\n", skipped.reason));
    }
    text.trim_end().to_owned()
}

fn ceilings(results: &Results) -> String {
    let row = |ceiling: &Ceiling, rate: &dyn Fn(f64) -> String| {
        vec![
            if ceiling.name == results.ceilings.used {
                format!("{} *", ceiling.name)
            } else {
                ceiling.name.clone()
            },
            ceiling.threads.to_string(),
            rate(ceiling.best),
            rate(ceiling.median),
            ceiling.instructions.clone(),
        ]
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    for ceiling in &results.ceilings.read {
        rows.push(row(ceiling, &|rate| format!("{}/s", short_bytes(rate))));
    }
    for ceiling in &results.ceilings.arithmetic {
        rows.push(row(ceiling, &|rate| format!("{} GOP/s", short(rate / 1e9))));
    }
    if let Some(disk) = &results.ceilings.disk {
        rows.push(row(disk, &|rate| format!("{}/s", short_bytes(rate))));
    }
    table(&["ceiling", "threads", "best", "median", "with"], &rows)
}

fn points(results: &Results) -> String {
    let rows: Vec<Vec<String>> = results
        .points
        .iter()
        .map(|point| {
            vec![
                point.name(),
                short(point.tokens_per_second),
                spread(point),
                point.rates.len().to_string(),
                short_seconds(point.batch as f64 / point.tokens_per_second),
                short_bytes(point.cost_per_token.memory_bytes()),
                format!("{}/s", short_bytes(point.bytes_per_second)),
                percent(point.bandwidth_fraction),
                short(point.operations_per_second / 1e9),
                percent(point.arithmetic_fraction),
                percent(point.floor_seconds_per_token * point.tokens_per_second),
                short(point.predicted_tokens_per_second),
            ]
        })
        .collect();
    let heads = [
        "",
        "tok/s",
        "spread",
        "n",
        "step",
        "bytes/tok",
        "read",
        "of read",
        "GOP/s",
        "of peak",
        "of floor",
        "predicted",
    ];
    // A step of prefill is a chunk of many tokens: its time is that of a token.
    table(&heads, &rows)
}

/// Decoding with experts from disk, beside what the disk allows.
fn streamed(results: &Results) -> String {
    let shares = results
        .points
        .iter()
        .filter_map(|point| Some((point, point.disk.as_ref()?)));
    let rows: Vec<Vec<String>> = shares
        .map(|(point, share)| {
            vec![
                point.name(),
                short_bytes(share.bytes_per_token),
                percent(share.hit_share),
                short_seconds(1.0 / point.tokens_per_second),
                short_seconds(share.floor_seconds_per_token),
                percent(share.floor_seconds_per_token * point.tokens_per_second),
            ]
        })
        .collect();
    let heads = [
        "experts from disk",
        "read/tok",
        "in memory",
        "time/tok",
        "floor",
        "of floor",
    ];
    table(&heads, &rows)
}

/// How far slowest and fastest repetition lie apart, relative to the median.
fn spread(point: &Point) -> String {
    match point.rates.len() {
        1 => "?".to_owned(),
        _ => {
            let (low, high) = point.spread();
            percent((high - low) / point.tokens_per_second)
        }
    }
}

pub fn percent(part: f64) -> String {
    match part {
        part if part.is_nan() => "?".to_owned(),
        part if part < 0.0995 => format!("{:.1} %", 100.0 * part),
        part => format!("{:.0} %", 100.0 * part),
    }
}
