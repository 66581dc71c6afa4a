//! The memory of a pool of V4: the state of every layer and the activations of a step.

use std::sync::Arc;

use cachalot_checkpoint::DeepseekV4Config;
use cachalot_chip::{Chip, Error as ChipError, Tensor};
use cachalot_numerics::Dtype;

use super::{V4, drafter::DrafterState, workspace::Workspace};
use crate::{
    Error, ModelOptions,
    memory::{Reach, RowLayout, StateBuilder},
};

/// State and activations, with the model that they are for.
pub(super) struct Memory {
    pub model: Arc<V4>,
    pub layers: Vec<LayerState>,
    pub workspace: Workspace,
    /// Logits of the last step, grown to the largest number of output rows asked for.
    pub output: Option<OutputRows>,
    /// What the drafter remembers of sequences; none if the pool was made without.
    pub drafter: Option<DrafterState>,
}

/// Rings and pages of one layer.
pub(super) struct LayerState {
    /// `U8 [slots, ring rows, row bytes]`.
    pub window_tail: Tensor,
    pub compressor: Option<CompressorState>,
    pub indexer: Option<CompressorState>,
}

/// A compressor's open rows and its entries.
pub(super) struct CompressorState {
    /// `F32 [slots, ring rows, row width]`.
    pub kv_tail: Tensor,
    pub gate_tail: Tensor,
    /// `U8 [pages, entries of a page, row bytes]`.
    pub pool: Tensor,
}

/// What the head computes on.
pub(super) struct OutputRows {
    pub streams: Tensor,
    pub collapsed: Tensor,
    pub logits: Tensor,
}

impl Memory {
    pub fn new(
        model: Arc<V4>,
        options: &ModelOptions,
        state: &mut StateBuilder<'_>,
        row_count: usize,
    ) -> Result<Self, Error> {
        let config = &model.config;
        let layers = (0..config.num_hidden_layers)
            .map(|layer| LayerState::new(config, options, state, config.compress_ratio(layer)))
            .collect::<Result<_, _>>()?;
        Ok(Memory {
            layers,
            workspace: Workspace::new(state.chip, config, options, row_count)?,
            output: None,
            drafter: DrafterState::new(&model, options, state, row_count)?,
            model,
        })
    }
}

impl LayerState {
    fn new(
        config: &DeepseekV4Config,
        options: &ModelOptions,
        state: &mut StateBuilder<'_>,
        ratio: usize,
    ) -> Result<Self, Error> {
        let layout = |width, format| RowLayout {
            format,
            width,
            tail: config.qk_rope_head_dim,
        };
        let row = layout(config.head_dim, options.row_format());
        let window_tail = state.packed_tail(Reach::Window(config.sliding_window), row)?;
        let compressor = match ratio {
            0 => None,
            _ => Some(CompressorState::new(state, row, ratio)?),
        };
        // Only the layers of ratio 4 choose among their entries.
        let indexer = match ratio {
            4 => {
                let key = layout(config.index_head_dim, options.index_format());
                Some(CompressorState::new(state, key, ratio)?)
            }
            _ => None,
        };
        Ok(LayerState {
            window_tail,
            compressor,
            indexer,
        })
    }
}

impl CompressorState {
    fn new(state: &mut StateBuilder<'_>, layout: RowLayout, ratio: usize) -> Result<Self, Error> {
        // Overlapping windows need the rows of two windows, each row two halves.
        let overlapped = usize::from(ratio == 4);
        let reach = Reach::Open { ratio, overlapped };
        let width = (1 + overlapped) * layout.width;
        Ok(CompressorState {
            kv_tail: state.f32_tail(reach, width)?,
            gate_tail: state.f32_tail(reach, width)?,
            pool: state.pool(ratio, layout)?,
        })
    }
}

impl OutputRows {
    pub fn new(chip: &dyn Chip, config: &DeepseekV4Config, row_count: usize) -> Result<Self, ChipError> {
        Ok(OutputRows {
            streams: chip.allocate(Dtype::F32, &[row_count, config.hc_mult, config.hidden_size])?,
            collapsed: chip.allocate(Dtype::F32, &[row_count, config.hidden_size])?,
            logits: chip.allocate(Dtype::F32, &[row_count, config.vocab_size])?,
        })
    }

    pub fn narrow(&self, row_count: usize) -> OutputRows {
        OutputRows {
            streams: self.streams.narrow(0, row_count),
            collapsed: self.collapsed.narrow(0, row_count),
            logits: self.logits.narrow(0, row_count),
        }
    }
}
