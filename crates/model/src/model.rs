use std::sync::Arc;

use bytes::Bytes;
use cachalot_checkpoint::{Checkpoint, DeepseekV4Config};
use cachalot_chip::{Chip, OperationKind, Support, Tensor, TensorSource};
use cachalot_numerics::Dtype;

use crate::{
    Error, ModelOptions, StateOptions, StatePool, rope,
    weights::{Loader, Weights},
};

/// A DeepSeek V4 model on a chip.
pub struct Model {
    pub(crate) chip: Arc<dyn Chip>,
    pub(crate) config: DeepseekV4Config,
    pub(crate) options: ModelOptions,
    fingerprint: u128,
    pub(crate) weights: Weights,
    /// `F32 [R / 2]`: frequencies of layers without and with compression.
    pub(crate) plain_frequencies: Tensor,
    pub(crate) compressed_frequencies: Tensor,
}

impl Model {
    /// Puts a checkpoint's weights on a chip. `progress` hears the number of layers done and their total.
    ///
    /// # Errors
    /// [`Error::Checkpoint`], [`Error::Chip`], [`Error::TensorDtype`].
    pub fn load(
        checkpoint: &Checkpoint,
        chip: Arc<dyn Chip>,
        options: ModelOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, Error> {
        let config = checkpoint.config().clone();
        let weights = Loader::new(checkpoint, &*chip).weights(progress)?;
        let frequencies = |compressed: bool| {
            let values = rope::frequencies(&config, compressed);
            chip.load(TensorSource {
                name: "rotary frequencies".to_owned(),
                dtype: Dtype::F32,
                shape: vec![values.len()],
                data: Bytes::from_iter(values.iter().flat_map(|value| value.to_le_bytes())),
            })
        };
        let (plain_frequencies, compressed_frequencies) = (frequencies(false)?, frequencies(true)?);
        Ok(Model {
            chip,
            config,
            options,
            fingerprint: checkpoint.fingerprint(),
            weights,
            plain_frequencies,
            compressed_frequencies,
        })
    }

    /// Memory for sequences of this model.
    ///
    /// # Errors
    /// An error of the chip, for example out of memory.
    pub fn new_state(&self, options: &StateOptions) -> Result<StatePool, Error> {
        StatePool::new(Arc::clone(&self.chip), &self.config, &self.options, options)
    }

    /// The model's configuration.
    pub fn config(&self) -> &DeepseekV4Config {
        &self.config
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
