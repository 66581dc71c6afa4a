//! The MTP layer, its output fed back for every further token.

use cachalot_chip::{Embed, HyperPost, LinearRounding};

use super::{Drafting, Run, weights::Mtp};
use crate::{DraftRequest, Error, draft::Choose, v4::pass::Pass};

/// Tokens that are guessed at most: the layer was trained for one, and errors add up.
pub(super) const DRAFT_COUNT_MAX: usize = 8;

impl Drafting<'_> {
    /// `e_proj rmsnorm(embed[token]) + h_proj rmsnorm(stream)` for the streams in `mixed`, into `workspace.streams`.
    pub(super) fn mtp_streams(&self, pass: &Pass<'_>, mtp: &Mtp) -> Result<(), Error> {
        let (workspace, rows) = (&pass.workspace, pass.step.row_count);
        let (n, d) = (pass.config.hc_mult, pass.config.hidden_size);
        let rounding = LinearRounding::QuantisedInput;
        pass.step.enqueue(Embed {
            table: &self.memory.model.weights.embed,
            tokens: &pass.step.inputs.tokens,
            streams: &workspace.input.reshape(&[rows, 1, d]),
        })?;
        pass.rms_norm(&workspace.input, Some(&mtp.enorm))?;
        pass.step
            .linear(&workspace.input, &mtp.e_proj, rounding, &workspace.output)?;
        let mixed = self.state.mixed.narrow(0, rows).reshape(&[rows * n, d]);
        pass.rms_norm(&mixed, Some(&mtp.hnorm))?;
        let streams = workspace.streams.reshape(&[rows * n, d]);
        pass.step.linear(&mixed, &mtp.h_proj, rounding, &streams)?;
        let constants = &self.state.constants;
        pass.step.enqueue(HyperPost {
            y: &workspace.output,
            post: &constants.ones.narrow(0, rows),
            comb: &constants.identity.narrow(0, rows),
            streams: &workspace.streams,
        })
    }

    pub(super) fn draft_fed_back(
        &self,
        mtp: &Mtp,
        requests: &mut [DraftRequest<'_>],
        group: &[usize],
        choose: &mut Choose<'_>,
        drafts: &mut [Vec<u32>],
    ) -> Result<(), Error> {
        let mut active = group.to_vec();
        // Rows of the pass before that are fed back; at first the taps are.
        let mut kept: Vec<i32> = Vec::new();
        for index in 0.. {
            let runs: Vec<Run> = active
                .iter()
                .map(|request| {
                    let DraftRequest { sequence, tokens, .. } = &requests[*request];
                    let token = drafts[*request].last().or(tokens.last());
                    Run {
                        slot: sequence.slot,
                        first: sequence.length - 1 + index - sequence.taps_from,
                        tokens: token.into_iter().copied().collect(),
                    }
                })
                .collect();
            let step = self.begin(&self.state.inputs, &runs)?;
            let pass = self.pass(&step)?;
            if index == 0 {
                let taps = active.iter().map(|request| {
                    let sequence = &requests[*request].sequence;
                    self.tap_row(sequence.slot, sequence.length - 1)
                });
                self.gather_streams(&pass, &taps.collect::<Vec<_>>())?;
            } else {
                let before = &self.memory.workspace.streams;
                self.gather(&pass, before, &kept, &self.state.mixed.narrow(0, kept.len()))?;
            }
            self.mtp_streams(&pass, mtp)?;
            pass.block(&self.drafter.stages[0], &self.state.stages[0], 0)?;
            let logits = self.state.logits.narrow(0, active.len());
            self.head(&pass, &logits)?;
            let goes_on = self.choose(index, &mut active, (&logits, None), requests, choose, drafts)?;
            if active.is_empty() {
                break;
            }
            kept = (0..goes_on.len() as i32).filter(|row| goes_on[*row as usize]).collect();
        }
        Ok(())
    }
}
