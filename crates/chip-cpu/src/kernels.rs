use std::fmt;

/// Which instructions the fast kernels use, chosen once when the chip is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// Plain Rust, on any processor.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
}

impl Kernels {
    /// The best that this processor can run.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
            return Kernels::Avx2;
        }
        Kernels::Portable
    }

    /// Whether this processor can run these kernels.
    pub fn is_available(self) -> bool {
        self == Kernels::Portable || Kernels::detect() == self
    }
}

impl fmt::Display for Kernels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Kernels::Portable => "portable",
            Kernels::Avx2 => "AVX2+FMA",
        })
    }
}
