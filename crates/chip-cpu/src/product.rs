//! Products of activations with stored matrices.
//!
//! Everything that multiplies by a weight (linear, grouped linear, experts) is a list of [`Product`]s that run in one
//! parallel region, cut into blocks of weight rows. An element of the result is one dot product whose order depends on
//! the number of columns only, so results do not change with the batch, the blocks or the threads.

use crate::{
    kernels::Chosen,
    memory::CpuMatrix,
    pool::Pool,
    vector::{dot, dot_four},
};

/// `out[t][out_first + r] = matrix[first_row + r] . x[t]` for `r` below `row_count` and every `t`.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    /// The weights.
    pub matrix: &'a CpuMatrix,
    /// First weight row.
    pub first_row: usize,
    /// Number of weight rows.
    pub row_count: usize,
    /// Activations; row `t` starts at `t * x_stride` and is `matrix.columns` long.
    pub x: &'a [f32],
    /// Distance of activation rows.
    pub x_stride: usize,
    /// Rows of activations.
    pub x_count: usize,
    /// How many bf16 terms kernels that multiply bf16 keep of an activation: 1 (8 bits) or 2 (16 bits). Others keep `f32`.
    pub term_count: usize,
    /// Where results go.
    pub out: Out<'a>,
}

impl Product<'_> {
    /// Whether both multiply the same activations in the same way.
    #[cfg(target_arch = "x86_64")]
    pub fn has_same_activations(&self, other: &Product<'_>) -> bool {
        let key = |product: &Product<'_>| {
            (
                product.x.as_ptr(),
                product.x_stride,
                product.x_count,
                product.matrix.columns,
                product.term_count,
            )
        };
        key(self) == key(other)
    }
}

/// Results of a product that several threads write, each its own elements.
#[derive(Clone, Copy)]
pub(crate) struct Out<'a> {
    values: *mut f32,
    length: usize,
    stride: usize,
    lifetime: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: products of one list write disjoint elements, see `run`.
unsafe impl Sync for Out<'_> {}
// SAFETY: as above.
unsafe impl Send for Out<'_> {}

impl<'a> Out<'a> {
    /// All of `values` as rows of `stride`.
    pub fn new(values: &'a mut [f32], stride: usize) -> Self {
        Out {
            values: values.as_mut_ptr(),
            length: values.len(),
            stride,
            lifetime: std::marker::PhantomData,
        }
    }

    /// The same rows, starting `columns` further right.
    pub fn shifted(self, columns: usize) -> Self {
        assert!(columns <= self.length, "shift of {columns} in {} values", self.length);
        // SAFETY: stays within the slice.
        let values = unsafe { self.values.add(columns) };
        Out {
            values,
            length: self.length - columns,
            ..self
        }
    }

    /// Writes neighbouring elements of a row.
    ///
    /// # Panics
    /// If an element is out of range.
    #[inline]
    pub fn store(&self, row: usize, column: usize, values: &[f32]) {
        let index = row * self.stride + column;
        assert!(
            index + values.len() <= self.length,
            "elements {index} to {} of {}",
            index + values.len(),
            self.length
        );
        // SAFETY: in range; `run` gives every element to one task only.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), self.values.add(index), values.len()) };
    }

    /// Writes one element.
    ///
    /// # Panics
    /// If the element is out of range.
    #[inline]
    pub fn set(&self, row: usize, column: usize, value: f32) {
        let index = row * self.stride + column;
        assert!(index < self.length, "element {index} of {}", self.length);
        // SAFETY: in range; `run` gives every element to one task only.
        unsafe { self.values.add(index).write(value) };
    }
}

/// Weight rows of a task.
pub(crate) const BLOCK_ROW_COUNT: usize = 16;

/// Runs all products in one parallel region.
///
/// Each matrix row of a list must go to elements of its own (callers build lists over disjoint outputs or columns).
pub(crate) fn run(pool: &Pool, kernels: Chosen, products: &[Product<'_>]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(amx) = kernels.amx() {
        return amx.run(pool, products, &|product, first, count| {
            multiply(kernels, product, first, count)
        });
    }
    let mut first_blocks = Vec::with_capacity(products.len() + 1);
    let mut block_count = 0;
    let mut work_count = 0;
    for product in products {
        first_blocks.push(block_count);
        block_count += product.row_count.div_ceil(BLOCK_ROW_COUNT);
        work_count += product.row_count * product.matrix.columns * product.x_count;
    }
    pool.run(block_count, work_count / block_count.max(1), &|block| {
        let index = first_blocks.partition_point(|first| *first <= block) - 1;
        let product = &products[index];
        let first = (block - first_blocks[index]) * BLOCK_ROW_COUNT;
        let count = BLOCK_ROW_COUNT.min(product.row_count - first);
        multiply(kernels, product, first, count);
    });
}

/// Rows `first .. first + count` of a product.
fn multiply(kernels: Chosen, product: &Product<'_>, first: usize, count: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(avx512) = kernels.avx512()
        && avx512.multiply(product, first, count)
    {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = kernels.avx2()
        && avx2.multiply(product, first, count)
    {
        return;
    }
    #[cfg(not(target_arch = "x86_64"))]
    let Chosen {} = kernels;
    multiply_portable(product, first, count);
}

/// Plain Rust, compiled a second time for wider registers: the compiler never fuses or reorders floating-point
/// operations, so both give the same bits.
fn multiply_portable(product: &Product<'_>, first: usize, count: usize) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { multiply_portable_avx2(product, first, count) };
    }
    multiply_rows(product, first, count);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn multiply_portable_avx2(product: &Product<'_>, first: usize, count: usize) {
    multiply_rows(product, first, count);
}

#[inline(always)]
fn multiply_rows(product: &Product<'_>, first: usize, count: usize) {
    /// Activation rows that share a pass over a weight row.
    const TILE: usize = 4;
    let columns = product.matrix.columns;
    let x_row = |t: usize| &product.x[t * product.x_stride..][..columns];
    let mut weights = vec![0.0; columns];
    for row in first..first + count {
        product.matrix.decode_row(product.first_row + row, &mut weights);
        let mut t = 0;
        while t + TILE <= product.x_count {
            let results = dot_four(std::array::from_fn(|i| x_row(t + i)), &weights);
            for (i, result) in results.into_iter().enumerate() {
                product.out.set(t + i, row, result);
            }
            t += TILE;
        }
        for t in t..product.x_count {
            product.out.set(t, row, dot(x_row(t), &weights));
        }
    }
}
