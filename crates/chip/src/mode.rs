use std::{fmt, str::FromStr};

/// What an operator rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Weights decoded exactly, everything else `f32`, portable code: the yardstick.
    Reference,
    /// Rounds where DeepSeek's inference code rounds (bf16 outputs, FP8 activations, FP4 index keys).
    Official,
    /// Whatever the chip does best, under one law: the distance of its next-token distributions from
    /// `Reference` is never larger than that of `Official`.
    #[default]
    Fast,
}

impl Mode {
    /// All modes.
    pub const ALL: [Mode; 3] = [Mode::Reference, Mode::Official, Mode::Fast];
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Mode::Reference => "reference",
            Mode::Official => "official",
            Mode::Fast => "fast",
        })
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Mode::ALL
            .into_iter()
            .find(|mode| mode.to_string() == text)
            .ok_or_else(|| format!("unknown mode '{text}': expected reference, official or fast"))
    }
}
