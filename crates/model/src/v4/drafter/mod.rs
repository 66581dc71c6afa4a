//! Guessing the next tokens: the MTP layer (`mtp.0`) and the DSpark stages.
//!
//! | file | holds |
//! | --- | --- |
//! | `weights.rs` | the tensors of the stages |
//! | `state.rs` | what a pool keeps for them: taps of the last positions, windows, buffers |
//! | `follow.rs` | taps from the model's steps, and from taps to the stages' windows |
//! | `mtp.rs`, `dspark.rs` | the two ways to draft |
//!
//! The model's own steps only keep a few rows of activations, the taps. Everything else happens when somebody drafts, so
//! a request that does not speculate pays for copies of rows and for nothing else. All of it is made of operators that
//! the layers use too.

mod dspark;
mod follow;
mod mtp;
mod state;
mod weights;

use cachalot_chip::{Chip, ChipTransfer, GatherRows, HyperHead, LinearRounding, RmsNorm, Tensor};

use self::weights::Kind;
pub(super) use self::{state::DrafterState, weights::Drafter};
use super::{memory::Memory, pass::Pass};
use crate::{
    Draft, DraftRequest, Error, ModelOptions,
    draft::{Choose, DraftContext},
    state::StepInputs,
    step::{Plan, Step},
};

impl Memory {
    /// Drafts for all requests that something is known about.
    pub(super) fn draft_all(
        &self,
        context: &DraftContext<'_>,
        requests: &mut [DraftRequest<'_>],
        choose: &mut Choose<'_>,
    ) -> Result<Vec<Vec<u32>>, Error> {
        let mut drafts = vec![Vec::new(); requests.len()];
        let (Some(drafter), Some(state)) = (&self.model.drafter, &self.drafter) else {
            return Ok(drafts);
        };
        let drafting = Drafting {
            chip: context.chip,
            options: context.options,
            memory: self,
            drafter,
            state,
        };
        for request in requests.iter_mut() {
            request.count = request.count.min(state.draft_count_max);
        }
        let able: Vec<usize> = (0..requests.len())
            .filter(|i| requests[*i].count > 0 && requests[*i].sequence.taps_from < requests[*i].sequence.length)
            .collect();
        for group in able.chunks(state.request_count_max) {
            drafting.follow(requests, group)?;
            match &drafter.kind {
                Kind::Mtp(mtp) => drafting.draft_fed_back(mtp, requests, group, choose, &mut drafts)?,
                Kind::Dspark(dspark) => drafting.draft_block(dspark, requests, group, choose, &mut drafts)?,
            }
        }
        Ok(drafts)
    }
}

/// What the parts of drafting share.
struct Drafting<'p> {
    chip: &'p dyn Chip,
    options: &'p ModelOptions,
    memory: &'p Memory,
    drafter: &'p Drafter,
    state: &'p DrafterState,
}

/// Adjacent positions of one sequence in a plan, counted from the sequence's first tap: only distances matter to the
/// stages, and what lies before the first tap must not be seen.
struct Run {
    slot: u32,
    first: usize,
    tokens: Vec<u32>,
}

impl Drafting<'_> {
    /// Puts rows on the chip, as a step of their own.
    fn begin(&self, inputs: &StepInputs, runs: &[Run]) -> Result<Step<'_>, Error> {
        let mut plan = Plan {
            tokens: Vec::new(),
            positions: Vec::new(),
            sequences: Vec::new(),
            first_rows: vec![0],
            slots: Vec::new(),
            // The stages have no compressed entries.
            page_table: vec![-1; runs.len()],
            output_rows: Vec::new(),
        };
        for (index, run) in runs.iter().enumerate() {
            plan.tokens.extend(run.tokens.iter().map(|token| *token as i32));
            let positions = run.first..run.first + run.tokens.len();
            plan.positions.extend(positions.map(|position| position as i32));
            plan.sequences
                .extend(std::iter::repeat_n(index as i32, run.tokens.len()));
            plan.first_rows.push(plan.tokens.len() as i32);
            plan.slots.push(run.slot as i32);
        }
        Ok(Step {
            chip: self.chip,
            options: self.options,
            row_count: plan.tokens.len(),
            output_row_count: 0,
            inputs: plan.write(self.chip, inputs)?,
        })
    }

    fn pass<'s>(&'s self, step: &'s Step<'s>) -> Result<Pass<'s>, Error> {
        Pass::begin(&self.memory.model, step, &self.memory.workspace)
    }

    /// `out[i] = x[rows[i]]`.
    fn gather(&self, pass: &Pass<'_>, x: &Tensor, rows: &[i32], out: &Tensor) -> Result<(), Error> {
        let indices = self.state.indices.narrow(0, rows.len());
        pass.step.chip.write_i32(&indices, rows)?;
        pass.step.enqueue(GatherRows { x, rows: &indices, out })
    }

    /// The last stage's streams collapsed into `collapsed`, and its logits `[rows, vocabulary]`.
    fn head(&self, pass: &Pass<'_>, logits: &Tensor) -> Result<(), Error> {
        let (hyper, config) = (&self.drafter.hyper_head, pass.config);
        let collapsed = self.state.collapsed.narrow(0, pass.step.row_count);
        pass.step.enqueue(HyperHead {
            streams: &pass.workspace.streams,
            function: &hyper.function,
            scale: &hyper.scale,
            base: &hyper.base,
            epsilon: config.hc_eps,
            norm_epsilon: config.rms_norm_eps,
            out: &collapsed,
        })?;
        pass.step.enqueue(RmsNorm {
            x: &collapsed,
            weight: Some(&self.drafter.norm),
            epsilon: config.rms_norm_eps,
            out: &pass.workspace.input,
        })?;
        pass.step.linear(
            &pass.workspace.input,
            &self.memory.model.weights.head,
            LinearRounding::F32,
            logits,
        )
    }

    /// Asks for the tokens of `active` requests and keeps the requests that go on.
    fn choose(
        &self,
        index: usize,
        active: &mut Vec<usize>,
        (logits, confidences): (&Tensor, Option<&Tensor>),
        requests: &[DraftRequest<'_>],
        choose: &mut Choose<'_>,
        drafts: &mut [Vec<u32>],
    ) -> Result<Vec<bool>, Error> {
        let chosen = choose(&Draft {
            index,
            requests: active,
            logits,
            confidences,
        })?;
        let vocabulary = self.memory.model.config.vocab_size;
        let mut goes_on = vec![false; active.len()];
        for ((request, token), goes_on) in active.iter().zip(chosen).zip(&mut goes_on) {
            let Some(token) = token else { continue };
            if token as usize >= vocabulary {
                return Err(Error::Token { token, vocabulary });
            }
            drafts[*request].push(token);
            *goes_on = index + 1 < requests[*request].count;
        }
        let mut kept = goes_on.iter();
        active.retain(|_| *kept.next().expect("one for each"));
        Ok(goes_on)
    }
}
