//! Engram (V4.1 notes, section 5): what the last tokens point to is added to the streams.

use cachalot_chip::{Embed, EngramGate, GatherRows, LinearRounding, NgramRows, Tensor, WriteTail};

use super::{pass::Pass, weights::Engram};
use crate::Error;

impl Pass<'_> {
    /// The step's tokens as ids that spelling variants share.
    pub(super) fn fold_tokens(&self) -> Result<(), Error> {
        match (&self.model.weights.folding, &self.workspace.engram) {
            (Some(folding), Some(rows)) => self.step.enqueue(GatherRows {
                x: &folding.map,
                rows: &self.step.inputs.tokens,
                out: &rows.ids,
            }),
            _ => Ok(()),
        }
    }

    /// Keeps them for the next step, when all layers have read those before.
    pub(super) fn keep_tokens(&self, ids_tail: Option<&Tensor>) -> Result<(), Error> {
        match (ids_tail, &self.workspace.engram) {
            (Some(ring), Some(rows)) => self.step.enqueue(WriteTail {
                rows: self.step.rows(),
                x: &rows.ids,
                ring,
            }),
            _ => Ok(()),
        }
    }

    /// Adds a layer's rows to `workspace.streams`.
    pub(super) fn engram(&self, weights: &Engram, ids_tail: &Tensor) -> Result<(), Error> {
        let (step, folding) = (self.step, self.model.weights.folding.as_ref());
        let (Some(folding), Some(rows)) = (folding, &self.workspace.engram) else {
            return Ok(());
        };
        step.enqueue(NgramRows {
            rows: step.rows(),
            ids: &rows.ids,
            tail: ids_tail,
            pad: folding.pad,
            multipliers: &weights.multipliers,
            primes: &weights.primes,
            out: &rows.numbers,
        })?;
        let count = rows.numbers.element_count();
        step.enqueue(Embed {
            table: &weights.table,
            tokens: &rows.numbers.reshape(&[count]),
            streams: &rows.looked_up.reshape(&[count, 1, weights.table.columns()]),
        })?;
        let rounding = LinearRounding::FineQuantisedInput;
        step.linear(&rows.looked_up, &weights.wkv, rounding, &rows.keys_value)?;
        step.enqueue(EngramGate {
            keys_value: &rows.keys_value,
            query_weight: &weights.query_weight,
            key_weight: &weights.key_weight,
            epsilon: self.config.rms_norm_eps,
            streams: &self.workspace.streams,
        })
    }
}
