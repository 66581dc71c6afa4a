//! What a family of models adds to what all share.

use std::sync::Arc;

use cachalot_checkpoint::ModelConfig;
use cachalot_chip::{Chip, Tensor};

use crate::{
    DraftRequest, Error, ModelOptions,
    draft::{Choose, DraftContext},
    loader::Loader,
    memory::StateBuilder,
    step::Step,
    v3, v4, v41,
};

/// A model of one family on a chip: its weights and how its layers compute.
///
/// A new family implements this trait and [`Forward`], and gets a line in [`load`].
pub(crate) trait Family: Send + Sync {
    /// Memory of sequences, asked from `state`, and of steps of up to `row_count` rows.
    ///
    /// # Errors
    /// An error of the chip, for example out of memory.
    fn new_forward(
        self: Arc<Self>,
        options: &ModelOptions,
        state: &mut StateBuilder<'_>,
        row_count: usize,
    ) -> Result<Box<dyn Forward>, Error>;

    /// Tokens that the model's own drafter guesses at once, if it was loaded.
    fn draft_count_max(&self) -> Option<usize> {
        None
    }
}

/// The forward pass of a model over the memory of one pool.
pub(crate) trait Forward: Send + Sync {
    /// Takes a step's rows through all layers, writing the state of its sequences. Returns the logits
    /// `F32 [output rows, vocabulary]`, or none if no row was asked for.
    ///
    /// # Errors
    /// An error of the chip.
    fn forward(&mut self, step: &Step<'_>) -> Result<Option<Tensor>, Error>;

    /// Guesses the tokens after those of checked requests, as [`Model::draft`](crate::Model::draft) does.
    ///
    /// # Errors
    /// An error of the chip or of `choose`.
    fn draft(
        &mut self,
        _context: &DraftContext<'_>,
        requests: &mut [DraftRequest<'_>],
        _choose: &mut Choose<'_>,
    ) -> Result<Vec<Vec<u32>>, Error> {
        Ok(vec![Vec::new(); requests.len()])
    }
}

/// Puts the weights of a model on a chip. `progress` hears the number of layers done and their total.
pub(crate) fn load(
    config: &ModelConfig,
    loader: &Loader<'_>,
    chip: &dyn Chip,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Arc<dyn Family>, Error> {
    match config {
        ModelConfig::V3(config) => Ok(Arc::new(v3::V3::load(config, loader, chip, progress)?)),
        ModelConfig::V4(config) => Ok(Arc::new(v4::V4::load(config, loader, chip, progress)?)),
        ModelConfig::V41(config) => Ok(Arc::new(v41::V41::load(config, loader, chip, progress)?)),
        other => Err(Error::Family { family: other.family() }),
    }
}
