use std::sync::{Mutex, MutexGuard};

use cachalot_chip::{ChipTransfer, Tensor};
use cachalot_model::{Model, StateOptions, StatePool};

use crate::{Error, Session};

/// Sizes of an [`Engine`].
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Tokens that the state memory holds, all sessions together. Default: the model's context.
    pub context: Option<usize>,
    /// Sessions at once. Default 1.
    pub session_count_max: usize,
    /// Rows of a prefill step, at least 1. Default 512.
    pub prefill_row_count: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            context: None,
            session_count_max: 1,
            prefill_row_count: 512,
        }
    }
}

/// A model with its state memory. Sessions take turns: a step runs alone.
pub struct Engine {
    model: Model,
    pool: Mutex<StatePool>,
    options: EngineOptions,
}

impl Engine {
    /// # Errors
    /// [`Error::Model`] if the state memory cannot be had.
    pub fn new(model: Model, mut options: EngineOptions) -> Result<Self, Error> {
        options.prefill_row_count = options.prefill_row_count.max(1);
        let pool = model.new_state(&StateOptions {
            // A session starts over with a fresh sequence before it lets go of the old one.
            sequence_count_max: options.session_count_max + 1,
            token_count_max: options.context,
            step_row_count_max: options.prefill_row_count,
            ..StateOptions::default()
        })?;
        Ok(Engine {
            model,
            pool: Mutex::new(pool),
            options,
        })
    }

    /// A session without tokens.
    ///
    /// # Errors
    /// [`Error::Model`] if all sessions are taken.
    pub fn new_session(&self) -> Result<Session<'_>, Error> {
        let sequence = self.pool().new_sequence()?;
        Ok(Session::new(self, sequence))
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Tokens that a session may have.
    pub fn context(&self) -> usize {
        let limit = self.options.context.unwrap_or(usize::MAX);
        self.pool().context().min(limit)
    }

    /// Rows of a prefill step.
    pub fn prefill_row_count(&self) -> usize {
        self.options.prefill_row_count
    }

    /// The state memory. A step that panicked leaves it usable: sequences know what they lost.
    pub(crate) fn pool(&self) -> MutexGuard<'_, StatePool> {
        self.pool.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn read(&self, logits: &Tensor) -> Result<Vec<f32>, Error> {
        Ok(self.model.chip().read_f32(logits)?)
    }
}
