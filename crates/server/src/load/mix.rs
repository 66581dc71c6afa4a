use super::random::Random;
use crate::Error;

/// Lengths in tokens, each with its weight.
#[derive(Clone, Debug, PartialEq)]
pub struct LengthMix(Vec<(usize, f64)>);

impl LengthMix {
    /// A mix in which each length has the part of its weight in the sum of weights.
    ///
    /// # Errors
    /// [`Error::Load`] without lengths, for a length of 0, and for weights that are not above 0.
    pub fn new(lengths: Vec<(usize, f64)>) -> Result<Self, Error> {
        let is_sound = |(length, weight): &(usize, f64)| *length > 0 && weight.is_finite() && *weight > 0.0;
        if lengths.is_empty() || !lengths.iter().all(is_sound) {
            return Err(Error::Load {
                what: "the mix of lengths",
                value: format!("{lengths:?}"),
                expected: "lengths and weights above 0, such as 128:0.5,1k:0.4,8k:0.1",
            });
        }
        Ok(LengthMix(lengths))
    }

    /// A length by chance.
    pub(super) fn draw(&self, random: &mut Random) -> usize {
        let total: f64 = self.0.iter().map(|(_, weight)| weight).sum();
        let mut rest = random.unit() * total;
        for (length, weight) in &self.0 {
            if rest < *weight {
                return *length;
            }
            rest -= weight;
        }
        self.0[self.0.len() - 1].0
    }
}

impl std::fmt::Display for LengthMix {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (length, weight)) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(formatter, "{comma}{length}:{weight}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_come_by_weight() {
        let mix = LengthMix::new(vec![(10, 1.0), (20, 3.0)]).unwrap();
        let mut random = Random::new(1);
        let short = (0..10_000).filter(|_| mix.draw(&mut random) == 10).count();
        // Four standard deviations of a binomial with 10,000 draws at one quarter.
        assert!((2_327..=2_673).contains(&short), "{short}");
        for bad in [vec![], vec![(0, 1.0)], vec![(1, 0.0)], vec![(1, f64::NAN)]] {
            assert!(LengthMix::new(bad).is_err());
        }
    }
}
