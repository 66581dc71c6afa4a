use crate::Error;

/// A set of token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMask {
    words: Vec<u32>,
}

impl TokenMask {
    /// No token of a vocabulary of this size.
    pub fn none(vocabulary: usize) -> Self {
        TokenMask {
            words: vec![0; vocabulary.div_ceil(32)],
        }
    }

    /// The tokens whose bits are set, 32 in a word, low bits first.
    pub fn from_words(words: Vec<u32>) -> Self {
        TokenMask { words }
    }

    /// Adds a token; ids outside the vocabulary are ignored.
    pub fn allow(&mut self, token: u32) {
        if let Some(word) = self.words.get_mut(token as usize / 32) {
            *word |= 1 << (token % 32);
        }
    }

    /// Whether the set holds a token.
    pub fn is_allowed(&self, token: u32) -> bool {
        let word = self.words.get(token as usize / 32);
        word.is_some_and(|word| word >> (token % 32) & 1 == 1)
    }

    /// Tokens in the set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Makes every token outside the set impossible.
    pub(crate) fn apply(&self, logits: &mut [f32]) {
        for (index, logits) in logits.chunks_mut(32).enumerate() {
            let word = self.words.get(index).copied().unwrap_or(0);
            if word == u32::MAX {
                continue;
            }
            for (bit, logit) in logits.iter_mut().enumerate() {
                if word >> bit & 1 == 0 {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }
}

/// Limits which tokens of an answer may be drawn.
///
/// The engine asks for a mask before each token and commits the token that was drawn. A stop token ends the answer and is
/// committed as well.
pub trait Constraint: Send {
    /// The tokens that may come next, or none if all may.
    ///
    /// # Errors
    /// [`Error::Constraint`].
    fn mask(&mut self) -> Result<Option<&TokenMask>, Error>;

    /// Takes the token that was drawn.
    ///
    /// # Errors
    /// [`Error::Constraint`].
    fn commit(&mut self, token: u32) -> Result<(), Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_outside_the_set_become_impossible() {
        let mut mask = TokenMask::none(70);
        for token in [0, 31, 32, 69, 700] {
            mask.allow(token);
        }
        let mut logits = [1.0; 70];
        mask.apply(&mut logits);
        let left: Vec<usize> = (0..70).filter(|token| logits[*token].is_finite()).collect();
        assert_eq!(left, [0, 31, 32, 69]);
        assert_eq!(mask.count(), 4);
        assert!(mask.is_allowed(69) && !mask.is_allowed(68) && !mask.is_allowed(700));
    }
}
