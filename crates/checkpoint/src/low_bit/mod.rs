//! The dense part in integers of 4, 6 or 8 bits.
//!
//! A matrix of the dense part ([`Part::is_dense`]) becomes integers where that makes it smaller and its weights are in
//! the format's range; otherwise it stays as it is. So int8 replaces BF16 and leaves FP8 alone: FP8 is no larger, and
//! exact. The same function serves loading and converting, so both give the same bits.
//!
//! [`Part::is_dense`]: crate::inventory::Part::is_dense

mod encode;

use std::collections::HashMap;

use bytes::Bytes;
use cachalot_numerics::{IntegerWidth, MatrixFormat};

pub(crate) use encode::{encode_block, row_blocks};

use crate::{
    Checkpoint, Error, Progress, StoredMatrix,
    inventory::{self, Place, SlotKind},
    parallel,
};

/// What became of the dense part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LowBit {
    /// Matrices that became integers.
    pub converted: usize,
    /// Matrices of the dense part that stayed as they are.
    pub kept: usize,
    /// Bytes of the converted matrices before.
    pub bytes_before: u64,
    /// Bytes of the converted matrices now: memory that loading them this way takes, beside the mapped files.
    pub bytes_after: u64,
}

impl Checkpoint {
    /// Replaces the matrices of the dense part by low-bit ones in memory: [`Checkpoint::matrix`] then gives those, and
    /// the configuration announces them.
    ///
    /// A checkpoint that was converted to the same format stays as it is. Reads the whole dense part, one thread for
    /// each core. `progress` counts weights' bytes as they were.
    ///
    /// # Errors
    /// [`Error::LowBitAlready`] if the checkpoint was converted to another format; [`Error::Value`] for weights that
    /// are NaN or infinite.
    pub fn requantise_dense(
        &mut self,
        width: IntegerWidth,
        progress: impl Fn(Progress) + Sync,
    ) -> Result<LowBit, Error> {
        let mut found = self.low_bit_plan(width)?;
        let mut bytes_done = 0;
        let mut replaced = HashMap::with_capacity(found.matrices.len());
        for matrix in std::mem::take(&mut found.matrices) {
            let before = matrix.weights.len() + matrix.scales.as_ref().map_or(0, Bytes::len);
            bytes_done += before as u64;
            replaced.insert(matrix.name.clone(), encode(&matrix, width));
            progress(Progress {
                bytes_done,
                bytes_total: found.sums.bytes_before,
            });
        }
        self.replaced = replaced;
        self.config.set_low_bit(width);
        Ok(found.sums)
    }

    /// The matrices that would become integers, as they are stored; checked.
    pub(crate) fn low_bit_plan(&self, width: IntegerWidth) -> Result<LowBitPlan, Error> {
        if let Some(present) = self.config.low_bit()
            && present != width
        {
            return Err(Error::LowBitAlready {
                checkpoint: self.name.clone(),
                present,
                wanted: width,
            });
        }
        let mut plan = LowBitPlan::default();
        let places = inventory::places(&self.config).filter(|place| !matches!(place, Place::Stage(_)));
        for slot in places.flat_map(|place| inventory::slots_at(&self.config, place)) {
            let SlotKind::Matrix { rows, columns, .. } = slot.kind else {
                continue;
            };
            if !slot.part.is_dense() {
                continue;
            }
            let matrix = self.matrix(&slot.name)?;
            if !inventory::is_worth(matrix.format, width, rows, columns) || !self.is_in_range(&matrix, width)? {
                plan.sums.kept += 1;
                continue;
            }
            plan.sums.converted += 1;
            plan.sums.bytes_before += matrix.format.byte_count(rows, columns) as u64;
            plan.sums.bytes_after += MatrixFormat::Integer(width).byte_count(rows, columns) as u64;
            plan.matrices.push(matrix);
        }
        Ok(plan)
    }

    /// Whether the largest integer times the largest scale reaches all weights. Weights must be numbers.
    fn is_in_range(&self, matrix: &StoredMatrix, width: IntegerWidth) -> Result<bool, Error> {
        self.check_matrix(matrix)?;
        if encode::largest_possible(matrix).is_some_and(|largest| largest <= width.weight_max()) {
            return Ok(true);
        }
        let blocks = row_blocks(matrix);
        let largest = parallel::map(&blocks, |block| encode::largest(matrix, block));
        Ok(largest.into_iter().fold(0.0, f32::max) <= width.weight_max())
    }
}

/// Matrices that become integers.
#[derive(Debug, Default)]
pub(crate) struct LowBitPlan {
    pub(crate) matrices: Vec<StoredMatrix>,
    pub(crate) sums: LowBit,
}

/// The whole matrix in integers.
fn encode(matrix: &StoredMatrix, width: IntegerWidth) -> StoredMatrix {
    let format = MatrixFormat::Integer(width);
    let weight_byte_count = matrix.rows * format.row_byte_count(matrix.columns);
    let mut weights = vec![0; weight_byte_count];
    let mut scales = vec![0; format.byte_count(matrix.rows, matrix.columns) - weight_byte_count];
    let blocks = row_blocks(matrix);
    parallel::consume(
        encode::outputs(&blocks, &mut weights, &mut scales),
        |(block, weights, scales)| {
            encode_block(matrix, width, block, weights, scales);
        },
    );
    StoredMatrix {
        name: matrix.name.clone(),
        rows: matrix.rows,
        columns: matrix.columns,
        format,
        weights: weights.into(),
        scales: Some(scales.into()),
    }
}
