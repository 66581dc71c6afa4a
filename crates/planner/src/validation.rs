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

    /// Whether the model does what the result demands: within a factor of 2, above a lower bound.
    pub fn holds(&self) -> bool {
        self.error().is_some_and(|error| error <= 1.0)
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
