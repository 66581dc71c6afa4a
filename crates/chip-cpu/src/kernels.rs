use std::{fmt, str::FromStr};

use cachalot_chip::Mode;

#[cfg(target_arch = "x86_64")]
use crate::{amx::Amx, avx2::Avx2, avx512::Avx512};

/// Which instructions the fast kernels use, chosen once when the chip is opened.
///
/// Each set holds those before it: an operator that has no kernel of its own set takes the next lower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kernels {
    /// Plain Rust, on any processor.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 (F, BW, DQ, VL).
    Avx512,
    /// x86-64 with AVX-512 (also VBMI, VNNI, BF16) and the tile unit (AMX, bf16).
    Amx,
}

impl Kernels {
    /// All sets, the plainest first.
    pub const ALL: [Kernels; 4] = [Kernels::Portable, Kernels::Avx2, Kernels::Avx512, Kernels::Amx];

    /// The best that this processor can run.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if Amx::detect().is_some() {
                return Kernels::Amx;
            }
            if Avx512::detect().is_some() {
                return Kernels::Avx512;
            }
            if Avx2::detect().is_some() {
                return Kernels::Avx2;
            }
        }
        Kernels::Portable
    }

    /// Whether this processor can run these kernels.
    pub fn is_available(self) -> bool {
        self <= Kernels::detect()
    }

    /// The name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Kernels::Portable => "portable",
            Kernels::Avx2 => "avx2",
            Kernels::Avx512 => "avx512",
            Kernels::Amx => "amx",
        }
    }
}

/// A name that is none of [`Kernels::name`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKernels(String);

impl std::error::Error for UnknownKernels {}

impl fmt::Display for UnknownKernels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Kernels::ALL.map(Kernels::name).join(", ");
        write!(formatter, "unknown kernels '{}'; known are {names}", self.0)
    }
}

impl FromStr for Kernels {
    type Err = UnknownKernels;

    fn from_str(name: &str) -> Result<Self, UnknownKernels> {
        let known = Kernels::ALL.into_iter().find(|kernels| kernels.name() == name);
        known.ok_or_else(|| UnknownKernels(name.to_owned()))
    }
}

/// The kernels of one operator: those of the chip in fast mode, else the portable ones. Holds the proofs that the
/// processor can run them.
#[derive(Clone, Copy, Default)]
pub(crate) struct Chosen {
    #[cfg(target_arch = "x86_64")]
    avx2: Option<Avx2>,
    #[cfg(target_arch = "x86_64")]
    avx512: Option<Avx512>,
    #[cfg(target_arch = "x86_64")]
    amx: Option<Amx>,
}

#[cfg(target_arch = "x86_64")]
impl Chosen {
    pub fn new(kernels: Kernels, mode: Mode) -> Self {
        let may = |set| mode == Mode::Fast && kernels >= set;
        Chosen {
            avx2: may(Kernels::Avx2).then(Avx2::detect).flatten(),
            avx512: may(Kernels::Avx512).then(Avx512::detect).flatten(),
            amx: may(Kernels::Amx).then(Amx::detect).flatten(),
        }
    }

    /// AVX2, FMA and F16C, if they may be used.
    pub fn avx2(self) -> Option<Avx2> {
        self.avx2
    }

    /// AVX-512, if it may be used.
    pub fn avx512(self) -> Option<Avx512> {
        self.avx512
    }

    /// The tile unit, if it may be used.
    pub fn amx(self) -> Option<Amx> {
        self.amx
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Chosen {
    pub fn new(_: Kernels, _: Mode) -> Self {
        Chosen::PORTABLE
    }
}

impl Chosen {
    /// Plain Rust.
    pub const PORTABLE: Chosen = Chosen {
        #[cfg(target_arch = "x86_64")]
        avx2: None,
        #[cfg(target_arch = "x86_64")]
        avx512: None,
        #[cfg(target_arch = "x86_64")]
        amx: None,
    };
}

impl fmt::Display for Kernels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Kernels::Portable => "portable",
            Kernels::Avx2 => "AVX2+FMA",
            Kernels::Avx512 => "AVX-512",
            Kernels::Amx => "AVX-512+AMX",
        })
    }
}
