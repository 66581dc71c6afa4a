//! The cost of a token against the context, with the floor beside it.

use cachalot_planner::svg::{Plot, Scale, Series};

use super::results::{Phase, Point, Results};

/// Contexts of the plot: 1k, 2k, 4k ... up to `limit`, which leaves `room` for the steps that are measured.
pub fn contexts(limit: usize, room: usize) -> Vec<usize> {
    let powers = (10..usize::BITS).map(|power| 1 << power);
    let contexts = powers.take_while(|context| *context <= limit);
    contexts
        .map(|context: usize| context.min(limit.saturating_sub(room)))
        .collect()
}

/// Milliseconds of a token of one sequence, measured and at least.
pub fn plot(results: &Results) -> Plot {
    let points: Vec<&Point> = results
        .points
        .iter()
        .filter(|point| point.phase == Phase::Decode && point.batch == 1 && point.tokens > 0)
        .collect();
    let series = |name: &str, seconds: &dyn Fn(&Point) -> f64| Series {
        name: name.to_owned(),
        points: points
            .iter()
            .map(|point| (point.tokens as f64, 1e3 * seconds(point)))
            .collect(),
        joined: true,
    };
    Plot {
        title: format!("{}: decoding against context, {}", results.model, results.chip),
        x: "tokens of context (state generated)".to_owned(),
        y: "milliseconds a token".to_owned(),
        scale: Scale::Logarithmic,
        series: vec![
            series("measured", &|point| 1.0 / point.tokens_per_second),
            series("predicted", &|point| 1.0 / point.predicted_tokens_per_second),
            series("floor", &|point| point.floor_seconds_per_token),
        ],
    }
}
