use bytes::Bytes;
use cachalot_numerics::{Dtype, MatrixFormat};

use crate::Error;

/// A stored tensor on its way to a chip.
#[derive(Clone, Debug)]
pub struct TensorSource {
    /// Name for error messages.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Shape, outermost first.
    pub shape: Vec<usize>,
    /// Little-endian bytes, row-major.
    pub data: Bytes,
}

/// A stored weight matrix on its way to a chip.
#[derive(Clone, Debug)]
pub struct MatrixSource {
    /// Name for error messages.
    pub name: String,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub columns: usize,
    /// Storage format.
    pub format: MatrixFormat,
    /// Stored weights, row-major.
    pub weights: Bytes,
    /// Stored scales; empty for plain formats.
    pub scales: Bytes,
}

impl TensorSource {
    /// Checks that bytes and shape agree.
    ///
    /// # Errors
    /// [`Error::SourceLength`].
    pub fn check(&self) -> Result<(), Error> {
        let sides = self.shape.iter();
        let expected = sides.fold(self.dtype.byte_count(), |count, side| count.saturating_mul(*side));
        check_length(&self.name, expected, self.data.len())
    }
}

impl MatrixSource {
    /// Checks that bytes, format and shape agree.
    ///
    /// # Errors
    /// [`Error::SourceLength`].
    pub fn check(&self) -> Result<(), Error> {
        // No format has more than four bytes an element.
        let is_addressable = self.rows.saturating_mul(self.columns) <= usize::MAX / 4;
        let weights = if is_addressable {
            self.rows * self.format.row_byte_count(self.columns)
        } else {
            usize::MAX
        };
        check_length(&self.name, weights, self.weights.len())?;
        let scales = self.format.byte_count(self.rows, self.columns) - weights;
        check_length(&self.name, scales, self.scales.len())
    }
}

fn check_length(name: &str, expected: usize, found: usize) -> Result<(), Error> {
    if expected == found {
        return Ok(());
    }
    Err(Error::SourceLength {
        name: name.to_owned(),
        expected,
        found,
    })
}
