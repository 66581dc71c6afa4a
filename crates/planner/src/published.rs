//! Published results, and what the model predicts under their conditions.

use serde::Deserialize;

use crate::{
    Error,
    catalogue::Catalogue,
    memory::{Memory, Request},
    model::{self, Model},
    precision::Precision,
    step::{Layout, Speculation, Step, Work},
    time::{Rates, Unknown},
};

/// The results as TOML.
pub const RESULTS: &str = include_str!("../catalogue/published.toml");

/// What a published figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// What was measured under the stated load.
    Value,
    /// An average over a changing load.
    Average,
    /// Better than what users get: forced balance, fixed acceptance.
    Upper,
    /// At least so much.
    Lower,
}

impl Kind {
    /// Name for tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Value => "",
            Kind::Average => "average",
            Kind::Upper => "upper bound",
            Kind::Lower => "lower bound",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Phase {
    Prefill,
    Decode,
}

/// A published result with its conditions.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedResult {
    /// Short name.
    pub id: String,
    /// Row of the table of results that it belongs to.
    pub row: u64,
    /// System and program.
    pub system: String,
    /// Id of the chip.
    pub chip: String,
    /// Chips that work together.
    pub chips: u64,
    /// Name of the model.
    pub model: String,
    precision: String,
    phase: Phase,
    context: u64,
    #[serde(default)]
    sequences: u64,
    #[serde(default)]
    tokens: u64,
    #[serde(default)]
    drafts: u64,
    #[serde(default = "one")]
    tokens_per_step: f64,
    #[serde(default = "one_device")]
    tensor: u64,
    /// Tokens a second and chip.
    pub published: f64,
    /// Conditions that the source states.
    pub conditions: String,
    /// Conditions that had to be assumed.
    pub assumed: String,
    /// What the figure is.
    pub kind: Kind,
    /// Whether the efficiencies were fitted to it.
    #[serde(default)]
    pub calibrates: bool,
}

fn one() -> f64 {
    1.0
}

fn one_device() -> u64 {
    1
}

#[derive(Deserialize)]
struct ResultFile {
    result: Vec<PublishedResult>,
}

/// All published results.
///
/// # Panics
/// Never: the text is part of the program and a test reads it.
pub fn results() -> Vec<PublishedResult> {
    let file: ResultFile = toml::from_str(RESULTS).expect("the built-in results are valid");
    file.result
}

/// A result whose model has been looked up, so that it can be predicted many times.
pub(crate) struct Prepared {
    pub(crate) result: PublishedResult,
    model: Model,
    precision: Precision,
}

impl Prepared {
    pub(crate) fn new(result: PublishedResult) -> Result<Prepared, Error> {
        let model = model::find(&result.model)?;
        let precision = Precision::by_name(&result.precision).ok_or_else(|| Error::Request {
            what: "precision",
            value: result.precision.clone(),
            expected: "one of released, w8a8, w4a8, q4, q2, bf16".to_owned(),
        })?;
        Ok(Prepared {
            result,
            model,
            precision,
        })
    }

    /// Predicted tokens a second and chip.
    pub(crate) fn predict(&self, catalogue: &Catalogue) -> Result<f64, Unknown> {
        let result = &self.result;
        let chip = catalogue.chip(&result.chip).map_err(|_| Unknown::figure("chip"))?;
        let layout = Layout {
            devices: result.chips * chip.devices,
            tensor: result.tensor,
        };
        let work = match result.phase {
            Phase::Decode => Work::Decode {
                sequences: result.sequences as f64,
                context: result.context as f64,
            },
            Phase::Prefill => Work::Prefill {
                tokens: result.tokens as f64,
                prompt: result.context as f64,
            },
        };
        let slow = chip.storage_gb_s.value();
        let hit_rate = match (slow, chip.memory_bytes()) {
            (Some(_), Some(_)) => {
                let request = Request {
                    model: &self.model,
                    precision: self.precision,
                    layout,
                    sequences: 1.0,
                    context: result.context as f64,
                    drafting: false,
                };
                Memory::of(&request, chip).map_or(1.0, |memory| memory.resident_experts())
            }
            _ => 1.0,
        };
        let step = Step {
            model: &self.model,
            precision: self.precision,
            layout,
            work,
            speculation: Speculation {
                drafts: result.drafts,
                tokens_per_step: result.tokens_per_step,
            },
            link_devices: chip.link_devices(),
            hit_rate,
        };
        let rates = Rates {
            chip,
            efficiency: catalogue.efficiency(chip),
            slow_bytes_per_second: slow.map(|rate| rate * 1e9),
        };
        Ok(rates.time(&step)?.tokens_per_second() / result.chips as f64)
    }
}
