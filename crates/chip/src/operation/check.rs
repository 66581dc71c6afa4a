use cachalot_numerics::Dtype;

use super::OperationKind;
use crate::{Entries, Error, Matrix, RowFormat, Rows, Tensor};

/// Checks the arguments of one operator.
pub(super) struct Check {
    pub operation: OperationKind,
}

impl Check {
    pub fn tensor(&self, name: &'static str, tensor: &Tensor, dtype: Dtype, shape: &[usize]) -> Result<(), Error> {
        if tensor.dtype() != dtype {
            return Err(Error::Dtype {
                operation: self.operation,
                tensor: name,
                expected: dtype,
                found: tensor.dtype(),
            });
        }
        if tensor.shape() != shape {
            return Err(self.shape(name, shape, tensor.shape()));
        }
        Ok(())
    }

    pub fn f32(&self, name: &'static str, tensor: &Tensor, shape: &[usize]) -> Result<(), Error> {
        self.tensor(name, tensor, Dtype::F32, shape)
    }

    pub fn i32(&self, name: &'static str, tensor: &Tensor, shape: &[usize]) -> Result<(), Error> {
        self.tensor(name, tensor, Dtype::I32, shape)
    }

    /// A weight vector, `F32` or `BF16`.
    pub fn vector(&self, name: &'static str, tensor: &Tensor, length: usize) -> Result<(), Error> {
        let dtype = if tensor.dtype() == Dtype::Bf16 {
            Dtype::Bf16
        } else {
            Dtype::F32
        };
        self.tensor(name, tensor, dtype, &[length])
    }

    pub fn matrix(&self, name: &'static str, matrix: &Matrix, rows: usize, columns: usize) -> Result<(), Error> {
        if (matrix.rows(), matrix.columns()) != (rows, columns) {
            return Err(self.shape(name, &[rows, columns], &[matrix.rows(), matrix.columns()]));
        }
        Ok(())
    }

    pub fn shape(&self, name: &'static str, expected: &[usize], found: &[usize]) -> Error {
        Error::Shape {
            operation: self.operation,
            tensor: name,
            expected: expected.to_vec(),
            found: found.to_vec(),
        }
    }

    pub fn rank(&self, name: &'static str, tensor: &Tensor, rank: usize) -> Result<(), Error> {
        if tensor.shape().len() != rank {
            return Err(self.argument(format!(
                "'{name}' has shape {:?}, expected {rank} dimensions",
                tensor.shape()
            )));
        }
        Ok(())
    }

    pub fn argument(&self, message: String) -> Error {
        Error::Argument {
            operation: self.operation,
            message,
        }
    }

    pub fn require(&self, holds: bool, message: impl FnOnce() -> String) -> Result<(), Error> {
        if holds { Ok(()) } else { Err(self.argument(message())) }
    }

    /// An output may not share memory with any other argument.
    pub fn disjoint(&self, output: (&'static str, &Tensor), others: &[(&'static str, &Tensor)]) -> Result<(), Error> {
        for (name, other) in others {
            if output.1.overlaps(other) {
                return Err(Error::Overlap {
                    operation: self.operation,
                    output: output.0,
                    other: name,
                });
            }
        }
        Ok(())
    }

    pub fn rows(&self, rows: &Rows<'_>) -> Result<(), Error> {
        let (row_count, sequence_count) = (rows.row_count(), rows.sequence_count());
        self.i32("positions", rows.positions, &[row_count])?;
        self.i32("sequences", rows.sequences, &[row_count])?;
        self.i32("first_rows", rows.first_rows, &[sequence_count + 1])?;
        self.i32("slots", rows.slots, &[sequence_count])
    }

    /// A tail ring `[slots, rows of a ring, row length]`.
    pub fn tail(&self, name: &'static str, ring: &Tensor, dtype: Dtype, row_length: usize) -> Result<(), Error> {
        self.rank(name, ring, 3)?;
        self.tensor(name, ring, dtype, &[ring.shape()[0], ring.shape()[1], row_length])
    }

    pub fn entries(&self, entries: &Entries<'_>, rows: &Rows<'_>) -> Result<(), Error> {
        self.rank("pool", entries.pool, 3)?;
        self.require(entries.tail <= entries.width, || {
            format!("a tail of {} in {} channels", entries.tail, entries.width)
        })?;
        self.require(entries.ratio > 0 && entries.page_entry_count() > 0, || {
            "empty pages".to_owned()
        })?;
        let row_byte_count = entries.format.byte_count(entries.width, entries.tail);
        let shape = [entries.pool.shape()[0], entries.pool.shape()[1], row_byte_count];
        self.tensor("pool", entries.pool, Dtype::U8, &shape)?;
        self.rank("page_table", entries.page_table, 2)?;
        self.i32(
            "page_table",
            entries.page_table,
            &[rows.sequence_count(), entries.page_table.shape()[1]],
        )?;
        self.hadamard(entries.format, entries.width)
    }

    pub fn hadamard(&self, format: RowFormat, width: usize) -> Result<(), Error> {
        self.require(format != RowFormat::Fp4Hadamard || width.is_power_of_two(), || {
            format!("the Hadamard rotation needs a power of two, got {width} channels")
        })
    }
}
