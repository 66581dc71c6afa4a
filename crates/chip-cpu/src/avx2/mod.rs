//! Kernels for x86-64 with AVX2, FMA and F16C.
//!
//! Weights are decoded exactly and activations stay `f32`: results differ from the portable kernels by the order of
//! sums only. That order depends on nothing but the inner dimension.
//!
//! Safe functions with `#[target_feature]` hold the arithmetic; [`Avx2`] is the proof that the processor has them.

mod attend;
mod dots;
mod product;
mod stored;
mod stored_integer;
mod unpack;

use crate::{
    operators::{Heads, Packing},
    product::Product,
    vector::Vectors,
};

/// Proof that this processor has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The proof, if the processor gives it.
    pub fn detect() -> Option<Self> {
        let has_all =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        has_all.then_some(Avx2(()))
    }

    /// Rows `first .. first + count` of a product; false if its format has no kernel.
    pub fn multiply(self, product: &Product<'_>, first: usize, count: usize) -> bool {
        product::multiply(self, product, first, count)
    }

    /// As [`crate::vector::cross_dots`].
    pub fn dots(self, a: Vectors<'_>, b: Vectors<'_>, width: usize, out: &mut [f32], out_stride: usize) {
        // SAFETY: `self` proves the features.
        unsafe { dots::dots(a, b, width, out, out_stride) }
    }

    /// Unpacks a row; false if its shape has no kernel.
    pub fn unpack(self, packing: &Packing, row: &[u8], out: &mut [f32]) -> bool {
        // SAFETY: `self` proves the features.
        unsafe { unpack::unpack(packing, row, out) }
    }

    /// Attention of some heads over unpacked keys; `scores` is scratch.
    pub fn attend(self, heads: &Heads<'_>, keys: &[f32], scores: &mut Vec<f32>, out: &mut [f32]) {
        // SAFETY: `self` proves the features.
        unsafe { attend::attend(heads, keys, scores, out) }
    }
}
