//! How often guesses are right.

use super::DRAFT_COUNT_MAX;

/// Weight of a new observation.
const WEIGHT: f64 = 0.08;

/// How far a request's shares move back to the mean of all in a step without guesses: what was wrong long ago says little.
const FORGETTING: f64 = 0.004;

/// For each guess of a step, the share of those that were right among those whose predecessors were.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Acceptance {
    shares: [f64; DRAFT_COUNT_MAX],
}

impl Default for Acceptance {
    /// A fair drafter: what to expect before anything is known.
    fn default() -> Self {
        let mut share = 0.7;
        Acceptance {
            shares: [(); DRAFT_COUNT_MAX].map(|()| {
                share *= 0.95;
                share
            }),
        }
    }
}

impl Acceptance {
    /// Takes note of `drafted` guesses of which the first `accepted` were right.
    pub fn observe(&mut self, drafted: usize, accepted: usize) {
        for (index, share) in self.shares.iter_mut().enumerate().take(drafted.min(accepted + 1)) {
            let found = if index < accepted { 1.0 } else { 0.0 };
            *share += WEIGHT * (found - *share);
        }
    }

    /// Moves towards the mean of all requests.
    pub fn forget(&mut self, mean: &Acceptance) {
        for (share, mean) in self.shares.iter_mut().zip(mean.shares) {
            *share += FORGETTING * (mean - *share);
        }
    }

    /// Probability that the first `1, 2, ...` guesses are all right.
    pub fn survivals(&self) -> impl Iterator<Item = f64> {
        self.shares.iter().scan(1.0, |survival, share| {
            *survival *= share;
            Some(*survival)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_what_is_seen() {
        let mut acceptance = Acceptance::default();
        for _ in 0..200 {
            acceptance.observe(3, 1);
        }
        let survivals: Vec<f64> = acceptance.survivals().collect();
        assert!(survivals[0] > 0.99 && survivals[1] < 0.01, "{survivals:?}");
        let mean = Acceptance::default();
        for _ in 0..2000 {
            acceptance.forget(&mean);
        }
        assert!((acceptance.shares[1] - mean.shares[1]).abs() < 0.01);
    }
}
