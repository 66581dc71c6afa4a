use std::sync::Arc;

use cachalot_checkpoint::{Checkpoint, ModelConfig};
use cachalot_chip::{Chip, OperationKind, Support};

use crate::{
    Error, ModelOptions, StateOptions, StatePool,
    family::{self, Family},
    loader::Loader,
};

/// A DeepSeek model on a chip.
pub struct Model {
    pub(crate) chip: Arc<dyn Chip>,
    pub(crate) config: ModelConfig,
    pub(crate) options: ModelOptions,
    fingerprint: u128,
    pub(crate) family: Arc<dyn Family>,
}

impl Model {
    /// Puts a checkpoint's weights on a chip. `progress` hears the number of layers done and their total.
    ///
    /// # Errors
    /// [`Error::Checkpoint`], [`Error::Chip`], [`Error::TensorDtype`], [`Error::Family`].
    pub fn load(
        checkpoint: &Checkpoint,
        chip: Arc<dyn Chip>,
        options: ModelOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, Error> {
        let config = checkpoint.config().clone();
        let mut loader = Loader::new(checkpoint, &*chip);
        loader.wants_drafter = options.drafter;
        let family = family::load(&config, &loader, &*chip, progress)?;
        Ok(Model {
            chip,
            config,
            options,
            fingerprint: checkpoint.fingerprint(),
            family,
        })
    }

    /// Memory for sequences of this model.
    ///
    /// # Errors
    /// An error of the chip, for example out of memory.
    pub fn new_state(&self, options: &StateOptions) -> Result<StatePool, Error> {
        let (chip, family) = (Arc::clone(&self.chip), Arc::clone(&self.family));
        StatePool::new(chip, family, self.config.context(), &self.options, options)
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Token that stands for a part of an image, in models that know one: steps refuse it.
    pub fn image_token(&self) -> Option<u32> {
        match &self.config {
            ModelConfig::V41(config) => config.image_token_id,
            _ => None,
        }
    }

    /// Tells the checkpoint from others; see [`Checkpoint::fingerprint`].
    pub fn fingerprint(&self) -> u128 {
        self.fingerprint
    }

    /// The chip that computes.
    pub fn chip(&self) -> &Arc<dyn Chip> {
        &self.chip
    }

    /// How the model computes.
    pub fn options(&self) -> &ModelOptions {
        &self.options
    }

    /// How the chip runs each operator in this model's mode.
    pub fn support(&self) -> Vec<(OperationKind, Support)> {
        let mode = self.options.mode;
        OperationKind::ALL
            .iter()
            .map(|kind| (*kind, self.chip.support(*kind, mode)))
            .collect()
    }
}
