//! The memory of a pool of V4.1: the state of every layer and the activations of a step.

use std::sync::Arc;

use cachalot_checkpoint::DeepseekV41Config;
use cachalot_chip::{Chip, Error as ChipError, Tensor};
use cachalot_numerics::Dtype;

use super::{RowFormats, V41, workspace::Workspace};
use crate::{
    Error, ModelOptions,
    memory::{Reach, RowLayout, StateBuilder},
};

/// State and activations, with the model that they are for.
pub(super) struct Memory {
    pub model: Arc<V41>,
    pub layers: Vec<LayerState>,
    /// `I32 [slots, ring rows, 1]`: the last folded token ids, of models with Engram.
    pub ids_tail: Option<Tensor>,
    pub workspace: Workspace,
    /// Logits of the last step, grown to the largest number of output rows asked for.
    pub output: Option<OutputRows>,
}

/// Rings and pages of one layer.
pub(super) struct LayerState {
    /// `U8 [slots, ring rows, row bytes]`.
    pub window_tail: Tensor,
    /// Of layers that make entries.
    pub source: Option<SourceState>,
}

/// Entries, index keys and the rows of open windows.
pub(super) struct SourceState {
    /// `U8 [pages, entries of a page, row bytes]`.
    pub entries: Tensor,
    pub keys: Tensor,
    /// `F32 [slots, ring rows, D]`, of entries of several tokens.
    pub open: Option<OpenRows>,
}

pub(super) struct OpenRows {
    pub kv_tail: Tensor,
    pub gate_tail: Tensor,
}

/// What the head computes on.
pub(super) struct OutputRows {
    pub streams: Tensor,
    pub pre: Tensor,
    pub collapsed: Tensor,
    pub logits: Tensor,
}

impl Memory {
    pub fn new(
        model: Arc<V41>,
        options: &ModelOptions,
        state: &mut StateBuilder<'_>,
        row_count: usize,
    ) -> Result<Self, Error> {
        let (config, formats) = (&model.config, RowFormats::new(options));
        let layers = (0..config.num_hidden_layers)
            .map(|layer| LayerState::new(config, formats, state, layer))
            .collect::<Result<_, _>>()?;
        let ids_tail = config
            .engram
            .as_ref()
            .map(|engram| state.i32_tail(Reach::Window(engram.max_ngram_size)));
        Ok(Memory {
            layers,
            ids_tail: ids_tail.transpose()?,
            workspace: Workspace::new(state.chip, config, formats, row_count)?,
            output: None,
            model,
        })
    }
}

impl LayerState {
    fn new(
        config: &DeepseekV41Config,
        formats: RowFormats,
        state: &mut StateBuilder<'_>,
        layer: usize,
    ) -> Result<Self, Error> {
        let layout = |width, format| RowLayout {
            format,
            width,
            tail: config.qk_rope_head_dim,
        };
        let window = layout(config.head_dim, formats.window);
        let window_tail = state.packed_tail(Reach::Window(config.sliding_window), window)?;
        if !config.is_kv_source(layer) {
            return Ok(LayerState {
                window_tail,
                source: None,
            });
        }
        let ratio = config.compress_ratios[layer];
        let open = (ratio > 1).then(|| {
            let reach = Reach::Open { ratio, overlapped: 0 };
            Ok::<_, Error>(OpenRows {
                kv_tail: state.f32_tail(reach, config.head_dim)?,
                gate_tail: state.f32_tail(reach, config.head_dim)?,
            })
        });
        let open = open.transpose()?;
        Ok(LayerState {
            window_tail,
            source: Some(SourceState {
                entries: state.pool(ratio, layout(config.head_dim, formats.entry))?,
                keys: state.pool(ratio, layout(config.index_head_dim, formats.key))?,
                open,
            }),
        })
    }
}

impl OutputRows {
    pub fn new(chip: &dyn Chip, config: &DeepseekV41Config, row_count: usize) -> Result<Self, ChipError> {
        let f32 = |shape: &[usize]| chip.allocate(Dtype::F32, &[&[row_count], shape].concat());
        Ok(OutputRows {
            streams: f32(&[config.hc_mult, config.hidden_size])?,
            pre: f32(&[config.hc_mult])?,
            collapsed: f32(&[config.hidden_size])?,
            logits: f32(&[config.vocab_size])?,
        })
    }

    pub fn narrow(&self, row_count: usize) -> OutputRows {
        OutputRows {
            streams: self.streams.narrow(0, row_count),
            pre: self.pre.narrow(0, row_count),
            collapsed: self.collapsed.narrow(0, row_count),
            logits: self.logits.narrow(0, row_count),
        }
    }
}
