//! A number that knows where it comes from.

use serde::Deserialize;

/// How well a figure is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Measured on the thing itself.
    Measured,
    /// From the maker: data sheets, papers, configuration files.
    Vendor,
    /// From somebody else.
    Secondary,
    /// Not known; whatever needs it is unknown too.
    #[default]
    Unknown,
}

impl Status {
    /// One letter for tables.
    pub fn mark(self) -> &'static str {
        match self {
            Status::Measured => "m",
            Status::Vendor => "",
            Status::Secondary => "s",
            Status::Unknown => "?",
        }
    }
}

/// A number that knows where it comes from.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    value: Option<f64>,
    /// How well it is known.
    #[serde(default)]
    pub status: Status,
    /// Letter of the source; the catalogue's head lists them.
    #[serde(default)]
    pub source: String,
    /// Conditions, other values in circulation.
    #[serde(default)]
    pub note: String,
}

impl Figure {
    /// A measured figure.
    pub fn measured(value: f64, source: &str) -> Figure {
        Figure {
            value: Some(value),
            status: Status::Measured,
            source: source.to_owned(),
            note: String::new(),
        }
    }

    /// The number; `None` if unknown.
    pub fn value(&self) -> Option<f64> {
        self.value.filter(|_| self.status != Status::Unknown)
    }

    /// Whether the number is absent or a positive finite one with a status.
    pub(super) fn is_sound(&self) -> bool {
        match self.value {
            None => self.status == Status::Unknown,
            Some(value) => value.is_finite() && value > 0.0 && self.status != Status::Unknown,
        }
    }
}
