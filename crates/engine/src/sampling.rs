use std::collections::HashMap;

use crate::{Error, TokenMask, random::uniform, score::log_sum_exp};

/// How the next token is drawn.
///
/// The logits pass through repetition, presence and frequency penalty, bias, constraint, temperature, top-k, min-p and
/// top-p in this order.
#[derive(Clone, Debug, PartialEq)]
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
    /// Subtracted from the logit of every token of the answer so far. -2 to 2, default 0.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token once for each time that it stands in the answer so far. -2 to 2, default 0.
    pub frequency_penalty: f32,
    /// Divides the positive logits of tokens of prompt and answer and multiplies the negative ones. Above 0, default 1.
    pub repetition_penalty: f32,
    /// Added to the logits of tokens, each -100 to 100. Default: none.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        SamplingOptions {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            seed: 0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: Vec::new(),
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
        check((0.0..=1.0).contains(&self.min_p), "min_p", self.min_p, "0 to 1")?;
        for (option, value) in [
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
        ] {
            check((-2.0..=2.0).contains(&value), option, value, "-2 to 2")?;
        }
        check(
            self.repetition_penalty > 0.0 && self.repetition_penalty <= 100.0,
            "repetition_penalty",
            self.repetition_penalty,
            "above 0, up to 100",
        )?;
        let strange = self
            .logit_bias
            .iter()
            .find(|(_, bias)| !(-100.0..=100.0).contains(bias));
        check(
            strange.is_none(),
            "logit_bias",
            strange.map_or(0.0, |(_, bias)| *bias),
            "-100 to 100",
        )
    }

    /// Whether every token may be drawn.
    fn is_plain(&self) -> bool {
        self.top_k == 0 && self.top_p >= 1.0 && self.min_p == 0.0
    }

    /// Whether logits have to be changed before they are drawn from.
    pub(crate) fn adjusts(&self) -> bool {
        self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0
            || self.repetition_penalty != 1.0
            || !self.logit_bias.is_empty()
    }
}

/// Which tokens an answer and its prompt hold, for penalties.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// How often a token stands in the answer; 0 for those of the prompt alone.
    counts: HashMap<u32, u32>,
}

impl History {
    /// An answer to `prompt` without tokens yet.
    pub fn new(prompt: &[u32]) -> Self {
        History {
            counts: prompt.iter().map(|token| (*token, 0)).collect(),
        }
    }

