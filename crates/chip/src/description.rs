use std::fmt;

/// What a chip is.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// Short name as used on the command line, for example `cpu`.
    pub name: String,
    /// The device in words, with the kernels chosen at start, for example `x86-64 AVX2+FMA, 2 threads`.
    pub details: String,
    /// How far statements about this chip are backed.
    pub evidence: Evidence,
}

/// The label that every chip wears in reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Run on the real device.
    Measured,
    /// Written and compiled, but not run on such a device.
    Unmeasured,
    /// Run on an emulator only.
    Emulated,
    /// Not run anywhere yet.
    Planned,
}

impl fmt::Display for Evidence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Evidence::Measured => "measured",
            Evidence::Unmeasured => "unmeasured",
            Evidence::Emulated => "emulated",
            Evidence::Planned => "planned",
        })
    }
}

/// How a chip runs an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// A kernel written for this chip.
    Native,
    /// Composed of smaller operators of this chip.
    Composed,
    /// The portable reference.
    Reference,
    /// Not at all.
    Missing,
}

impl fmt::Display for Support {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Support::Native => "native",
            Support::Composed => "composed",
            Support::Reference => "reference",
            Support::Missing => "missing",
        })
    }
}
