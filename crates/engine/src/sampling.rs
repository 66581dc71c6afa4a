use crate::{Error, random::uniform};

/// How the next token is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingOptions {
    /// Divides the logits; 0 takes the most likely token. Default 1.0, as in V4's generation_config.
    pub temperature: f32,
    /// Keeps the smallest set of tokens whose probabilities reach this sum. Default 1.0 (all).
    pub top_p: f32,
    /// Keeps this many of the most likely tokens; 0 keeps all. Default 0.
    pub top_k: usize,
    /// Drops tokens less likely than this times the most likely one. Default 0.
    pub min_p: f32,
    /// Seed of the generator. Default 0.
    pub seed: u64,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        SamplingOptions {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            seed: 0,
        }
    }
}

impl SamplingOptions {
    /// Always the most likely token; ties go to the lower id.
    pub fn greedy() -> Self {
        SamplingOptions {
            temperature: 0.0,
            ..SamplingOptions::default()
        }
    }

    /// Checks that every option is in its range.
    ///
    /// # Errors
    /// [`Error::Sampling`].
    pub fn check(&self) -> Result<(), Error> {
        let check = |holds: bool, option, value: f32, expected| {
            if holds {
                Ok(())
            } else {
                Err(Error::Sampling {
                    option,
                    value: value.to_string(),
                    expected,
                })
            }
        };
        let temperature = self.temperature;
        check(
            (0.0..=100.0).contains(&temperature),
            "temperature",
            temperature,
            "0 to 100",
        )?;
        check(
            self.top_p > 0.0 && self.top_p <= 1.0,
            "top_p",
            self.top_p,
            "above 0, up to 1",
        )?;
        check((0.0..=1.0).contains(&self.min_p), "min_p", self.min_p, "0 to 1")
    }
}

/// Draws tokens from logits.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SamplingOptions,
}

impl Sampler {
    /// # Errors
    /// [`Error::Sampling`].
    pub fn new(options: SamplingOptions) -> Result<Self, Error> {
        options.check()?;
        Ok(Sampler { options })
    }

    /// The token after `position` tokens, given the logits of all tokens.
    ///
    /// The draw depends on the seed, the position and the logits only.
    ///
    /// # Errors
    /// [`Error::NonFinite`] if a logit is NaN or positive infinity, or all are negative infinity.
    pub fn sample(&self, logits: &[f32], position: usize) -> Result<u32, Error> {
        let (best, max) = best(logits).ok_or(Error::NonFinite { position })?;
        if self.options.temperature == 0.0 {
            return Ok(best);
        }
        let candidates = self.candidates(logits, max);
        let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        let mut rest = uniform(self.options.seed, position as u64) * total;
        for (token, weight) in &candidates {
            if rest < *weight {
                return Ok(*token);
            }
            rest -= weight;
        }
        // Rounding may leave a crumb after the last candidate.
        Ok(candidates.last().map_or(best, |(token, _)| *token))
    }

    /// Tokens that may be drawn with weights relative to the most likely one, in ascending order of ids.
    fn candidates(&self, logits: &[f32], max: f32) -> Vec<(u32, f64)> {
        let inverse_temperature = f64::from(self.options.temperature.max(1e-5)).recip();
        let weight = |logit: f32| (f64::from(logit - max) * inverse_temperature).exp();
        let min_weight = f64::from(self.options.min_p);
        let mut candidates: Vec<(u32, f64)> = logits
            .iter()
            .enumerate()
            .map(|(token, logit)| (token as u32, weight(*logit)))
            .filter(|(_, weight)| *weight > 0.0 && *weight >= min_weight)
            .collect();
        let top_k = if self.options.top_k == 0 {
            candidates.len()
        } else {
            self.options.top_k
        };
        if top_k < candidates.len() || self.options.top_p < 1.0 {
            candidates.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            candidates.truncate(top_k);
            self.keep_top_p(&mut candidates);
            candidates.sort_unstable_by_key(|(token, _)| *token);
        }
        candidates
    }

    /// `candidates` descend; at least the first is kept.
    fn keep_top_p(&self, candidates: &mut Vec<(u32, f64)>) {
        let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        let mut sum = 0.0;
        let limit = f64::from(self.options.top_p) * total;
        let kept = candidates.iter().position(|(_, weight)| {
            sum += weight;
            sum >= limit
        });
        if let Some(last) = kept {
            candidates.truncate(last + 1);
        }
    }
}

/// The most likely token and its logit; none if the logits are no distribution.
pub(crate) fn best(logits: &[f32]) -> Option<(u32, f32)> {
    let mut best: Option<(u32, f32)> = None;
    for (token, logit) in logits.iter().enumerate() {
        if logit.is_nan() || *logit == f32::INFINITY {
            return None;
        }
        if best.is_none_or(|(_, max)| *logit > max) {
            best = Some((token as u32, *logit));
        }
    }
    best.filter(|(_, max)| max.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(options: SamplingOptions, logits: &[f32]) -> Vec<usize> {
        let sampler = Sampler::new(options).expect("valid options");
        let mut counts = vec![0; logits.len()];
        for position in 0..20_000 {
            counts[sampler.sample(logits, position).expect("finite") as usize] += 1;
        }
        counts
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let logits = [0.0, 1.0, 2.0, f32::NEG_INFINITY];
        let counts = counts(
            SamplingOptions {
                temperature: 2.0,
                ..Default::default()
            },
            &logits,
        );
        let weights: Vec<f64> = logits.iter().map(|logit| f64::from(logit / 2.0).exp()).collect();
        let total: f64 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(&weights) {
            let expected = 20_000.0 * weight / total;
            // Five standard deviations.
            assert!((*count as f64 - expected).abs() <= 5.0 * expected.sqrt(), "{counts:?}");
        }
    }

    #[test]
    fn filters_keep_the_likely_tokens() {
        let logits = [3.0, 1.0, 2.0, -5.0];
        let only = |options| {
            counts(options, &logits)
                .iter()
                .map(|count| usize::from(*count > 0))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            only(SamplingOptions {
                top_k: 2,
                ..Default::default()
            }),
            [1, 0, 1, 0]
        );
        assert_eq!(
            only(SamplingOptions {
                top_p: 0.7,
                ..Default::default()
            }),
            [1, 0, 1, 0]
        );
        assert_eq!(
            only(SamplingOptions {
                top_p: 0.01,
                ..Default::default()
            }),
            [1, 0, 0, 0]
        );
        assert_eq!(
            only(SamplingOptions {
                min_p: 0.1,
                ..Default::default()
            }),
            [1, 1, 1, 0]
        );
        assert_eq!(only(SamplingOptions::greedy()), [1, 0, 0, 0]);
    }

    #[test]
    fn bad_options_and_logits_are_errors() {
        for options in [
            SamplingOptions {
                temperature: -1.0,
                ..Default::default()
            },
            SamplingOptions {
                temperature: f32::NAN,
                ..Default::default()
            },
            SamplingOptions {
                top_p: 0.0,
                ..Default::default()
            },
            SamplingOptions {
                min_p: 1.5,
                ..Default::default()
            },
        ] {
            assert!(matches!(Sampler::new(options), Err(Error::Sampling { .. })));
        }
        let sampler = Sampler::new(SamplingOptions::default()).expect("valid");
        for logits in [&[0.0, f32::NAN][..], &[f32::INFINITY, 0.0], &[f32::NEG_INFINITY], &[]] {
            assert!(matches!(
                sampler.sample(logits, 3),
                Err(Error::NonFinite { position: 3 })
            ));
        }
    }
}
