//! Teacher-forced scoring: how likely a model finds given tokens.

use std::sync::atomic::{AtomicBool, Ordering};

use cachalot_model::{Chunk, Outputs};

use crate::{Engine, Error, sampling::best};

/// How likely a model finds one text.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// Natural logarithm of the probability of each token but the first, given those before it.
    pub log_probabilities: Vec<f64>,
}

impl Score {
    /// `exp(-mean(log_probabilities))`, or none for fewer than two tokens.
    pub fn perplexity(&self) -> Option<f64> {
        let count = self.log_probabilities.len();
        (count > 0).then(|| (-self.log_probabilities.iter().sum::<f64>() / count as f64).exp())
    }
}

/// Scores `tokens`; `observe` sees the logits of each position in order.
///
/// Rows are computed in chunks small enough that their logits stay below 64 MiB.
///
/// # Errors
/// [`Error::EmptyPrompt`], [`Error::PromptTooLong`], [`Error::NonFinite`], [`Error::Cancelled`], an error of the model, or
/// whatever `observe` returns.
pub fn score<E: From<Error>>(
    engine: &Engine,
    tokens: &[u32],
    cancel: &AtomicBool,
    mut observe: impl FnMut(usize, &[f32]) -> Result<(), E>,
) -> Result<Score, E> {
    const LOGIT_BYTES_MAX: usize = 64 << 20;
    if tokens.is_empty() {
        return Err(Error::EmptyPrompt.into());
    }
    let (context, vocabulary) = (engine.context(), engine.model().config().vocab_size());
    if tokens.len() > context {
        return Err(Error::PromptTooLong {
            length: tokens.len(),
            context,
        }
        .into());
    }
    // A step checks its own tokens only, and the last row of a chunk is scored against the first token of the next.
    if let Some(token) = tokens.iter().find(|token| **token as usize >= vocabulary) {
        let unknown = cachalot_model::Error::Token {
            token: *token,
            vocabulary,
        };
        return Err(Error::from(unknown).into());
    }
    let mut sequence = engine.pool().new_sequence().map_err(Error::from)?;
    let row_count = (LOGIT_BYTES_MAX / (4 * vocabulary)).clamp(1, engine.prefill_row_count());
    let mut log_probabilities = Vec::with_capacity(tokens.len() - 1);
    let mut position = 0;
    for chunk in tokens.chunks(row_count) {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled.into());
        }
        let mut chunks = [Chunk {
            sequence: &mut sequence,
            tokens: chunk,
            outputs: Outputs::All,
        }];
        // Held until the logits are read: the next step, of whatever session, overwrites them.
        let mut pool = engine.pool();
        let output = engine.model().step(&mut pool, &mut chunks).map_err(Error::from)?;
        let logits = output
            .map(|output| engine.read(&output))
            .transpose()?
            .unwrap_or_default();
        drop(pool);
        for logits in logits.chunks_exact(vocabulary) {
            let normaliser = log_sum_exp(logits).ok_or(Error::NonFinite { position: position + 1 })?;
            observe(position, logits)?;
            position += 1;
            if let Some(next) = tokens.get(position) {
                log_probabilities.push(f64::from(logits[*next as usize]) - normaliser);
            }
        }
    }
    Ok(Score { log_probabilities })
}

/// `ln(sum(exp(logits)))`, or none if the logits are no distribution.
pub(crate) fn log_sum_exp(logits: &[f32]) -> Option<f64> {
    let (_, max) = best(logits)?;
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
    Some(f64::from(max) + sum.ln())
}
