//! One chip.

use serde::Deserialize;

use super::{Family, Figure};

/// Type of the operands of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operand {
    /// BF16 or FP16.
    Bf16,
    /// INT8.
    Int8,
    /// FP8 activations, FP8 or FP4 weights.
    Fp8,
}

impl Operand {
    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Operand::Bf16 => "BF16",
            Operand::Int8 => "INT8",
            Operand::Fp8 => "FP8",
        }
    }
}

/// A chip: what is sold as one unit.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chip {
    /// Short name.
    pub id: String,
    /// Full name.
    pub name: String,
    /// Other short names.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Family whose efficiencies hold.
    pub family: String,
    /// Devices that the software sees in one chip, each with its part of everything. Default 1.
    #[serde(default = "one")]
    pub devices: u64,
    /// Chips that the fast link connects. Default 1.
    #[serde(default = "one")]
    pub link_chips: u64,
    /// Whether its memory is the machine's memory, so the system takes a part of it. Default false.
    #[serde(default)]
    pub host_memory: bool,
    /// Dense BF16 rate, 10^12 operations a second.
    #[serde(default)]
    pub bf16_tflops: Figure,
    /// Dense INT8 rate.
    #[serde(default)]
    pub int8_tops: Figure,
    /// Dense FP8 rate.
    #[serde(default)]
    pub fp8_tflops: Figure,
    /// Dense FP4 rate, of FP4 with FP4: V4's experts have FP8 activations, so it does not enter.
    #[serde(default)]
    pub fp4_tflops: Figure,
    /// Memory, decimal gigabytes unless the note says otherwise.
    #[serde(default)]
    pub memory_gb: Figure,
    /// Memory bandwidth, 10^12 bytes a second.
    #[serde(default)]
    pub bandwidth_tb_s: Figure,
    /// Fast link, both directions together, 10^9 bytes a second.
    #[serde(default)]
    pub link_gb_s: Figure,
    /// Network beyond the fast link, one direction, 10^9 bytes a second.
    #[serde(default)]
    pub network_gb_s: Figure,
    /// Storage that weights can be read from while computing, 10^9 bytes a second.
    #[serde(default)]
    pub storage_gb_s: Figure,
    /// Power, watts.
    #[serde(default)]
    pub power_w: Figure,
    /// Rental, US dollars an hour.
    #[serde(default)]
    pub rent_usd_hour: Figure,
    /// Price, US dollars.
    #[serde(default)]
    pub price_usd: Figure,
}

fn one() -> u64 {
    1
}

impl Chip {
    /// A machine whose own memory holds the weights, with nothing known about it yet.
    pub fn of_machine(name: &str, family: &str) -> Chip {
        Chip {
            id: "this-machine".to_owned(),
            name: name.to_owned(),
            family: family.to_owned(),
            devices: 1,
            link_chips: 1,
            host_memory: true,
            ..Chip::default()
        }
    }

    pub(super) fn is_called(&self, wanted: &str) -> bool {
        let names = self.aliases.iter().chain([&self.id, &self.name]);
        names.into_iter().any(|name| name.to_lowercase() == wanted)
    }

    /// All figures with their names.
    pub fn figures(&self) -> [(&'static str, &Figure); 12] {
        [
            ("bf16_tflops", &self.bf16_tflops),
            ("int8_tops", &self.int8_tops),
            ("fp8_tflops", &self.fp8_tflops),
            ("fp4_tflops", &self.fp4_tflops),
            ("memory_gb", &self.memory_gb),
            ("bandwidth_tb_s", &self.bandwidth_tb_s),
            ("link_gb_s", &self.link_gb_s),
            ("network_gb_s", &self.network_gb_s),
            ("storage_gb_s", &self.storage_gb_s),
            ("power_w", &self.power_w),
            ("rent_usd_hour", &self.rent_usd_hour),
            ("price_usd", &self.price_usd),
        ]
    }

    pub(super) fn check(&self, families: &[Family]) -> Result<(), String> {
        let id = &self.id;
        if let Some((name, _)) = self.figures().iter().find(|(_, figure)| !figure.is_sound()) {
            return Err(format!(
                "{name} of chip {id} must be a number above 0 with status measured, vendor or secondary, or be left out"
            ));
        }
        if !(1..=64).contains(&self.devices) || !(1..=1_000_000).contains(&self.link_chips) {
            return Err(format!(
                "devices (1 to 64) or link_chips (1 to 1,000,000) of chip {id} is out of range"
            ));
        }
        if !families.iter().any(|family| family.id == self.family) {
            let known: Vec<&str> = families.iter().map(|family| family.id.as_str()).collect();
            return Err(format!(
                "chip {id} has the unknown family '{}'; known are {}",
                self.family,
                known.join(", ")
            ));
        }
        Ok(())
    }

    /// Rate of one device for products of a kind, operations a second. A kind that the chip lacks runs as BF16.
    pub fn rate(&self, operand: Operand) -> Option<f64> {
        let special = match operand {
            Operand::Bf16 => None,
            Operand::Int8 => self.int8_tops.value(),
            Operand::Fp8 => self.fp8_tflops.value(),
        };
        let rate = special.or(self.bf16_tflops.value())?;
        Some(rate * 1e12 / self.devices as f64)
    }

    /// Memory bandwidth of one device, bytes a second.
    pub fn bandwidth(&self) -> Option<f64> {
        Some(self.bandwidth_tb_s.value()? * 1e12 / self.devices as f64)
    }

    /// Memory of one device, bytes.
    pub fn memory_bytes(&self) -> Option<f64> {
        Some(self.memory_gb.value()? * 1e9 / self.devices as f64)
    }

    /// Fast link of one device in one direction, bytes a second.
    pub fn link(&self) -> Option<f64> {
        Some(self.link_gb_s.value()? * 1e9 / 2.0 / self.devices as f64)
    }

    /// Network of one device in one direction, bytes a second.
    pub fn network(&self) -> Option<f64> {
        Some(self.network_gb_s.value()? * 1e9 / self.devices as f64)
    }

    /// Devices that the fast link connects.
    pub fn link_devices(&self) -> u64 {
        self.link_chips * self.devices
    }
}
