//! What a pool keeps for drafting.

use cachalot_chip::{Chip, ChipTransfer, Tensor};
use cachalot_numerics::Dtype;

use crate::{
    Error, ModelOptions,
    memory::StateBuilder,
    state::StepInputs,
    v4::{V4, memory::LayerState},
};

/// Taps, windows and buffers.
pub(in crate::v4) struct DrafterState {
    pub draft_count_max: usize,
    /// Requests that are drafted for in one pass.
    pub request_count_max: usize,
    /// `F32 [slots, ring rows, width]`: the taps of the last positions.
    pub taps: Vec<Tensor>,
    /// A window for each stage, positions counted from the sequence's first tap.
    pub stages: Vec<LayerState>,
    pub inputs: StepInputs,
    /// The same rows as sequences of their own, for attention that looks both ways.
    pub lone_inputs: StepInputs,
    /// `I32`: which rows to gather.
    pub indices: Tensor,
    /// `I32 [rows]`: the first stream of each row.
    pub first_streams: Tensor,
    /// `F32 [rows, n, d]`: streams on their way.
    pub mixed: Tensor,
    /// `F32 [rows, taps * d]`, twice: taps by tap, and by row.
    pub by_tap: Tensor,
    pub by_row: Tensor,
    /// `U8 [rows, row bytes]`.
    pub last_keys: Tensor,
    /// `F32 [rows, d]`.
    pub collapsed: Tensor,
    /// `F32 [rows, vocabulary]`: logits of a pass, and those that are handed out.
    pub base_logits: Tensor,
    pub logits: Tensor,
    pub bias: Tensor,
    /// `F32`: for DSpark's Markov rows and confidences.
    pub markov: Tensor,
    pub joined: Tensor,
    pub confidences: Tensor,
    pub constants: Constants,
}

/// Weights of a hyper-connection that mixes nothing by itself.
pub(in crate::v4) struct Constants {
    /// `F32 [rows, n]`.
    pub zeros: Tensor,
    pub ones: Tensor,
    /// `F32 [rows, n, n]`: every stream as it is, and every stream the mean of all.
    pub identity: Tensor,
    pub mean: Tensor,
}

impl DrafterState {
    /// State for a pool, or none if it shall not draft or its steps are shorter than a block.
    pub fn new(
        model: &V4,
        options: &ModelOptions,
        state: &mut StateBuilder<'_>,
        row_count: usize,
    ) -> Result<Option<Self>, Error> {
        let Some(drafter) = &model.drafter else {
            return Ok(None);
        };
        let (chip, config) = (state.chip, &model.config);
        let draft_count_max = state.draft_count_max.min(drafter.draft_count_max());
        let rows_per_request = drafter.rows_per_request();
        let request_count_max = state.slot_count.min(row_count / rows_per_request);
        if draft_count_max == 0 || request_count_max == 0 {
            return Ok(None);
        }
        let (n, d, vocabulary) = (config.hc_mult, config.hidden_size, config.vocab_size);
        let widths = drafter.tap_widths(n, d);
        let tap_count = widths.len();
        let f32 = |shape: &[usize]| chip.allocate(Dtype::F32, shape);
        let draft_row_count = request_count_max * rows_per_request;
        let inputs = || StepInputs::of(chip, row_count, row_count, 1);
        let ring_row_count = config.sliding_window + state.rollback_count_max;
        let mut rings = |dtype: Dtype, row_count: usize, width: usize| -> Result<Tensor, Error> {
            let ring = chip.allocate(dtype, &[state.slot_count, row_count, width])?;
            state.note_private(&ring);
            Ok(ring)
        };
        let taps = widths
            .iter()
            .map(|width| rings(Dtype::F32, ring_row_count, *width))
            .collect::<Result<_, _>>()?;
        let row_byte_count = options
            .row_format()
            .byte_count(config.head_dim, config.qk_rope_head_dim);
        // Guesses run ahead of what is computed.
        let window_row_count = ring_row_count + rows_per_request + draft_count_max;
        let stages = (0..drafter.stages.len())
            .map(|_| {
                Ok(LayerState {
                    window_tail: rings(Dtype::U8, window_row_count, row_byte_count)?,
                    compressor: None,
                    indexer: None,
                })
            })
            .collect::<Result<_, Error>>()?;
        let rank = config.dspark.as_ref().map_or(0, |dspark| dspark.markov_rank);
        let first_streams = chip.allocate(Dtype::I32, &[row_count])?;
        let firsts: Vec<i32> = (0..row_count).map(|row| (row * n) as i32).collect();
        chip.write_i32(&first_streams, &firsts)?;
        Ok(Some(DrafterState {
            draft_count_max,
            request_count_max,
            taps,
            stages,
            inputs: inputs()?,
            lone_inputs: inputs()?,
            indices: chip.allocate(Dtype::I32, &[row_count * tap_count])?,
            first_streams,
            mixed: f32(&[row_count, n, d])?,
            by_tap: f32(&[row_count * tap_count, d])?,
            by_row: f32(&[row_count * tap_count, d])?,
            last_keys: chip.allocate(Dtype::U8, &[draft_row_count, row_byte_count])?,
            collapsed: f32(&[draft_row_count, d])?,
            base_logits: f32(&[draft_row_count, vocabulary])?,
            logits: f32(&[request_count_max, vocabulary])?,
            bias: f32(&[request_count_max, vocabulary])?,
            markov: f32(&[request_count_max, rank.max(1)])?,
            joined: f32(&[request_count_max * (d + rank)])?,
            confidences: f32(&[request_count_max, 1])?,
            constants: Constants::new(chip, config.hc_mult, row_count)?,
        }))
    }
}

impl Constants {
    fn new(chip: &dyn Chip, n: usize, row_count: usize) -> Result<Self, Error> {
        let filled = |shape: &[usize], value: &dyn Fn(usize) -> f32| -> Result<Tensor, Error> {
            let tensor = chip.allocate(Dtype::F32, shape)?;
            let values: Vec<f32> = (0..tensor.element_count()).map(value).collect();
            chip.write_f32(&tensor, &values)?;
            Ok(tensor)
        };
        Ok(Constants {
            zeros: filled(&[row_count, n], &|_| 0.0)?,
            ones: filled(&[row_count, n], &|_| 1.0)?,
            identity: filled(&[row_count, n, n], &|i| {
                let within = i % (n * n);
                if within / n == within % n { 1.0 } else { 0.0 }
            })?,
            mean: filled(&[row_count, n, n], &|_| 1.0 / n as f32)?,
        })
    }
}
