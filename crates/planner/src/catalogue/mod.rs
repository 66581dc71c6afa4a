//! Chips, systems and efficiencies: figures with their sources.

mod chip;
mod figure;

pub use chip::{Chip, Operand};
pub use figure::{Figure, Status};

use std::path::Path;

use serde::Deserialize;

use crate::{Error, units};

/// The catalogue that comes with the planner, as TOML.
pub const BUILT_IN: &str = include_str!("../../catalogue/chips.toml");
/// The efficiencies that the calibration found, as TOML.
pub const EFFICIENCIES: &str = include_str!("../../catalogue/efficiencies.toml");

/// What part of a chip's figures programs of its family reach.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Efficiency {
    /// Part of the memory bandwidth.
    pub memory: f64,
    /// Part of the arithmetic rate.
    pub compute: f64,
    /// Part of the link bandwidth.
    pub link: f64,
    /// Seconds by 10^6 from one kernel to the next.
    pub launch_us: f64,
}

impl Efficiency {
    /// For rates that were measured with the very kernels that will run.
    pub const MEASURED: Efficiency = Efficiency {
        memory: 1.0,
        compute: 1.0,
        link: 1.0,
        launch_us: 0.0,
    };
}

/// A named set of efficiencies.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Family {
    /// Name that chips refer to.
    pub id: String,
    /// What belongs to it.
    pub covers: String,
    /// The values.
    #[serde(flatten)]
    pub efficiency: Efficiency,
}

/// A system of many chips.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct System {
    /// Short name.
    pub id: String,
    /// Full name.
    pub name: String,
    /// Id of its chip.
    pub chip: String,
    /// Number of chips.
    pub chips: u64,
    /// Power of everything, kilowatts.
    #[serde(default)]
    pub power_kw: Figure,
    /// Price of everything, US dollars.
    #[serde(default)]
    pub price_usd: Figure,
    /// What else is published.
    #[serde(default)]
    pub note: String,
}

/// All chips, systems and families.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalogue {
    /// Chips.
    pub chips: Vec<Chip>,
    /// Systems.
    pub systems: Vec<System>,
    /// Families of chips.
    pub families: Vec<Family>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChipFile {
    #[serde(default)]
    chip: Vec<Chip>,
    #[serde(default)]
    system: Vec<System>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FamilyFile {
    family: Vec<Family>,
}

impl Catalogue {
    /// The catalogue that comes with the planner.
    ///
    /// # Panics
    /// Never: the texts are part of the program and a test reads them.
    pub fn built_in() -> Catalogue {
        let families = Self::families(EFFICIENCIES, "efficiencies.toml").expect("the built-in efficiencies are valid");
        Self::with_families(families)
    }

    /// The same chips with other efficiencies.
    pub(crate) fn with_families(families: Vec<Family>) -> Catalogue {
        let mut catalogue = Catalogue {
            chips: Vec::new(),
            systems: Vec::new(),
            families,
        };
        catalogue
            .extend(BUILT_IN, "chips.toml")
            .expect("the built-in catalogue is valid");
        catalogue
    }

    pub(crate) fn families(text: &str, origin: &str) -> Result<Vec<Family>, Error> {
        let file: FamilyFile = toml::from_str(text).map_err(|error| catalogue_error(origin, &error))?;
        Ok(file.family)
    }

    /// Adds the chips and systems of a TOML text; those with a known id replace the older ones.
    ///
    /// # Errors
    /// [`Error::Catalogue`] for what is no catalogue: unknown keys, figures that are not above 0, unknown families.
    pub fn extend(&mut self, text: &str, origin: &str) -> Result<(), Error> {
        let file: ChipFile = toml::from_str(text).map_err(|error| catalogue_error(origin, &error))?;
        for chip in file.chip {
            chip.check(&self.families).map_err(|message| Error::Catalogue {
                origin: origin.to_owned(),
                message,
            })?;
            self.chips.retain(|known| known.id != chip.id);
            self.chips.push(chip);
        }
        for system in file.system {
            self.systems.retain(|known| known.id != system.id);
            self.systems.push(system);
        }
        Ok(())
    }

    /// Adds the catalogue of a file.
    ///
    /// # Errors
    /// [`Error::Read`], and as [`Catalogue::extend`].
    pub fn extend_from(&mut self, path: &Path) -> Result<(), Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        self.extend(&text, &path.display().to_string())
    }

    /// A chip by id, alias or name, in any case.
    ///
    /// # Errors
    /// [`Error::ChipUnknown`] with the nearest ids.
    pub fn chip(&self, name: &str) -> Result<&Chip, Error> {
        let wanted = name.trim().to_lowercase();
        let found = self.chips.iter().find(|chip| chip.is_called(&wanted));
        found.ok_or_else(|| Error::ChipUnknown {
            name: name.chars().take(100).collect(),
            nearest: units::nearest(&wanted, self.chips.iter().map(|chip| chip.id.as_str()), 3),
        })
    }

    /// The efficiencies of a chip's family.
    pub fn efficiency(&self, chip: &Chip) -> Efficiency {
        let family = self.families.iter().find(|family| family.id == chip.family);
        family.map_or(Efficiency::MEASURED, |family| family.efficiency)
    }
}

fn catalogue_error(origin: &str, error: &toml::de::Error) -> Error {
    Error::Catalogue {
        origin: origin.to_owned(),
        message: error.to_string().trim().replace('\n', " "),
    }
}
