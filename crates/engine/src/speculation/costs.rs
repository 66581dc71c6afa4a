//! What something takes by its number of rows, learned as it is done.

use std::time::Duration;

/// Rows beyond which costs are not told apart.
const ROW_COUNT_MAX: usize = 256;

/// Weight of a new observation.
const WEIGHT: f64 = 0.15;

/// An observation counts at most this many times the mean: a machine that was busy elsewhere says nothing.
const OUTLIER: f64 = 2.0;

/// Mean seconds by number of rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Costs {
    seconds: Vec<f64>,
}

impl Costs {
    /// Takes note of `rows` rows that took `time`.
    pub fn observe(&mut self, rows: usize, time: Duration) {
        if rows == 0 || rows > ROW_COUNT_MAX {
            return;
        }
        if self.seconds.len() <= rows {
            self.seconds.resize(rows + 1, 0.0);
        }
        let (mean, found) = (&mut self.seconds[rows], time.as_secs_f64());
        *mean = match *mean {
            0.0 => found,
            mean => mean + WEIGHT * (found.min(OUTLIER * mean) - mean),
        };
    }

    /// Whether steps of exactly so many rows were observed.
    pub fn knows(&self, rows: usize) -> bool {
        self.seconds.get(rows).is_some_and(|seconds| *seconds > 0.0)
    }

    /// Seconds of `rows` rows: between the nearest two observations, or in proportion to the only one. More rows never
    /// take less time than fewer. None before the first observation.
    pub fn seconds(&self, rows: usize) -> Option<f64> {
        let known = |range: std::ops::Range<usize>| range.filter(|rows| self.knows(*rows));
        let count = self.seconds.len();
        let below = known(0..count.min(rows + 1)).next_back();
        let above = known(rows.min(count)..count).next();
        Some(match (below, above) {
            (None, None) => return None,
            (Some(below), _) if below == rows => self.seconds[rows].max(self.largest_below(rows)),
            (Some(below), Some(above)) => {
                let share = (rows - below) as f64 / (above - below) as f64;
                let (low, high) = (self.seconds[below], self.seconds[above]);
                low + share * (high - low).max(0.0)
            }
            (Some(below), None) => match known(0..below).next_back() {
                // As from the two largest, but rows beyond are not free.
                Some(before) => {
                    let (low, high) = (self.seconds[before], self.seconds[below]);
                    let slope = ((high - low) / (below - before) as f64).max(0.0);
                    high + slope * (rows - below) as f64
                }
                None => self.seconds[below] * rows as f64 / below as f64,
            },
            (None, Some(above)) => self.seconds[above],
        })
    }

    fn largest_below(&self, rows: usize) -> f64 {
        self.seconds[..rows].iter().copied().fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_interpolated() {
        let mut costs = Costs::default();
        assert_eq!(costs.seconds(1), None);
        costs.observe(1, Duration::from_millis(10));
        assert_eq!(costs.seconds(3), Some(0.030));
        costs.observe(5, Duration::from_millis(18));
        for (rows, expected) in [(1, 0.010), (3, 0.014), (5, 0.018), (7, 0.022)] {
            let found = costs.seconds(rows).expect("known");
            assert!((found - expected).abs() < 1e-9, "{rows}: {found}");
        }
        // One hiccup does not count for more than twice the mean.
        costs.observe(1, Duration::from_secs(60));
        assert!(costs.seconds(1).expect("known") < 0.012);
    }
}
