//! Kernels for x86-64 with AVX2, FMA and F16C.
//!
//! Weights are decoded exactly and activations stay `f32`: results differ from the portable kernels by the order of
//! sums only. That order depends on nothing but the inner dimension.
//!
//! Safe functions with `#[target_feature]` hold the arithmetic; [`Avx2`] is the proof that the processor has them.

mod product;
mod stored;

use crate::{kernels::Kernels, product::Product};

/// Proof that this processor has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The proof, if these kernels were chosen.
    pub fn of(kernels: Kernels) -> Option<Self> {
        // `CpuChip::new` replaces kernels that the processor cannot run; asking again costs one cached load.
        (kernels == Kernels::Avx2 && kernels.is_available()).then_some(Avx2(()))
    }

    /// Rows `first .. first + count` of a product; false if its format has no kernel.
    pub fn multiply(self, product: &Product<'_>, first: usize, count: usize) -> bool {
        product::multiply(self, product, first, count)
    }
}
