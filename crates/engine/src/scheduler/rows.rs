//! How many rows of a step each sequence gets.

use std::time::Duration;

/// Fewest rows of prompts in a step beside answers being written.
const PREFILL_ROW_COUNT_MIN: usize = 16;

/// Learns how long a row takes and chooses how many rows of prompts a step may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    step_row_count_max: usize,
    step_time_target: Duration,
    /// Mean seconds of a row in steps with rows of prompts; 0 before the first.
    seconds_per_row: f64,
}

impl Pace {
    pub fn new(step_row_count_max: usize, step_time_target: Duration) -> Self {
        Pace {
            step_row_count_max,
            step_time_target,
            seconds_per_row: 0.0,
        }
    }

    /// Takes note of a step.
    pub fn observe(&mut self, row_count: usize, time: Duration) {
        if row_count < PREFILL_ROW_COUNT_MIN {
            return;
        }
        let found = time.as_secs_f64() / row_count as f64;
        self.seconds_per_row = match self.seconds_per_row {
            0.0 => found,
            mean => 0.75 * mean + 0.25 * found,
        };
    }

    /// Rows of prompts that a step may have beside those of `decode_count` answers.
    pub fn prefill_row_count(&self, decode_count: usize) -> usize {
        let room = self.step_row_count_max.saturating_sub(decode_count);
        if decode_count == 0 {
            return room;
        }
        let rows = match self.seconds_per_row {
            0.0 => 4 * PREFILL_ROW_COUNT_MIN,
            seconds => (self.step_time_target.as_secs_f64() / seconds) as usize,
        };
        rows.max(PREFILL_ROW_COUNT_MIN).min(room)
    }
}

/// Shares `row_count` rows among prompts with `wanted` rows left each, in order of preference: all get the same, those
/// that need less leave the rest to the others, and what cannot be divided goes to the first.
pub(super) fn share(mut row_count: usize, wanted: &[usize]) -> Vec<usize> {
    let mut shares = vec![0; wanted.len()];
    loop {
        let open: Vec<usize> = (0..wanted.len()).filter(|i| shares[*i] < wanted[*i]).collect();
        if open.is_empty() || row_count == 0 {
            return shares;
        }
        let each = (row_count / open.len()).max(1);
        for i in open {
            let rows = each.min(wanted[i] - shares[i]).min(row_count);
            shares[i] += rows;
            row_count -= rows;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_shared_evenly_and_none_is_wasted() {
        for (rows, wanted, expected) in [
            (100, &[500, 500][..], &[50, 50][..]),
            (100, &[10, 500], &[10, 90]),
            (100, &[500, 10, 500], &[45, 10, 45]),
            (3, &[9, 9], &[2, 1]),
            (1, &[9, 9], &[1, 0]),
            (100, &[5, 6], &[5, 6]),
            (100, &[], &[]),
            (0, &[5], &[0]),
        ] {
            assert_eq!(share(rows, wanted), expected, "{rows} rows among {wanted:?}");
        }
    }

    #[test]
    fn prompts_leave_time_for_answers() {
        let mut pace = Pace::new(512, Duration::from_millis(100));
        assert_eq!(pace.prefill_row_count(0), 512);
        assert_eq!(pace.prefill_row_count(2), 64);
        for _ in 0..50 {
            pace.observe(100, Duration::from_millis(100));
        }
        assert_eq!(pace.prefill_row_count(2), 100);
        // A single row says nothing about the cost of many.
        pace.observe(1, Duration::from_secs(1));
        assert_eq!(pace.prefill_row_count(2), 100);
        assert_eq!(pace.prefill_row_count(500), 12);
        assert_eq!(pace.prefill_row_count(512), 0);
        pace.observe(512, Duration::from_secs(5000));
        assert_eq!(pace.prefill_row_count(2), PREFILL_ROW_COUNT_MIN);
    }
}
