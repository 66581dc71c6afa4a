use std::sync::atomic::{AtomicBool, Ordering};

use cachalot_model::{Chunk, Outputs, Sequence};

use crate::{Engine, Error, FinishReason, Sampler, SamplingOptions};

/// One growing sequence of tokens.
pub struct Session<'e> {
    engine: &'e Engine,
    sequence: Sequence,
    /// Tokens in the state, in order.
    tokens: Vec<u32>,
}

/// How an answer is generated.
#[derive(Clone, Debug)]
pub struct GenerationOptions {
    /// How tokens are drawn.
    pub sampling: SamplingOptions,
    /// Tokens of the answer at most. Default: what the context leaves.
    pub token_count_max: Option<usize>,
    /// Tokens that end the answer; they are not part of it.
    pub stop_tokens: Vec<u32>,
}

/// The tokens of one answer.
pub struct Generation<'s, 'e> {
    session: &'s mut Session<'e>,
    sampler: Sampler,
    options: GenerationOptions,
    /// Logits of the next token, or none when it has to be computed from `pending`.
    logits: Option<Vec<f32>>,
    pending: Option<u32>,
    generated: usize,
    finish: Option<FinishReason>,
    /// Prompt tokens that were in the state already.
    reused: usize,
}

impl<'e> Session<'e> {
    pub(crate) fn new(engine: &'e Engine, sequence: Sequence) -> Self {
        Session {
            engine,
            sequence,
            tokens: Vec::new(),
        }
    }

    /// Tokens in the state.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Feeds a prompt, from its first token, and prepares its answer.
    ///
    /// What the prompt shares with the tokens already in the state is reused where the state can be rolled back to
    /// it; otherwise the prompt is fed from the start. `progress` hears how many prompt tokens are in the state.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`], [`Error::PromptTooLong`], [`Error::Sampling`], [`Error::Cancelled`], or an error of the
    /// model. The session can be used again with any prompt.
    pub fn generate<'s>(
        &'s mut self,
        prompt: &[u32],
        options: GenerationOptions,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Generation<'s, 'e>, Error> {
        let sampler = Sampler::new(options.sampling.clone())?;
        let context = self.engine.context();
        if prompt.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if prompt.len() >= context {
            return Err(Error::PromptTooLong {
                length: prompt.len(),
                context,
            });
        }
        let reused = self.keep_common_prefix(prompt)?;
        let logits = self.feed(&prompt[reused..], cancel, progress)?;
        Ok(Generation {
            session: self,
            sampler,
            options,
            logits: Some(logits),
            pending: None,
            generated: 0,
            finish: None,
            reused,
        })
    }

    /// Rolls back or starts over so that the state is a prefix of `prompt`, at least one token shorter.
    fn keep_common_prefix(&mut self, prompt: &[u32]) -> Result<usize, Error> {
        let common = self
            .tokens
            .iter()
            .zip(prompt)
            .take_while(|(a, b)| a == b)
            .count()
            .min(prompt.len() - 1);
        if self.sequence.len() == self.tokens.len() && self.sequence.roll_back(common).is_ok() {
            self.tokens.truncate(common);
            return Ok(common);
        }
        self.sequence = self.engine.pool().new_sequence()?;
        self.tokens.clear();
        Ok(0)
    }

    /// Feeds tokens in chunks and returns the logits of the last one.
    fn feed(
        &mut self,
        tokens: &[u32],
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<f32>, Error> {
        let row_count = self.engine.prefill_row_count();
        let chunk_count = tokens.len().div_ceil(row_count);
        let mut logits = Vec::new();
        for (index, chunk) in tokens.chunks(row_count).enumerate() {
            if cancel.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            let outputs = if index + 1 == chunk_count {
                Outputs::Last
            } else {
                Outputs::None
            };
            let mut pool = self.engine.pool();
            let mut chunks = [Chunk {
                sequence: &mut self.sequence,
                tokens: chunk,
                outputs,
            }];
            let output = self.engine.model().step(&mut pool, &mut chunks)?;
            self.tokens.extend_from_slice(chunk);
            if let Some(output) = output {
                logits = self.engine.read(&output)?;
            }
            drop(pool);
            progress(self.tokens.len());
        }
        Ok(logits)
    }
}

impl Generation<'_, '_> {
    /// The next token of the answer, or none when it has ended.
    ///
    /// The token is fed only when the one after it is asked for, so an answer that is broken off costs nothing more.
    ///
    /// # Errors
    /// [`Error::NonFinite`] or an error of the model.
    pub fn next_token(&mut self) -> Result<Option<u32>, Error> {
        if self.finish.is_some() {
            return Ok(None);
        }
        let full = self.session.tokens.len() + usize::from(self.pending.is_some()) >= self.session.engine.context();
        if full || self.options.token_count_max.is_some_and(|max| self.generated >= max) {
            self.finish = Some(FinishReason::Length);
            return Ok(None);
        }
        let logits = match (self.logits.take(), self.pending.take()) {
            (Some(logits), _) => logits,
            (None, Some(token)) => self.session.feed(&[token], &AtomicBool::new(false), &mut |_| {})?,
            (None, None) => return Ok(None),
        };
        let token = self.sampler.sample(&logits, self.session.tokens.len())?;
        if self.options.stop_tokens.contains(&token) {
            self.finish = Some(FinishReason::Stop);
            return Ok(None);
        }
        self.generated += 1;
        self.pending = Some(token);
        Ok(Some(token))
    }

    /// Why the answer ended, once it has.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }

    /// Tokens generated so far.
    pub fn generated_count(&self) -> usize {
        self.generated
    }

    /// Prompt tokens that were in the state already.
    pub fn reused_count(&self) -> usize {
        self.reused
    }
}
