//! DeepSeek-V3, R1, V3.1 and V3.2: latent attention, an indexer in V3.2, experts in groups.
//!
//! Of each token and layer one entry is kept, the latent and the rotary key: a sequence's state is pages alone, without
//! tails. Attention is computed in the space of the latents (the absorbed form), in prefill too: expanding keys and values
//! of all heads first takes `H (N + V) / (2 L + R)` times the memory of the entries in return for fewer multiply-adds for
//! each pair of tokens, and would be a second form of every kernel with the same result.
//!
//! Rounding: `reference` keeps everything in `f32`. `fast` keeps entries and index keys as bf16. `official` does too, and
//! rounds inputs of quantised products to FP8 with scales that are powers of two (as V3.1 and V3.2 do; the code of V3 and
//! R1 keeps these scales as `f32`) and results to bf16. V3.2's own FP8 cache and FP8 index keys are not imitated.

mod absorb;
mod attention;
mod feed_forward;
mod memory;
mod pass;
mod weights;

use std::sync::Arc;

use cachalot_checkpoint::DeepseekV3Config;
use cachalot_chip::{Chip, Mode, RowFormat, Tensor};

use crate::{
    Error, ModelOptions,
    family::{Family, Forward},
    loader::Loader,
    memory::StateBuilder,
    rope,
};
use memory::Memory;
use weights::Weights;

/// A V3 model on a chip.
pub(crate) struct V3 {
    config: DeepseekV3Config,
    weights: Weights,
    /// `F32 [R / 2]`.
    frequencies: Tensor,
}

impl V3 {
    /// Loads the weights; `progress` hears the number of layers done and their total.
    pub fn load(
        config: &DeepseekV3Config,
        loader: &Loader<'_>,
        chip: &dyn Chip,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, Error> {
        let weights = Weights::load(loader, config, progress)?;
        let (channels, scaling) = (config.qk_rope_head_dim, config.rope_scaling.as_ref());
        Ok(V3 {
            frequencies: rope::load_frequencies(chip, channels, config.rope_theta, scaling)?,
            config: config.clone(),
            weights,
        })
    }
}

impl Family for V3 {
    fn new_forward(
        self: Arc<Self>,
        options: &ModelOptions,
        state: &mut StateBuilder<'_>,
        row_count: usize,
    ) -> Result<Box<dyn Forward>, Error> {
        Ok(Box::new(Memory::new(self, options, state, row_count)?))
    }
}

/// How entries and index keys are packed.
fn row_format(options: &ModelOptions) -> RowFormat {
    match options.mode {
        Mode::Reference => RowFormat::F32,
        Mode::Official | Mode::Fast => RowFormat::Bf16,
    }
}
