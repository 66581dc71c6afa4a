//! Which experts are worth their memory.
//!
//! The heat of an expert is the number of rows that chose it, each row weighing less by a constant factor for every row
//! that the layer has seen since: a frequency that forgets. The coldest expert gives way, so that a
//! long prompt which sweeps through all experts should not push out what a conversation uses again and again. Neither the
//! policy nor its constants have been compared with others on recorded routing.

/// Rows after which a use counts half.
const HALF_LIFE_ROW_COUNT: f64 = 512.0;
/// Rows of even use that an expert's estimate starts with.
const PRIOR_ROW_COUNT: f64 = 32.0;

/// `ln 2 / half-life`: what heat loses with each row, as a logarithm.
const LOSS: f64 = std::f64::consts::LN_2 / HALF_LIFE_ROW_COUNT;

/// Heat of one expert as a number that stays as it is between uses, so that experts can be compared without being
/// visited: `ln(heat at clock c) + c * LOSS`.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) struct Heat(f64);

impl Heat {
    /// Never used.
    pub const COLD: Heat = Heat(f64::NEG_INFINITY);

    /// After `use_count` more uses, when the layer has seen `clock` rows.
    pub fn used(self, use_count: usize, clock: u64) -> Heat {
        Heat((self.at(clock) + use_count as f64).ln() + clock as f64 * LOSS)
    }

    /// Colder first. Never NaN: counts are above zero where a logarithm is taken.
    pub fn total_cmp(&self, other: &Heat) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }

    /// Probability that at least one of the next `row_count` rows chooses the expert, when rows choose `choice_count` of
    /// `expert_count` experts.
    pub fn use_probability(self, clock: u64, row_count: usize, choice_count: usize, expert_count: usize) -> f64 {
        // Rows seen, weighed as the heat weighs them.
        let weighed_row_count = (1.0 - (-(clock as f64) * LOSS).exp()) / LOSS;
        let prior = PRIOR_ROW_COUNT * choice_count as f64 / expert_count.max(1) as f64;
        let share = (self.at(clock) + prior) / (weighed_row_count + PRIOR_ROW_COUNT);
        1.0 - (1.0 - share.clamp(0.0, 1.0)).powf(row_count as f64)
    }

    fn at(self, clock: u64) -> f64 {
        (self.0 - clock as f64 * LOSS).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_counts_half_after_the_half_life() {
        let old = Heat::COLD.used(2, 0);
        let half_life = HALF_LIFE_ROW_COUNT as u64;
        assert!(old > Heat::COLD.used(1, half_life - 1));
        assert!(old < Heat::COLD.used(1, half_life + 1));
        // A regular guest beats one that came last.
        let regular = (0..8).fold(Heat::COLD, |heat, clock| heat.used(1, 8 * clock));
        assert!(regular > Heat::COLD.used(1, 64));
        assert!(Heat::COLD < old && Heat::COLD.total_cmp(&old).is_lt());
    }

    #[test]
    fn probabilities_follow_use() {
        let even = |row_count| Heat::COLD.use_probability(0, row_count, 6, 256);
        assert!((even(1) - 6.0 / 256.0).abs() < 1e-9);
        assert!(even(512) > 0.99);
        let always = (1..=4096).fold(Heat::COLD, |heat, clock| heat.used(1, clock));
        assert!(always.use_probability(4096, 1, 6, 256) > 0.9);
        assert!(Heat::COLD.use_probability(4096, 8, 6, 256) < 0.02);
    }
}
