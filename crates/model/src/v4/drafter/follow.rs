//! Taps: from the model's steps into rings, and from there into the windows of the stages.

use cachalot_chip::{CopyTensor, GatherRows, HyperPost, LinearRounding, Tensor, WriteTail};

use super::{DrafterState, Drafting, Kind, Run, weights::Dspark};
use crate::{DraftRequest, Error, v4::pass::Pass};

impl Pass<'_> {
    /// Keeps what the drafter wants to know of a layer's output.
    pub(in crate::v4) fn tap(&self, layer: usize, state: Option<&DrafterState>) -> Result<(), Error> {
        let (Some(drafter), Some(state)) = (&self.model.drafter, state) else {
            return Ok(());
        };
        let streams = &self.workspace.streams;
        let (rows, n, d) = (self.step.row_count, self.config.hc_mult, self.config.hidden_size);
        match &drafter.kind {
            Kind::Mtp(_) if layer + 1 == self.config.num_hidden_layers => self.step.enqueue(WriteTail {
                rows: self.step.rows(),
                x: &streams.reshape(&[rows, n * d]),
                ring: &state.taps[0],
            }),
            Kind::Mtp(_) => Ok(()),
            Kind::Dspark(dspark) => {
                let taps = dspark.layers.iter().zip(&state.taps);
                for (_, ring) in taps.filter(|(tapped, _)| **tapped == layer) {
                    self.mean_of_streams(state)?;
                    self.step.enqueue(WriteTail {
                        rows: self.step.rows(),
                        x: &self.workspace.input,
                        ring,
                    })?;
                }
                Ok(())
            }
        }
    }
}

impl Pass<'_> {
    /// The mean of each row's streams, into `workspace.input`.
    fn mean_of_streams(&self, state: &DrafterState) -> Result<(), Error> {
        let (workspace, config) = (&self.workspace, self.config);
        let rows = |tensor: &Tensor| tensor.narrow(0, self.step.row_count);
        let mixed = rows(&state.mixed);
        self.step.enqueue(CopyTensor {
            x: &workspace.streams,
            out: &mixed,
        })?;
        self.step.enqueue(HyperPost {
            // Times zero.
            y: &workspace.output,
            post: &rows(&state.constants.zeros),
            comb: &rows(&state.constants.mean),
            streams: &mixed,
        })?;
        self.step.enqueue(GatherRows {
            x: &mixed.reshape(&[self.step.row_count * config.hc_mult, config.hidden_size]),
            rows: &rows(&state.first_streams),
            out: &workspace.input,
        })
    }
}

impl Drafting<'_> {
    /// Brings the stages' windows up to the sequences' lengths; an MTP layer's last row is drafted from, and left out.
    pub(super) fn follow(&self, requests: &mut [DraftRequest<'_>], group: &[usize]) -> Result<(), Error> {
        let row_count_max = self.memory.workspace.streams.shape()[0];
        let window = self.memory.model.config.sliding_window;
        let is_mtp = matches!(self.drafter.kind, Kind::Mtp(_));
        // Runs with the positions of their first rows in the sequences.
        let (mut runs, mut firsts, mut row_count) = (Vec::new(), Vec::new(), 0);
        for index in group {
            let DraftRequest { sequence, tokens, .. } = &mut requests[*index];
            let end = sequence.length - usize::from(is_mtp);
            // Rows that no draft can see any more are left out.
            let mut next = sequence.followed.max(end.saturating_sub(window));
            while next < end {
                let count = (end - next).min(row_count_max - row_count);
                runs.push(Run {
                    slot: sequence.slot,
                    first: next - sequence.taps_from,
                    tokens: tokens[next + 1..=next + count].to_vec(),
                });
                firsts.push(next);
                (next, row_count) = (next + count, row_count + count);
                if row_count == row_count_max {
                    self.follow_runs(&runs, &firsts)?;
                    runs.clear();
                    firsts.clear();
                    row_count = 0;
                }
            }
        }
        if row_count > 0 {
            self.follow_runs(&runs, &firsts)?;
        }
        for index in group {
            let sequence = &mut requests[*index].sequence;
            sequence.followed = sequence.length;
        }
        Ok(())
    }

    fn follow_runs(&self, runs: &[Run], firsts: &[usize]) -> Result<(), Error> {
        let step = self.begin(&self.state.inputs, runs)?;
        let pass = self.pass(&step)?;
        let rows: Vec<i32> = runs
            .iter()
            .zip(firsts)
            .flat_map(|(run, first)| {
                (*first..first + run.tokens.len()).map(|position| self.tap_row(run.slot, position))
            })
            .collect();
        match &self.drafter.kind {
            Kind::Mtp(mtp) => {
                self.gather_streams(&pass, &rows)?;
                self.mtp_streams(&pass, mtp)?;
                let stage = &self.drafter.stages[0];
                pass.enter(&stage.attention_hyper, &stage.attention_norm)?;
            }
            Kind::Dspark(dspark) => self.dspark_context(&pass, dspark, &rows)?,
        }
        for (weights, state) in self.drafter.stages.iter().zip(&self.state.stages) {
            pass.window_keys(&weights.attention, &pass.workspace.plain_angles)?;
            pass.step.enqueue(WriteTail {
                rows: pass.step.rows(),
                x: &pass.workspace.packed_kv,
                ring: &state.window_tail,
            })?;
        }
        Ok(())
    }

    /// Where in a ring of taps, all slots one after the other, a position's row is.
    pub(super) fn tap_row(&self, slot: u32, position: usize) -> i32 {
        let ring_row_count = self.state.taps[0].shape()[1];
        (slot as usize * ring_row_count + position % ring_row_count) as i32
    }

    /// Tapped streams of an MTP layer into `mixed`.
    pub(super) fn gather_streams(&self, pass: &Pass<'_>, rows: &[i32]) -> Result<(), Error> {
        let (n, d) = (pass.config.hc_mult, pass.config.hidden_size);
        let ring = &self.state.taps[0];
        let ring = ring.reshape(&[ring.shape()[0] * ring.shape()[1], n, d]);
        self.gather(pass, &ring, rows, &self.state.mixed.narrow(0, rows.len()))
    }

    /// `rmsnorm(main_proj concat(taps))` into `workspace.input`.
    fn dspark_context(&self, pass: &Pass<'_>, dspark: &Dspark, rows: &[i32]) -> Result<(), Error> {
        let (count, d, tap_count) = (rows.len(), pass.config.hidden_size, self.state.taps.len());
        for (index, ring) in self.state.taps.iter().enumerate() {
            let ring = ring.reshape(&[ring.shape()[0] * ring.shape()[1], d]);
            self.gather(pass, &ring, rows, &self.state.by_tap.narrow(index * count, count))?;
        }
        let order: Vec<i32> = (0..count)
            .flat_map(|row| (0..tap_count).map(move |tap| (tap * count + row) as i32))
            .collect();
        let by_row = self.state.by_row.narrow(0, count * tap_count);
        self.gather(pass, &self.state.by_tap.narrow(0, count * tap_count), &order, &by_row)?;
        pass.step.linear(
            &by_row.reshape(&[count, tap_count * d]),
            &dspark.main_proj,
            LinearRounding::QuantisedInput,
            &pass.workspace.input,
        )?;
        pass.rms_norm(&pass.workspace.input, Some(&dspark.main_norm))
    }
}
