//! DeepSeek-V4.1: shared entries with a two-level selection, Engram tables, single-pass hyper-connections.
//!
//! Text only. The forward pass is written in `pass.rs`, `attention.rs`, `entries.rs`, `experts.rs` and `engram.rs`, in the
//! order of sections 3 to 6 of the V4.1 notes. What is made by one layer and used by others (entries, index keys, selected
//! entries, picked blocks) is found through [`LayerRole`](cachalot_checkpoint::LayerRole): an index source always reads the
//! keys of its own KV source (section 4.4 tells what happens otherwise). Every prompt token goes through all layers, which
//! is the exact evaluation of section 4.5.

mod attention;
mod engram;
mod entries;
mod experts;
mod memory;
mod pass;
mod weights;
mod workspace;

use std::sync::Arc;

use cachalot_checkpoint::DeepseekV41Config;
use cachalot_chip::{Chip, Mode, RowFormat, Tensor};

use crate::{
    Error, KvFormat, ModelOptions,
    family::{Family, Forward},
    loader::Loader,
    memory::StateBuilder,
    rope,
};
use memory::Memory;
use weights::Weights;

/// A V4.1 model on a chip.
pub(crate) struct V41 {
    config: DeepseekV41Config,
    weights: Weights,
    /// `F32 [R / 2]`: frequencies of layers that see a window only, and of the others.
    plain_frequencies: Tensor,
    compressed_frequencies: Tensor,
}

impl V41 {
    /// Loads the weights; `progress` hears the number of layers done and their total.
    pub fn load(
        config: &DeepseekV41Config,
        loader: &Loader<'_>,
        chip: &dyn Chip,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, Error> {
        let weights = Weights::load(loader, config, progress)?;
        let (channels, scaling) = (config.qk_rope_head_dim, config.rope_scaling.as_ref());
        Ok(V41 {
            plain_frequencies: rope::load_frequencies(chip, channels, config.rope_theta, None)?,
            compressed_frequencies: rope::load_frequencies(chip, channels, config.compress_rope_theta, scaling)?,
            config: config.clone(),
            weights,
        })
    }
}

impl Family for V41 {
    fn new_forward(
        self: Arc<Self>,
        options: &ModelOptions,
        state: &mut StateBuilder<'_>,
        row_count: usize,
    ) -> Result<Box<dyn Forward>, Error> {
        Ok(Box::new(Memory::new(self, options, state, row_count)?))
    }
}

/// How window rows, entries and index keys are packed.
#[derive(Clone, Copy)]
struct RowFormats {
    window: RowFormat,
    entry: RowFormat,
    key: RowFormat,
}

impl RowFormats {
    fn new(options: &ModelOptions) -> Self {
        let all = |format| RowFormats {
            window: format,
            entry: format,
            key: format,
        };
        match (options.mode, options.kv_format) {
            (Mode::Reference, _) => all(RowFormat::F32),
            (Mode::Fast, KvFormat::Bf16) => all(RowFormat::Bf16),
            (Mode::Official, _) | (Mode::Fast, KvFormat::Packed) => RowFormats {
                window: RowFormat::Fp8,
                entry: RowFormat::Fp4Fine,
                key: RowFormat::Fp4,
            },
        }
    }
}
