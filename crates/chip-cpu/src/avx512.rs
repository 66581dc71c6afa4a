//! Detection of AVX-512.

use crate::avx2::Avx2;

/// Proof that this processor has AVX-512 F, BW, DQ, VL, VBMI, VNNI and BF16, and what [`Avx2`] proves.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// The proof, if the processor gives it.
    pub fn detect() -> Option<Self> {
        let has_all = Avx2::detect().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vbmi")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("avx512bf16");
        has_all.then_some(Avx512(()))
    }
}
