use std::fmt;

use cachalot_chip::Mode;

#[cfg(target_arch = "x86_64")]
use crate::avx2::Avx2;

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
        if Avx2::detect().is_some() {
            return Kernels::Avx2;
        }
        Kernels::Portable
    }

    /// Whether this processor can run these kernels.
    pub fn is_available(self) -> bool {
        self == Kernels::Portable || Kernels::detect() == self
    }
}

/// The kernels of one operator: those of the chip in fast mode, else the portable ones. Holds the proof that the
/// processor can run them.
#[derive(Clone, Copy)]
pub(crate) enum Chosen {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
}

impl Chosen {
    pub fn new(kernels: Kernels, mode: Mode) -> Self {
        #[cfg(target_arch = "x86_64")]
        if mode == Mode::Fast
            && kernels == Kernels::Avx2
            && let Some(avx2) = Avx2::detect()
        {
            return Chosen::Avx2(avx2);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (kernels, mode);
        Chosen::Portable
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
