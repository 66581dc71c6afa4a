//! How far one set of logits is from another.

use crate::{sampling::best, score::log_sum_exp};

/// Distance of next-token distributions from those of a reference, over the positions of one or more texts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Distance {
    /// Positions compared.
    pub position_count: usize,
    /// Sum over positions of `sum_i p_i ln(p_i / q_i)`, `p` the reference.
    pub kl_sum: f64,
    /// Largest of them.
    pub kl_max: f64,
    /// Positions where both find the same token most likely.
    pub top1_count: usize,
    /// Largest over positions of `max_i |a_i - b_i| / max_i |b_i|`, `b` the reference.
    pub relative_error_max: f64,
}

impl Distance {
    /// Adds one position. Logits that are no distribution make the divergence infinite.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add(&mut self, logits: &[f32], reference: &[f32]) {
        assert_eq!(
            logits.len(),
            reference.len(),
            "distributions over different vocabularies"
        );
        let kl = kl_divergence(reference, logits).unwrap_or(f64::INFINITY);
        self.position_count += 1;
        self.kl_sum += kl;
        self.kl_max = self.kl_max.max(kl);
        let same = best(logits).zip(best(reference)).is_some_and(|(a, b)| a.0 == b.0);
        self.top1_count += usize::from(same);
        self.relative_error_max = self.relative_error_max.max(relative_error(logits, reference));
    }

    /// Adds the positions of another text.
    pub fn merge(&mut self, other: &Distance) {
        self.position_count += other.position_count;
        self.kl_sum += other.kl_sum;
        self.kl_max = self.kl_max.max(other.kl_max);
        self.top1_count += other.top1_count;
        self.relative_error_max = self.relative_error_max.max(other.relative_error_max);
    }

    /// Mean divergence of a position in nats; 0 without positions.
    pub fn kl_mean(&self) -> f64 {
        self.kl_sum / self.position_count.max(1) as f64
    }

    /// Share of positions with the same most likely token.
    pub fn top1_agreement(&self) -> f64 {
        self.top1_count as f64 / self.position_count.max(1) as f64
    }
}

/// `sum_i p_i ln(p_i / q_i)` of the softmax of two sets of logits; none if one of them is no distribution.
fn kl_divergence(p: &[f32], q: &[f32]) -> Option<f64> {
    let (p_normaliser, q_normaliser) = (log_sum_exp(p)?, log_sum_exp(q)?);
    let mut sum = 0.0;
    for (p, q) in p.iter().zip(q) {
        let log_p = f64::from(*p) - p_normaliser;
        let probability = log_p.exp();
        if probability > 0.0 {
            sum += probability * (log_p - (f64::from(*q) - q_normaliser));
        }
    }
    Some(sum.max(0.0))
}

fn relative_error(logits: &[f32], reference: &[f32]) -> f64 {
    // `max` passes over NaN.
    if logits.iter().chain(reference).any(|logit| logit.is_nan()) {
        return f64::INFINITY;
    }
    let scale = reference.iter().fold(0.0f32, |max, value| max.max(value.abs()));
    let difference = logits
        .iter()
        .zip(reference)
        .fold(0.0f32, |max, (a, b)| max.max((a - b).abs()));
    if scale > 0.0 {
        f64::from(difference / scale)
    } else {
        f64::from(difference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_distributions_have_no_distance() {
        let mut distance = Distance::default();
        // Logits are equal up to a constant.
        distance.add(&[1.0, 2.0, 3.0], &[0.0, 1.0, 2.0]);
        assert!(distance.kl_mean() < 1e-12);
        assert_eq!(distance.top1_agreement(), 1.0);
    }

    #[test]
    fn divergence_of_two_coins() {
        // p = (1/2, 1/2), q = (1/4, 3/4): ln(4/3) / 2 + ... = 0.5 ln 2 + 0.5 ln(2/3).
        let mut distance = Distance::default();
        distance.add(&[0.0, 3f32.ln()], &[0.0, 0.0]);
        let expected = 0.5 * 2f64.ln() + 0.5 * (2f64 / 3.0).ln();
        assert!((distance.kl_mean() - expected).abs() < 1e-6);
        assert_eq!(distance.top1_count, 0);
        distance.add(&[f32::NAN, 0.0], &[0.0, 0.0]);
        assert_eq!(distance.kl_max, f64::INFINITY);
        assert_eq!(distance.relative_error_max, f64::INFINITY);
    }
}
