//! Everything that keeps a plan from being made.

use std::path::PathBuf;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No chip of that name in the catalogue.
    #[error(
        "no chip is called '{name}'; the nearest are {nearest}; `cachalot plan --help` lists all; add your own with --chips FILE"
    )]
    ChipUnknown {
        /// What was asked for.
        name: String,
        /// Names that are spelled most like it.
        nearest: String,
    },
    /// Neither a folder nor a known release.
    #[error("no model is called '{name}' and there is no such folder; the nearest are {nearest}")]
    ModelUnknown {
        /// What was asked for.
        name: String,
        /// Names that are spelled most like it.
        nearest: String,
    },
    /// A configuration cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] cachalot_checkpoint::Error),
    /// A family that the planner has no arithmetic for.
    #[error("models of the family {family} cannot be planned from a folder; name the release")]
    Family {
        /// Name of the family.
        family: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A catalogue is no TOML, or has keys or values that no catalogue has.
    #[error("{origin}: {message}; compare with the catalogue that `cachalot plan --show-chips` prints")]
    Catalogue {
        /// File of the catalogue.
        origin: String,
        /// What is wrong, with its line.
        message: String,
    },
    /// A number with a unit that means nothing.
    #[error("'{text}' is not {expected}")]
    Unit {
        /// What was written.
        text: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A request outside what a model or the arithmetic allows.
    #[error("{what} is {value}, but it must be {expected}")]
    Request {
        /// Which input.
        what: &'static str,
        /// Its value.
        value: String,
        /// What would be right.
        expected: String,
    },
}
