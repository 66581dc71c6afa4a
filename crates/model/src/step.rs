//! One step: rows of many sequences through all layers.

use std::sync::Arc;

use cachalot_chip::{Chip, ChipTransfer, Linear, LinearRounding, Matrix, Operation, RmsNorm, RopeAngles, Rows, Tensor};

use crate::{
    Error, Model, ModelOptions, Sequence, StatePool,
    state::{Sizes, StepInputs},
};

/// Which rows of a chunk yield logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// None: the chunk is only fed.
    None,
    /// The last row.
    Last,
    /// All rows.
    All,
}

/// The next tokens of one sequence.
pub struct Chunk<'a> {
    /// The sequence that they continue.
    pub sequence: &'a mut Sequence,
    /// At least one token.
    pub tokens: &'a [u32],
    /// Which rows yield logits.
    pub outputs: Outputs,
}

/// What the host knows about a step's rows, as the device tensors will hold it.
pub(crate) struct Plan {
    pub tokens: Vec<i32>,
    pub positions: Vec<i32>,
    pub sequences: Vec<i32>,
    pub first_rows: Vec<i32>,
    pub slots: Vec<i32>,
    pub page_table: Vec<i32>,
    pub output_rows: Vec<i32>,
}

/// What the layers of all families need of a step: where to compute, how, and which rows.
pub(crate) struct Step<'a> {
    pub chip: &'a dyn Chip,
    pub options: &'a ModelOptions,
    pub row_count: usize,
    pub output_row_count: usize,
    pub inputs: StepInputs,
}

impl Model {
    /// Feeds the chunks' tokens and returns the logits `F32 [output rows, vocabulary]`, in the order of chunks and rows,
    /// or none if no row was asked for. The tensor is overwritten by the pool's next step.
    ///
    /// # Errors
    /// [`Error::Token`], [`Error::Image`], [`Error::Context`], [`Error::StepRows`], [`Error::Sequences`], [`Error::Pages`],
    /// [`Error::StateLost`], [`Error::EmptyChunk`], [`Error::ForeignPool`], or an error of the chip. No sequence grows then; after an error of
    /// the chip a sequence may have lost its state, which its next step reports.
    pub fn step(&self, pool: &mut StatePool, chunks: &mut [Chunk<'_>]) -> Result<Option<Tensor>, Error> {
        self.check(pool, chunks)?;
        for chunk in chunks.iter_mut() {
            let end = chunk.sequence.length + chunk.tokens.len();
            pool.reserve(chunk.sequence, end)?;
        }
        for chunk in chunks.iter_mut() {
            let end = chunk.sequence.length + chunk.tokens.len();
            chunk.sequence.written = chunk.sequence.written.max(end);
        }
        let plan = Plan::new(chunks);
        let step = self.begin(pool, &plan)?;
        let logits = pool.forward.forward(&step)?;
        for chunk in chunks.iter_mut() {
            chunk.sequence.length += chunk.tokens.len();
        }
        Ok(logits)
    }

    /// Puts the plan on the chip.
    pub(crate) fn begin(&self, pool: &StatePool, plan: &Plan) -> Result<Step<'_>, Error> {
        Ok(Step {
            chip: &*self.chip,
            options: &self.options,
            row_count: plan.tokens.len(),
            output_row_count: plan.output_rows.len(),
            inputs: plan.write(&*self.chip, &pool.inputs)?,
        })
    }