    /// Adds a token to the answer.
    pub fn push(&mut self, token: u32) {
        *self.counts.entry(token).or_default() += 1;
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

    /// How tokens are drawn.
    pub fn options(&self) -> &SamplingOptions {
        &self.options
    }

    /// Applies penalties, bias and constraint to logits.
    pub fn adjust(&self, logits: &mut [f32], history: &History, mask: Option<&TokenMask>) {
        let options = &self.options;
        if options.adjusts() {
            for (token, count) in &history.counts {
                let Some(logit) = logits.get_mut(*token as usize) else {
                    continue;
                };
                if *logit > 0.0 {
                    *logit /= options.repetition_penalty;
                } else {
                    *logit *= options.repetition_penalty;
                }
                if *count > 0 {
                    *logit -= options.presence_penalty + options.frequency_penalty * *count as f32;
                }
            }
            for (token, bias) in &options.logit_bias {
                if let Some(logit) = logits.get_mut(*token as usize) {
                    *logit += bias;
                }
            }
        }
        if let Some(mask) = mask {
            mask.apply(logits);
        }
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
        let point = uniform(self.options.seed, position as u64);
        if self.options.is_plain() {
            return Ok(self.sample_from_all(logits, max, point).unwrap_or(best));
        }
        let candidates = self.candidates(logits, max);
        let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        let mut rest = point * total;
        for (token, weight) in &candidates {
            if rest < *weight {
                return Ok(*token);
            }
            rest -= weight;
        }
        // Rounding may leave a crumb after the last candidate.
        Ok(candidates.last().map_or(best, |(token, _)| *token))
    }

    /// As [`Sampler::sample`] without top-k, top-p and min-p, which is what servers mostly do: weights are never stored.
    /// `point` is within `0..1`.
    fn sample_from_all(&self, logits: &[f32], max: f32, point: f64) -> Option<u32> {
        let inverse_temperature = self.options.temperature.max(1e-5).recip();
        let weights = |block: &[f32]| padded(block).map(|logit| exp((logit - max) * inverse_temperature));
        let sums: Vec<f64> = logits.chunks(BLOCK).map(|block| sum(&weights(block))).collect();
        let mut rest = point * sums.iter().sum::<f64>();
        let mut last = None;
        for (index, sum) in sums.iter().enumerate() {
            if *sum > 0.0 {
                last = Some(index);
            }
            if rest < *sum {
                break;
            }
            rest -= sum;
        }
        // Rounding may leave a crumb after the last block or token that weighs something: then it is that one.
        let index = last?;
        let block = logits.chunks(BLOCK).nth(index)?;
        let mut token = None;
        for (offset, weight) in weights(block).into_iter().enumerate() {
            let weight = f64::from(weight);
            if weight > 0.0 {
                token = Some((index * BLOCK + offset) as u32);
            }
            if rest < weight {
                break;
            }
            rest -= weight;
        }
        token
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

/// Logits that are looked at together, so that the compiler can make vectors of them.
const BLOCK: usize = 64;

/// The sum of a block in an order that vectors can keep.
fn sum(block: &[f32; BLOCK]) -> f64 {
    let mut lanes = [0f64; 8];
    for part in block.chunks_exact(lanes.len()) {
        for (lane, value) in lanes.iter_mut().zip(part) {
            *lane += f64::from(*value);
        }
    }
    lanes.iter().sum()
}

/// A block, filled up with logits of tokens that cannot be.
fn padded(block: &[f32]) -> [f32; BLOCK] {
    let mut whole = [f32::NEG_INFINITY; BLOCK];
    whole[..block.len()].copy_from_slice(block);
    whole
}

/// e to the power of `x`, which is at most 0, within two units in the last place; 0 below -87. Without branches and calls,
/// and so the same on every machine.
fn exp(x: f32) -> f32 {
    // Adding and taking away 1.5 * 2^23 rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    let bounded = x.max(-87.0);
    let power = bounded * std::f32::consts::LOG2_E + ROUND;
    let exponent = power - ROUND;
    // ln 2 in two parts, the first exact in products with small integers (Cody and Waite).
    let rest = bounded - exponent * 0.693_359_4 + exponent * 2.121_944_4e-4;
    // Taylor up to the seventh power: the rest is at most ln 2 / 2.
    let mut sum = 1.0 / 5040.0;
    for factor in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = sum * rest + factor;
    }
    let scale = f32::from_bits((power.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < -87.0 { 0.0 } else { sum * scale }
}

/// The most likely token and its logit; none if the logits are no distribution.
pub(crate) fn best(logits: &[f32]) -> Option<(u32, f32)> {
    let mut best: Option<(u32, f32)> = None;
    for (index, block) in logits.chunks(BLOCK).enumerate() {
        // One pass that vectorises; only a block with a new maximum is looked at token by token.
        let whole = padded(block);
        let is_valid = whole.iter().fold(true, |valid, logit| valid & (*logit < f32::INFINITY));
        if !is_valid {
            return None;
        }
        let max = whole
            .iter()
            .fold(f32::NEG_INFINITY, |max, logit| if *logit > max { *logit } else { max });
        if best.is_none_or(|(_, found)| max > found) {
            let offset = whole.iter().position(|logit| *logit == max)?;
            best = Some(((index * BLOCK + offset) as u32, max));
        }
    }
    best.filter(|(_, max)| max.is_finite())
}

/// Natural logarithms of the probabilities of `token` and of the `count` most likely tokens, in descending order; ties go
/// to the lower id. None if the logits are no distribution.
pub(crate) fn log_probabilities(logits: &[f32], token: u32, count: usize) -> Option<(f32, Vec<(u32, f32)>)> {
    let normaliser = log_sum_exp(logits)?;
    let log_probability = |logit: f32| (f64::from(logit) - normaliser) as f32;
    let count = count.min(logits.len());
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let descending = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if count < order.len() && count > 0 {
        order.select_nth_unstable_by(count - 1, descending);
    }
    order.truncate(count);
    order.sort_unstable_by(descending);
    let top = order
        .into_iter()
        .map(|token| (token, log_probability(logits[token as usize])));
    Some((log_probability(*logits.get(token as usize)?), top.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn penalties_and_biases_follow_their_formulas() {
        let options = SamplingOptions {
            presence_penalty: 0.5,
            frequency_penalty: 0.25,
            repetition_penalty: 2.0,
            logit_bias: vec![(0, -3.0), (9, 1.0)],
            ..Default::default()
        };
        let mut history = History::new(&[1, 2]);
        for token in [2, 3, 3] {
            history.push(token);
        }
        let mut logits = [1.0, -1.0, 4.0, -2.0];
        Sampler::new(options)
            .expect("valid")
            .adjust(&mut logits, &history, None);
        assert_eq!(logits, [-2.0, -2.0, 4.0 / 2.0 - 0.75, -4.0 - 1.0]);
    }

    #[test]
    fn log_probabilities_are_those_of_the_softmax() {
        let logits = [0.0, 3f32.ln(), f32::NEG_INFINITY, 0.0];
        let (own, top) = log_probabilities(&logits, 0, 3).expect("a distribution");
        assert!((own - 0.2f32.ln()).abs() < 1e-6);
        let expected = [(1, 0.6f32.ln()), (0, 0.2f32.ln()), (3, 0.2f32.ln())];
        assert_eq!(top.len(), 3);
        for ((token, found), (expected_token, expected)) in top.iter().zip(expected) {
            assert!(*token == expected_token && (found - expected).abs() < 1e-6, "{top:?}");
        }
        assert_eq!(log_probabilities(&logits, 0, 0).expect("a distribution").1, []);
        assert_eq!(log_probabilities(&logits, 0, 99).expect("a distribution").1.len(), 4);
    }

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
    fn exponentials_are_close_to_the_exact_ones() {
        for step in 0..870_000 {
            let x = step as f32 * -1e-4;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 3e-7, "e^{x}: {error}");
        }
        assert_eq!((exp(0.0), exp(-88.0), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
    }

    #[test]
    fn all_tokens_are_drawn_as_often_with_and_without_a_filter_that_keeps_all() {
        // Wider than a block, with an unused token, and a last block that is not full.
        let mut logits: Vec<f32> = (0..150).map(|token| (token * 37 % 100) as f32 / 25.0).collect();
        logits[149] = f32::NEG_INFINITY;
        let plain = Sampler::new(SamplingOptions::default()).expect("valid");
        let keeps_all = SamplingOptions {
            top_k: 150,
            ..Default::default()
        };
        let filtered = Sampler::new(keeps_all).expect("valid");
        let draw = |sampler: &Sampler, position| sampler.sample(&logits, position).expect("finite");
        let different = (0..20_000).filter(|position| draw(&plain, *position) != draw(&filtered, *position));
        // Both draw with the same random number; only roundings can tell them apart.
        assert!(different.count() <= 2);
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
