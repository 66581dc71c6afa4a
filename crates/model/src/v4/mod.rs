//! DeepSeek-V4: hyper-connections, window attention with compressed entries, hashed and routed experts.
//!
//! The forward pass is written in `pass.rs`, `attention.rs`, `experts.rs` and `hyper.rs`, in the order of sections 1 to 6
//! of the V4 architecture notes.

mod attention;
mod drafter;
mod experts;
mod hyper;
mod memory;
#[cfg(test)]
mod official;
mod pass;
mod weights;
mod workspace;

use std::sync::Arc;

use cachalot_checkpoint::DeepseekV4Config;
use cachalot_chip::{Chip, Tensor};

use crate::{
    Error, ModelOptions,
    family::{Family, Forward},
    loader::Loader,
    memory::StateBuilder,
    rope,
};
use drafter::Drafter;
use memory::Memory;
use weights::Weights;

/// A V4 model on a chip.
pub(crate) struct V4 {
    config: DeepseekV4Config,
    weights: Weights,
    /// MTP layer or DSpark stages, if they were asked for and are there.
    drafter: Option<Drafter>,
    /// `F32 [R / 2]`: frequencies of layers without and with compression.
    plain_frequencies: Tensor,
    compressed_frequencies: Tensor,
}

impl V4 {
    /// Loads the weights; `progress` hears the number of layers done and their total.
    pub fn load(
        config: &DeepseekV4Config,
        loader: &Loader<'_>,
        chip: &dyn Chip,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, Error> {
        let weights = Weights::load(loader, config, progress)?;
        let drafter = Drafter::load(loader, config)?;
        // YaRN only stretches layers with compression.
        let (channels, scaling) = (config.qk_rope_head_dim, config.rope_scaling.as_ref());
        Ok(V4 {
            plain_frequencies: rope::load_frequencies(chip, channels, config.rope_theta, None)?,
            compressed_frequencies: rope::load_frequencies(chip, channels, config.compress_rope_theta, scaling)?,
            config: config.clone(),
            weights,
            drafter,
        })
    }
}

impl Family for V4 {
    fn new_forward(
        self: Arc<Self>,
        options: &ModelOptions,
        state: &mut StateBuilder<'_>,
        row_count: usize,
    ) -> Result<Box<dyn Forward>, Error> {
        Ok(Box::new(Memory::new(self, options, state, row_count)?))
    }

    fn draft_count_max(&self) -> Option<usize> {
        self.drafter.as_ref().map(Drafter::draft_count_max)
    }
}
