//! Where the time of a step goes, by operator.

use cachalot_planner::{
    svg::{Bar, Bars, render_bars},
    units::{short, short_bytes, short_seconds},
};

use super::{
    results::{OperatorShare, Point, Results},
    text::percent,
};
use crate::table::table;

/// Operators that take less are gathered in one line.
const SHARE_MIN: f64 = 0.002;

/// One table for each point.
pub fn tables(results: &Results) -> String {
    let tables = results.points.iter().map(|point| {
        let recorded = recorded_seconds(point);
        let heads = ["", "time", "share", "calls", "bytes", "read", "GOP/s", "of ceiling"];
        let rows = shown(point).map(|share| row(results, share, recorded));
        let mut rows: Vec<Vec<String>> = rows.collect();
        let rest: f64 = hidden(point).map(|share| share.seconds).sum();
        if rest > 0.0 {
            let count = hidden(point).count();
            rows.push(vec![
                format!("{count} others"),
                short_seconds(rest),
                percent(rest / recorded),
            ]);
        }
        format!(
            "\n{}, {} in operators:\n{}",
            point.name(),
            short_seconds(recorded),
            table(&heads, &rows)
        )
    });
    tables.collect::<String>().trim_end().to_owned()
}

fn row(results: &Results, share: &OperatorShare, recorded: f64) -> Vec<String> {
    vec![
        name(share),
        short_seconds(share.seconds),
        percent(share.seconds / recorded),
        share.calls.to_string(),
        short_bytes(share.memory_bytes()),
        format!("{}/s", short_bytes(share.memory_bytes() / share.seconds)),
        short(2.0 * share.multiply_adds as f64 / share.seconds / 1e9),
        percent(of_ceiling(results, share)),
    ]
}

/// The least time of an operator, as part of the time that it took.
fn of_ceiling(results: &Results, share: &OperatorShare) -> f64 {
    let ceilings = &results.ceilings;
    ceilings.floor_seconds(share.memory_bytes(), share.multiply_adds as f64) / share.seconds
}

/// One group of bars for each point.
pub fn chart(results: &Results) -> String {
    let groups = results.points.iter().map(|point| {
        let recorded = recorded_seconds(point);
        let bars = shown(point).map(|share| Bar {
            name: name(share),
            value: share.seconds / recorded,
            filled: of_ceiling(results, share).min(1.0),
            label: format!(
                "{} of the time, at {} of the ceiling",
                percent(share.seconds / recorded),
                percent(of_ceiling(results, share))
            ),
        });
        (point.name(), bars.collect())
    });
    render_bars(&Bars {
        title: format!(
            "{}: time by operator; filled: what the ceilings would leave of it",
            results.model
        ),
        groups: groups.collect(),
    })
}

fn recorded_seconds(point: &Point) -> f64 {
    point.operators.iter().map(|share| share.seconds).sum()
}

fn shown(point: &Point) -> impl Iterator<Item = &OperatorShare> {
    let recorded = recorded_seconds(point);
    point
        .operators
        .iter()
        .filter(move |share| share.seconds >= SHARE_MIN * recorded)
}

fn hidden(point: &Point) -> impl Iterator<Item = &OperatorShare> {
    let recorded = recorded_seconds(point);
    point
        .operators
        .iter()
        .filter(move |share| share.seconds < SHARE_MIN * recorded)
}

fn name(share: &OperatorShare) -> String {
    match &share.weight {
        None => share.operator.clone(),
        Some(weight) => format!("{}, {weight}", share.operator),
    }
}
