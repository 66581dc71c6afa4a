//! Kernels for x86-64 with AVX-512 and without a tile unit.
//!
//! Like those for AVX2 they decode weights exactly to `f32`, keep activations `f32`, and sum in an order that depends on
//! the matrix alone.

mod product;
mod stored;

use crate::{avx2::Avx2, product::Product};

/// Proof that this processor has AVX-512 F, BW, DQ and VL, and what [`Avx2`] proves.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// The proof, if the processor gives it.
    pub fn detect() -> Option<Self> {
        let has_all = Avx2::detect().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        has_all.then_some(Avx512(()))
    }

    /// Rows `first .. first + count` of a product; false if its format or width has no kernel.
    pub fn multiply(self, product: &Product<'_>, first: usize, count: usize) -> bool {
        product::multiply(self, product, first, count)
    }
}
