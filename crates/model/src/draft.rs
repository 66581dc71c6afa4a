//! Guesses of a model's own drafter about the tokens to come.

use std::sync::Arc;

use cachalot_chip::{Chip, Tensor};

use crate::{Error, Model, ModelOptions, Sequence, StatePool};

/// A sequence whose next tokens shall be guessed.
pub struct DraftRequest<'a> {
    /// The sequence.
    pub sequence: &'a mut Sequence,
    /// All its tokens and one more: the token that is decided but not yet computed.
    pub tokens: &'a [u32],
    /// Tokens to guess at most.
    pub count: usize,
}

/// One guess each for some requests.
pub struct Draft<'a> {
    /// Which token after the decided one this is, from 0.
    pub index: usize,
    /// Positions of the requests in the slice that was given.
    pub requests: &'a [usize],
    /// `F32 [requests, vocabulary]`: the drafter's logits.
    pub logits: &'a Tensor,
    /// `F32 [requests, 1]`: logits of the drafter's own belief that its guess is right. DSpark only.
    pub confidences: Option<&'a Tensor>,
}

/// Picks a token for each request of a [`Draft`], or none to stop guessing for it.
pub type Choose<'c> = dyn FnMut(&Draft<'_>) -> Result<Vec<Option<u32>>, Error> + 'c;

/// What drafting needs of the model around a family's memory.
pub(crate) struct DraftContext<'a> {
    pub chip: &'a dyn Chip,
    pub options: &'a ModelOptions,
}

impl Model {
    /// Tokens that can be guessed at once: those of a DSpark block, a few with an MTP layer, which grows unsure soon.
    /// None without a drafter.
    pub fn draft_count_max(&self) -> Option<usize> {
        self.family.draft_count_max()
    }

    /// Guesses the tokens after those of `requests`: for each the tokens that `choose` picked from the drafter's logits.
    ///
    /// Guesses are nothing but guesses: whoever uses them runs them through [`Model::step`] and keeps what the model
    /// itself would have drawn. A request gets none if the pool was made without `draft_count_max` or nothing is known
    /// about the sequence's last position, as after a restored snapshot. An answer of `choose` that is too short stops
    /// the requests it says nothing of.
    ///
    /// # Errors
    /// [`Error::DraftTokens`], [`Error::Token`], [`Error::ForeignSequence`], [`Error::ForeignPool`], an error of `choose`
    /// or of the chip. The sequences can be used on.
    pub fn draft(
        &self,
        pool: &mut StatePool,
        requests: &mut [DraftRequest<'_>],
        choose: &mut Choose<'_>,
    ) -> Result<Vec<Vec<u32>>, Error> {
        self.check_drafts(pool, requests)?;
        let context = DraftContext {
            chip: &*self.chip,
            options: &self.options,
        };
        pool.forward.draft(&context, requests, choose)
    }

    fn check_drafts(&self, pool: &StatePool, requests: &[DraftRequest<'_>]) -> Result<(), Error> {
        if !std::ptr::addr_eq(Arc::as_ptr(&self.family), Arc::as_ptr(&pool.family)) {
            return Err(Error::ForeignPool);
        }
        let vocabulary = self.config.vocab_size();
        for DraftRequest { sequence, tokens, .. } in requests {
            pool.check_own(sequence)?;
            if tokens.len() != sequence.length + 1 {
                return Err(Error::DraftTokens {
                    length: sequence.length,
                    found: tokens.len(),
                });
            }
            if let Some(token) = tokens.iter().find(|token| **token as usize >= vocabulary) {
                return Err(Error::Token {
                    token: *token,
                    vocabulary,
                });
            }
        }
        Ok(())
    }
}
