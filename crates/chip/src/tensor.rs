use std::{any::Any, fmt, ops::Deref, sync::Arc};

use cachalot_numerics::{Dtype, MatrixFormat};

/// Chip memory behind a handle. Each chip defines its own and recognises it by downcasting.
pub trait Buffer: Any + Send + Sync + fmt::Debug {
    /// For downcasting to the chip's own type.
    fn as_any(&self) -> &dyn Any;
}

/// Up to four dimensions, outermost first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    dimensions: [usize; 4],
    rank: usize,
}

impl Shape {
    /// # Panics
    /// If there are more than four dimensions.
    pub fn new(dimensions: &[usize]) -> Self {
        assert!(dimensions.len() <= 4, "tensors have at most four dimensions");
        let mut shape = Shape {
            dimensions: [1; 4],
            rank: dimensions.len(),
        };
        shape.dimensions[..dimensions.len()].copy_from_slice(dimensions);
        shape
    }

    /// Product of the dimensions.
    pub fn element_count(&self) -> usize {
        self.iter().product()
    }
}

impl Deref for Shape {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.dimensions[..self.rank]
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self[..], formatter)
    }
}

/// A contiguous, row-major range of chip memory with a type and a shape. Clones share the memory.
#[derive(Clone, Debug)]
pub struct Tensor {
    buffer: Arc<dyn Buffer>,
    byte_offset: usize,
    dtype: Dtype,
    shape: Shape,
}

impl Tensor {
    /// For chips: a tensor that covers `buffer` from its first byte.
    pub fn new(buffer: Arc<dyn Buffer>, dtype: Dtype, shape: &[usize]) -> Self {
        Tensor {
            buffer,
            byte_offset: 0,
            dtype,
            shape: Shape::new(shape),
        }
    }

    /// The chip memory.
    pub fn buffer(&self) -> &Arc<dyn Buffer> {
        &self.buffer
    }

    /// Where the tensor starts in its buffer.
    pub fn byte_offset(&self) -> usize {
        self.byte_offset
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Shape, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn element_count(&self) -> usize {
        self.shape.element_count()
    }

    /// Bytes covered.
    pub fn byte_count(&self) -> usize {
        self.element_count() * self.dtype.byte_count()
    }

    /// The slices `first .. first + count` of the outermost dimension.
    ///
    /// # Panics
    /// If the range is out of bounds.
    pub fn narrow(&self, first: usize, count: usize) -> Tensor {
        assert!(
            first + count <= self.shape[0],
            "rows {first}..{} of {}",
            first + count,
            self.shape[0]
        );
        let row_byte_count = self.shape[1..].iter().product::<usize>() * self.dtype.byte_count();
        let mut narrowed = self.clone();
        narrowed.byte_offset += first * row_byte_count;
        narrowed.shape.dimensions[0] = count;
        narrowed
    }

    /// The same elements under another shape.
    ///
    /// # Panics
    /// If the element counts differ.
    pub fn reshape(&self, shape: &[usize]) -> Tensor {
        let shape = Shape::new(shape);
        assert_eq!(
            shape.element_count(),
            self.element_count(),
            "reshape of {:?} to {shape:?}",
            self.shape
        );
        Tensor { shape, ..self.clone() }
    }

    /// Whether two tensors share bytes. An empty tensor shares none.
    pub fn overlaps(&self, other: &Tensor) -> bool {
        Arc::ptr_eq(&self.buffer, &other.buffer)
            && self.byte_count() > 0
            && other.byte_count() > 0
            && self.byte_offset < other.byte_offset + other.byte_count()
            && other.byte_offset < self.byte_offset + self.byte_count()
    }
}

/// A weight matrix `[rows, columns]` in chip memory, in the chip's own layout.
#[derive(Clone, Debug)]
pub struct Matrix {
    buffer: Arc<dyn Buffer>,
    rows: usize,
    columns: usize,
    format: MatrixFormat,
}

impl Matrix {
    /// For chips.
    pub fn new(buffer: Arc<dyn Buffer>, rows: usize, columns: usize, format: MatrixFormat) -> Self {
        Matrix {
            buffer,
            rows,
            columns,
            format,
        }
    }

    /// The chip memory.
    pub fn buffer(&self) -> &Arc<dyn Buffer> {
        &self.buffer
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The format in which the matrix was stored.
    pub fn format(&self) -> MatrixFormat {
        self.format
    }
}
