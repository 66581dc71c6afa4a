//! The contract that every chip fulfils: memory, operators, their order, and one test suite.
//!
//! | item | role |
//! | --- | --- |
//! | [`Chip`] | the trait: allocate, load weights, enqueue operators, read back |
//! | [`Tensor`], [`Matrix`] | handles to chip memory; model code never sees a float behind them |
//! | [`Operation`] | every operator with its arguments, shapes, dtypes and rounding |
//! | [`Mode`] | the three numeric modes: reference, official, fast |
//! | [`RowFormat`] | how KV rows and index keys are packed |
//! | [`Cost`], [`profile`] | what an operator has to move and compute; a chip that times each operator |
//!
//! # Rules that hold on every chip
//! * Operators run in the order in which they were enqueued. Errors may surface at [`Chip::synchronize`] or
//!   [`Chip::read`]; what can be checked on the host (shapes, dtypes, overlap) is checked by [`Operation::check`]
//!   before anything is enqueued.
//! * All lengths, positions and tables that change from step to step are device tensors, so a decode step of a
//!   fixed number of rows can be captured and replayed as a graph.
//! * Batches are ragged: rows of many sequences, prefill and decode mixed, described by [`Rows`].
//! * A row's result does not depend on the other rows of the batch, nor on the number of threads.
//! * Ties in every top-k go to the lower index; sums over experts run in ascending expert order.
//! * An operator that a chip lacks is reported by [`Chip::support`]; it is never a reason not to start.
//!
//! This crate must not know models, files, HTTP or any vendor.

#[cfg(feature = "conformance")]
pub mod conformance;
mod description;
mod error;
mod memory;
mod mode;
mod operation;
pub mod profile;
mod rows;
mod streaming;
mod tensor;

pub use description::{Description, Evidence, Support};
pub use error::Error;
pub use memory::{MatrixSource, TensorSource};
pub use mode::Mode;
pub use operation::*;
pub use rows::{Entries, RowFormat, Rows};
pub use streaming::{Expected, ExpertSource, ExpertTraffic, FileRange, MatrixPlace, StoredFile};
pub use tensor::{Buffer, Matrix, Shape, Tensor};

use cachalot_numerics::Dtype;

/// A device that holds tensors and runs operators on them.
///
/// One `Chip` is one in-order stream. Calls from several threads are serialised by the chip.
pub trait Chip: Send + Sync {
    /// What this chip is and how far its label is backed by evidence.
    fn description(&self) -> Description;

    /// How `kind` would run in `mode`: natively, composed of smaller operators, on the reference, or not at all.
    fn support(&self, kind: OperationKind, mode: Mode) -> Support;

    /// New memory, all bytes zero. The chip may commit it lazily.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    fn allocate(&self, dtype: Dtype, shape: &[usize]) -> Result<Tensor, Error>;

    /// Puts a stored tensor into chip memory. A chip that shares the host's memory keeps the source's bytes
    /// and copies nothing.
    ///
    /// # Errors
    /// [`Error::SourceLength`] if bytes and shape disagree, [`Error::OutOfMemory`].
    fn load(&self, source: TensorSource) -> Result<Tensor, Error>;

    /// Puts a stored weight matrix into chip memory in whatever layout the chip computes on.
    ///
    /// # Errors
    /// As [`Chip::load`]. Bad scales are reported here, or by the first operator that uses the matrix on chips
    /// that map weights without reading them.
    fn load_matrix(&self, source: MatrixSource) -> Result<Matrix, Error>;

    /// Puts the routed experts of one layer into chip memory, or notes where to read them when they are needed. Only
    /// [`Experts`] takes matrices of the second kind.
    ///
    /// # Errors
    /// As [`Chip::load_matrix`]; [`Error::Read`] if a file cannot be opened.
    fn load_experts(&self, sources: Vec<ExpertSource>) -> Result<Vec<ExpertMatrices>, Error> {
        sources.into_iter().map(|source| source.load(self)).collect()
    }

    /// Tells which experts of a layer will be asked for soon, so that a chip that has to fetch them can begin. A hint:
    /// it changes no result, and what is wrong with it is left to the operators. Does nothing by default.
    fn expect_experts(&self, _experts: &[ExpertMatrices], _expected: Expected<'_>) {}

    /// How reading experts from files has fared; none (the default) if all experts are in memory or mapped.
    fn expert_traffic(&self) -> Option<ExpertTraffic> {
        None
    }

    /// Enqueues a copy of host bytes into a contiguous tensor. The bytes are taken before the call returns.
    ///
    /// # Errors
    /// [`Error::SourceLength`], [`Error::ForeignTensor`].
    fn write(&self, tensor: &Tensor, bytes: &[u8]) -> Result<(), Error>;

    /// Waits for everything enqueued and copies a tensor to the host.
    ///
    /// # Errors
    /// [`Error::SourceLength`], [`Error::ForeignTensor`], or a pending error of an earlier operator.
    fn read(&self, tensor: &Tensor, bytes: &mut [u8]) -> Result<(), Error>;

    /// Enqueues an operator.
    ///
    /// # Errors
    /// Whatever [`Operation::check`] finds; [`Error::Unsupported`]; or a pending error.
    fn enqueue(&self, mode: Mode, operation: &Operation<'_>) -> Result<(), Error>;

    /// Waits until everything enqueued is done.
    ///
    /// # Errors
    /// The first error since the last synchronisation.
    fn synchronize(&self) -> Result<(), Error>;
}

/// Typed transfers on top of [`Chip::write`] and [`Chip::read`].
pub trait ChipTransfer: Chip {
    /// Writes `values` into an `I32` tensor of the same element count.
    ///
    /// # Errors
    /// As [`Chip::write`].
    fn write_i32(&self, tensor: &Tensor, values: &[i32]) -> Result<(), Error> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.write(tensor, &bytes)
    }

    /// Writes `values` into an `F32` tensor of the same element count.
    ///
    /// # Errors
    /// As [`Chip::write`].
    fn write_f32(&self, tensor: &Tensor, values: &[f32]) -> Result<(), Error> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.write(tensor, &bytes)
    }

    /// Reads an `F32` tensor.
    ///
    /// # Errors
    /// As [`Chip::read`].
    fn read_f32(&self, tensor: &Tensor) -> Result<Vec<f32>, Error> {
        let mut bytes = vec![0; tensor.byte_count()];
        self.read(tensor, &mut bytes)?;
        Ok(bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|value| f32::from_le_bytes(*value))
            .collect())
    }

    /// Reads an `I32` tensor.
    ///
    /// # Errors
    /// As [`Chip::read`].
    fn read_i32(&self, tensor: &Tensor) -> Result<Vec<i32>, Error> {
        let mut bytes = vec![0; tensor.byte_count()];
        self.read(tensor, &mut bytes)?;
        Ok(bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|value| i32::from_le_bytes(*value))
            .collect())
    }
}

impl<C: Chip + ?Sized> ChipTransfer for C {}
