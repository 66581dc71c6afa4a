use std::path::PathBuf;

use cachalot_numerics::Dtype;

use crate::{Mode, OperationKind};

/// What can go wrong on a chip.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor has the wrong shape for its place in an operator.
    #[error("{operation}: tensor '{tensor}' has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The operator.
        operation: OperationKind,
        /// The argument's name.
        tensor: &'static str,
        /// The shape that the other arguments ask for.
        expected: Vec<usize>,
        /// The shape given.
        found: Vec<usize>,
    },
    /// A tensor has the wrong element type for its place in an operator.
    #[error("{operation}: tensor '{tensor}' has dtype {found}, expected {expected}")]
    Dtype {
        /// The operator.
        operation: OperationKind,
        /// The argument's name.
        tensor: &'static str,
        /// The type wanted.
        expected: Dtype,
        /// The type given.
        found: Dtype,
    },
    /// Two arguments of an operator share memory and one of them is written.
    #[error("{operation}: output '{output}' overlaps '{other}'")]
    Overlap {
        /// The operator.
        operation: OperationKind,
        /// The argument that is written.
        output: &'static str,
        /// The other argument.
        other: &'static str,
    },
    /// A number among the arguments is impossible.
    #[error("{operation}: {message}")]
    Argument {
        /// The operator.
        operation: OperationKind,
        /// What is wrong.
        message: String,
    },
    /// A device tensor holds an index outside the tensor that it points into.
    #[error("{operation}: '{tensor}' holds index {index}, the limit is {limit}")]
    Index {
        /// The operator.
        operation: OperationKind,
        /// The argument that holds the index.
        tensor: &'static str,
        /// The index found.
        index: i64,
        /// First value that is too large.
        limit: usize,
    },
    /// Bytes and shape disagree.
    #[error("'{name}': {found} bytes given, its shape needs {expected}")]
    SourceLength {
        /// The tensor.
        name: String,
        /// Bytes that the shape needs.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// A weight scale is NaN, infinite, zero or negative.
    #[error("'{name}': scale {index} is {value}; the file is damaged: verify its hash and download it again")]
    BadScale {
        /// The matrix.
        name: String,
        /// Position in the scale tensor.
        index: usize,
        /// The value found, as text.
        value: String,
    },
    /// A stored weight is NaN.
    #[error("'{name}': weight {index} is NaN; the file is damaged: verify its hash and download it again")]
    BadWeight {
        /// The matrix.
        name: String,
        /// Position in the weight tensor.
        index: usize,
    },
    /// A handle of another chip was passed.
    #[error("a tensor of another chip was passed to chip '{chip}'")]
    ForeignTensor {
        /// The chip that was called.
        chip: String,
    },
    /// The chip has no room for an allocation.
    #[error("out of memory: {bytes} bytes wanted ({reason}); use a shorter context or fewer sequences")]
    OutOfMemory {
        /// Bytes wanted.
        bytes: usize,
        /// The allocator's word.
        reason: String,
    },
    /// The memory that the chip may use does not suffice for the model.
    #[error(
        "{limit_bytes} bytes of memory are too few: the weights that every token uses take {weight_bytes}, states and \
         workspace {state_bytes}, {slot_count_min} experts at once {slot_bytes_min}; allow at least {needed_bytes} \
         bytes, or ask for a shorter context"
    )]
    MemoryLimit {
        /// What the chip may use.
        limit_bytes: u64,
        /// Weights outside routed experts.
        weight_bytes: u64,
        /// Tensors that were allocated.
        state_bytes: u64,
        /// Experts that must fit at once.
        slot_count_min: usize,
        /// Bytes of these.
        slot_bytes_min: u64,
        /// The smallest limit that suffices.
        needed_bytes: u64,
    },
    /// A weight could not be read from its file when it was needed.
    #[error("cannot read '{tensor}' from {file}: {reason}; {remedy}", file = file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The tensor, or the first of several that are read together.
        tensor: String,
        /// What is wrong.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The chip cannot run this operator in this mode.
    #[error("{operation} is not available in {mode} mode on chip '{chip}'")]
    Unsupported {
        /// The operator.
        operation: OperationKind,
        /// The numeric mode.
        mode: Mode,
        /// The chip.
        chip: String,
    },
    /// A fault of the device or of its driver.
    #[error("chip '{chip}' failed: {message}")]
    Device {
        /// The chip.
        chip: String,
        /// What the device said.
        message: String,
    },
}
