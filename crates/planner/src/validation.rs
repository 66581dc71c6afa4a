//! Predicted beside published.

use crate::{
    Error,
    catalogue::Catalogue,
    published::{self, Kind, Prepared, PublishedResult},
    units,
};

/// A published result and what the model says.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The result.
    pub result: PublishedResult,
    /// Predicted tokens a second and chip; `None` if a figure is unknown.
    pub predicted: Option<f64>,
}

impl Comparison {
    /// Predicted over published.
    pub fn ratio(&self) -> Option<f64> {
        Some(self.predicted? / self.result.published)
    }

    /// How far the prediction is off: `max(ratio, 1 / ratio) - 1`, and 0 where a bound is kept.
    pub fn error(&self) -> Option<f64> {
        let ratio = self.ratio()?;
        Some(match self.result.kind {
            Kind::Lower if ratio >= 1.0 => 0.0,
            _ => ratio.max(1.0 / ratio) - 1.0,
        })
    }

    /// Whether the model does what the result demands: within a factor of 2 of it, not below a lower bound by that,
    /// and not above an upper bound by more than a quarter.
    pub fn holds(&self) -> bool {
        let bound_kept = self.result.kind != Kind::Upper || self.ratio().is_some_and(|ratio| ratio <= 1.25);
        bound_kept && self.error().is_some_and(|error| error <= 1.0)
    }
}

/// Compares all published results.
///
/// # Errors
/// Those of looking up models.
pub fn compare(catalogue: &Catalogue) -> Result<Vec<Comparison>, Error> {
    let results = published::results().into_iter();
    let comparisons = results.map(|result| {
        let prepared = Prepared::new(result)?;
        let predicted = prepared.predict(catalogue).ok();
        Ok(Comparison {
            result: prepared.result,
            predicted,
        })
    });
    comparisons.collect()
}

/// Median error of the results that did not calibrate and are no mere lower bounds.
pub fn median_error_held_out(comparisons: &[Comparison]) -> Option<f64> {
    let held_out = comparisons
        .iter()
        .filter(|comparison| !comparison.result.calibrates && comparison.result.kind != Kind::Lower);
    median(held_out.filter_map(Comparison::error).collect())
}

pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// The comparison as a table in Markdown.
pub fn to_markdown(comparisons: &[Comparison]) -> String {
    let mut text = "| row | system | predicted | published | ratio | figure is | role | conditions | assumed |\n\
                    | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for comparison in comparisons {
        let result = &comparison.result;
        let number = |value: Option<f64>| value.map_or("unknown".to_owned(), units::short);
        text.push_str(&format!(
            "| {} | {}: {} | {} | {} | {} | {} | {} | {} | {} |\n",
            result.row,
            result.system,
            result.model.rsplit('/').next().unwrap_or(&result.model),
            number(comparison.predicted),
            number(Some(result.published)),
            comparison
                .ratio()
                .map_or("unknown".to_owned(), |ratio| format!("{ratio:.2}")),
            if result.kind == Kind::Value {
                "a value"
            } else {
                result.kind.name()
            },
            if result.calibrates { "calibration" } else { "held out" },
            result.conditions,
            result.assumed,
        ));
    }
    text
}

/// The whole page: table, efficiencies, procedure.
pub fn page(catalogue: &Catalogue, comparisons: &[Comparison]) -> String {
    let mut text =
        "# Predicted beside published\n\nWritten by `cargo run -p cachalot-planner --example validation`; a test \
                    keeps it up to date. Figures are tokens a second and chip.\n\n"
            .to_owned();
    text.push_str(&to_markdown(comparisons));
    text.push_str(&summary(comparisons));
    text.push_str("\n## Efficiencies\n\n| family | covers | memory | arithmetic | links | microseconds a kernel |\n");
    text.push_str("| --- | --- | --- | --- | --- | --- |\n");
    for family in &catalogue.families {
        let efficiency = family.efficiency;
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            family.id, family.covers, efficiency.memory, efficiency.compute, efficiency.link, efficiency.launch_us
        ));
    }
    text.push_str(PROCEDURE);
    text
}

/// Errors in two sentences.
pub fn summary(comparisons: &[Comparison]) -> String {
    let percent = |value: Option<f64>| value.map_or("unknown".to_owned(), |value| format!("{:.0} %", 100.0 * value));
    let fitted = comparisons.iter().filter(|comparison| comparison.result.calibrates);
    let fitted = median(fitted.filter_map(Comparison::error).collect());
    let values = comparisons
        .iter()
        .filter(|comparison| !comparison.result.calibrates && comparison.result.kind == Kind::Value);
    let values: Vec<f64> = values.filter_map(Comparison::error).collect();
    let count = values.len();
    let lower = comparisons
        .iter()
        .filter(|comparison| comparison.result.kind == Kind::Lower);
    let lower: Vec<String> = lower
        .filter_map(|comparison| {
            Some(format!(
                "{} by a factor of {:.1}",
                comparison.result.system,
                comparison.ratio()?
            ))
        })
        .collect();
    format!(
        "\nMedian error of the results held out: {}; of the {count} among them that are plain values: {}; of those that \
         calibrate: {}. The error is `max(ratio, 1 / ratio) - 1`. Lower bounds are left out of the medians: they only \
         have to be kept. An upper bound (forced balance, fixed acceptance) is compared as if it were a value, because the \
         model assumes balance as well; what users get is lower than both. Lower bounds are exceeded, which tests little: {}.\n",
        percent(median_error_held_out(comparisons)),
        percent(median(values)),
        percent(fitted),
        lower.join(", ")
    )
}

const PROCEDURE: &str = "
A pass takes the sum over classes of operators of the longest of bytes / bandwidth, operations / rate and bytes sent / \
link, each rate times its efficiency, and of the number of kernels times a time for each. Nothing overlaps. The \
efficiencies are the only free numbers. They are found by `cargo run -p cachalot-planner --example calibrate` from the \
results whose role is calibration: for each family the values of a fixed grid with the least sum of squared logarithms \
of the ratios, and a sixteenth of the squared logarithms of the distance from usual values, which settles what the \
results leave open; the efficiency of links is shared. A test repeats the fit. Rows that are bounds, or averages over \
a changing load, never calibrate.

What is not modelled: overlap of communication with arithmetic, imbalance of experts, latency of collectives beyond a \
launch, queueing, tiles that a small batch leaves half empty.
";
