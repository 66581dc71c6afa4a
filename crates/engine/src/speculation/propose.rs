//! The guesses.

use cachalot_chip::{Chip, ChipTransfer};
use cachalot_model::{Draft, DraftRequest, Error as ModelError, Model, Sequence, StatePool};

use crate::{
    Sampler,
    sampling::{History, best},
    score::log_sum_exp,
};

/// A request that tokens shall be guessed for.
pub(crate) struct Proposal<'a> {
    pub sequence: &'a mut Sequence,
    /// All tokens, the last of which is not yet computed.
    pub tokens: &'a [u32],
    /// Tokens to guess at most.
    pub count: usize,
    /// How the answer's tokens are drawn: guesses are drawn in the same way.
    pub sampler: &'a Sampler,
    pub history: &'a History,
}

/// Guesses for each request; those less likely than `survival_min` to be reached and right are left out.
///
/// # Errors
/// An error of the chip.
pub(crate) fn propose(
    model: &Model,
    pool: &mut StatePool,
    proposals: Vec<Proposal<'_>>,
    survival_min: f64,
) -> Result<Vec<Vec<u32>>, ModelError> {
    let mut requests = Vec::with_capacity(proposals.len());
    let mut guessers = Vec::with_capacity(proposals.len());
    for proposal in proposals {
        let Proposal {
            sequence,
            tokens,
            count,
            sampler,
            history,
        } = proposal;
        guessers.push(Guesser {
            sampler,
            // Guesses count for penalties as if they were drawn.
            history: history.clone(),
            position: tokens.len(),
            survival: 1.0,
        });
        requests.push(DraftRequest {
            sequence,
            tokens,
            count,
        });
    }
    let chip = &**model.chip();
    model.draft(pool, &mut requests, &mut |draft| {
        choose(chip, draft, &mut guessers, survival_min)
    })
}

/// What one request's guesses depend on.
struct Guesser<'a> {
    sampler: &'a Sampler,
    history: History,
    /// Of the first guess.
    position: usize,
    /// Probability that all guesses so far are right, by the drafter's own account.
    survival: f64,
}

fn choose(
    chip: &dyn Chip,
    draft: &Draft<'_>,
    guessers: &mut [Guesser<'_>],
    survival_min: f64,
) -> Result<Vec<Option<u32>>, ModelError> {
    let mut logits = chip.read_f32(draft.logits)?;
    let confidences = draft.confidences.map(|tensor| chip.read_f32(tensor)).transpose()?;
    let vocabulary = logits.len() / draft.requests.len().max(1);
    let rows = draft
        .requests
        .iter()
        .zip(logits.chunks_exact_mut(vocabulary))
        .enumerate();
    let tokens = rows.map(|(row, (request, logits))| {
        let guesser = &mut guessers[*request];
        // Where many tokens are likely, what a plain probability says about a draw with the same random number is little.
        let is_greedy = guesser.sampler.options().temperature == 0.0;
        if survival_min > 0.0 && (is_greedy || confidences.is_some()) {
            guesser.survival *= match &confidences {
                Some(confidences) => 1.0 / (1.0 + f64::from(-confidences[row]).exp()),
                None => largest_probability(logits),
            };
            if guesser.survival < survival_min {
                return None;
            }
        }
        guesser.sampler.adjust(logits, &guesser.history, None);
        // Logits that are no distribution are no guess.
        let token = guesser.sampler.sample(logits, guesser.position + draft.index).ok()?;
        if guesser.sampler.options().adjusts() {
            guesser.history.push(token);
        }
        Some(token)
    });
    Ok(tokens.collect())
}

/// Probability of the most likely token.
fn largest_probability(logits: &[f32]) -> f64 {
    match (best(logits), log_sum_exp(logits)) {
        (Some((_, max)), Some(normaliser)) => (f64::from(max) - normaliser).exp(),
        _ => 0.0,
    }
}