    fn check(&self, pool: &StatePool, chunks: &[Chunk<'_>]) -> Result<(), Error> {
        if !std::ptr::addr_eq(Arc::as_ptr(&self.family), Arc::as_ptr(&pool.family)) {
            return Err(Error::ForeignPool);
        }
        let sizes: &Sizes = &pool.sizes;
        if chunks.len() > sizes.sequence_count_max {
            return Err(Error::Sequences {
                limit: sizes.sequence_count_max,
            });
        }
        let rows: usize = chunks.iter().map(|chunk| chunk.tokens.len()).sum();
        if rows > sizes.step_row_count_max {
            return Err(Error::StepRows {
                rows,
                limit: sizes.step_row_count_max,
            });
        }
        if chunks.is_empty() {
            return Err(Error::EmptyChunk);
        }
        for Chunk { sequence, tokens, .. } in chunks {
            pool.check_own(sequence)?;
            let length = sequence.length + tokens.len();
            if tokens.is_empty() {
                return Err(Error::EmptyChunk);
            }
            if length > sizes.context {
                return Err(Error::Context {
                    length,
                    context: sizes.context,
                });
            }
            if sequence.length < sequence.earliest_len() {
                return Err(Error::StateLost {
                    length: sequence.length,
                });
            }
            let vocabulary = self.config.vocab_size();
            if let Some(token) = tokens.iter().find(|token| **token as usize >= vocabulary) {
                return Err(Error::Token {
                    token: *token,
                    vocabulary,
                });
            }
            if let Some(token) = self.image_token().filter(|token| tokens.contains(token)) {
                return Err(Error::Image { token });
            }
        }
        Ok(())
    }
}

impl Step<'_> {
    pub(crate) fn rows(&self) -> Rows<'_> {
        Rows {
            positions: &self.inputs.positions,
            sequences: &self.inputs.sequences,
            first_rows: &self.inputs.first_rows,
            slots: &self.inputs.slots,
        }
    }

    pub(crate) fn enqueue<'o>(&self, operation: impl Into<Operation<'o>>) -> Result<(), Error> {
        Ok(self.chip.enqueue(self.options.mode, &operation.into())?)
    }

    pub(crate) fn linear(
        &self,
        x: &Tensor,
        weight: &Matrix,
        rounding: LinearRounding,
        out: &Tensor,
    ) -> Result<(), Error> {
        self.enqueue(Linear {
            x,
            weight,
            rounding,
            out,
        })
    }

    /// Normalises rows in place.
    pub(crate) fn rms_norm(&self, x: &Tensor, weight: Option<&Tensor>, epsilon: f32) -> Result<(), Error> {
        self.enqueue(RmsNorm {
            x,
            weight,
            epsilon,
            out: x,
        })
    }

    /// Cosines and sines of the rows' positions.
    pub(crate) fn angles(&self, frequencies: &Tensor, out: &Tensor) -> Result<(), Error> {
        self.enqueue(RopeAngles {
            positions: &self.inputs.positions,
            frequencies,
            out,
        })
    }
}

impl Plan {
    pub fn new(chunks: &[Chunk<'_>]) -> Self {
        // A power of two, so that few different shapes of the table occur.
        let page_count = chunks
            .iter()
            .map(|chunk| chunk.sequence.pages.len())
            .max()
            .unwrap_or(0)
            .next_power_of_two();
        let mut plan = Plan {
            tokens: Vec::new(),
            positions: Vec::new(),
            sequences: Vec::new(),
            first_rows: vec![0],
            slots: Vec::new(),
            page_table: vec![-1; chunks.len() * page_count],
            output_rows: Vec::new(),
        };
        for (
            index,
            Chunk {
                sequence,
                tokens,
                outputs,
            },
        ) in chunks.iter().enumerate()
        {
            let (first, end) = (plan.tokens.len() as i32, (plan.tokens.len() + tokens.len()) as i32);
            plan.tokens.extend(tokens.iter().map(|token| *token as i32));
            plan.positions
                .extend((sequence.length..sequence.length + tokens.len()).map(|position| position as i32));
            plan.sequences.extend(std::iter::repeat_n(index as i32, tokens.len()));
            plan.first_rows.push(end);
            plan.slots.push(sequence.slot as i32);
            for (entry, page) in plan.page_table[index * page_count..].iter_mut().zip(&sequence.pages) {
                *entry = *page as i32;
            }
            match outputs {
                Outputs::None => {}
                Outputs::Last => plan.output_rows.push(end - 1),
                Outputs::All => plan.output_rows.extend(first..end),
            }
        }
        plan
    }

    /// Writes the plan into device tensors and returns views of the right shapes.
    pub fn write(&self, chip: &dyn Chip, inputs: &StepInputs) -> Result<StepInputs, Error> {
        let write = |tensor: &Tensor, values: &[i32]| -> Result<Tensor, Error> {
            let tensor = tensor.narrow(0, values.len());
            chip.write_i32(&tensor, values)?;
            Ok(tensor)
        };
        let sequence_count = self.slots.len();
        let page_table = write(&inputs.page_table, &self.page_table)?;
        Ok(StepInputs {
            tokens: write(&inputs.tokens, &self.tokens)?,
            positions: write(&inputs.positions, &self.positions)?,
            sequences: write(&inputs.sequences, &self.sequences)?,
            first_rows: write(&inputs.first_rows, &self.first_rows)?,
            slots: write(&inputs.slots, &self.slots)?,
            page_table: page_table.reshape(&[sequence_count, self.page_table.len() / sequence_count]),
            output_rows: write(&inputs.output_rows, &self.output_rows)?,
        })
    }
}
