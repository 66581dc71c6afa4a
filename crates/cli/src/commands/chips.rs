//! `cachalot chips`: which chips there are, and how operators run on them.

use cachalot_chip::{Chip, Description, Evidence, Mode, OperationKind};
use cachalot_chip_cpu::{CpuChip, CpuOptions};
use clap::Args;
use serde_json::json;

use crate::error::Error;

/// Chips that this version does not run on, with the devices that are meant.
const PLANNED: [(&str, &str); 4] = [
    ("ascend", "Huawei Ascend 910B, 910C and 950"),
    ("nvidia", "NVIDIA GPUs from Ampere on"),
    ("amd", "AMD Instinct MI300 and MI350"),
    ("cambricon", "Cambricon MLU590"),
];

/// List chips and what runs on them how.
///
/// A chip is `measured` if it was run on the real device, `emulated` if on an emulator only, and `planned` if it
/// cannot be used yet.
#[derive(Args, Debug)]
pub struct ChipsArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Name and label of every chip.
pub fn labels() -> Vec<(String, Evidence)> {
    let planned = PLANNED.iter().map(|(name, _)| ((*name).to_owned(), Evidence::Planned));
    let cpu = available().description();
    std::iter::once((cpu.name, cpu.evidence)).chain(planned).collect()
}

pub fn run(arguments: &ChipsArguments) -> Result<(), Error> {
    let cpu = CpuChip::new(CpuOptions::default());
    let description = cpu.description();
    match arguments.json {
        true => super::print_json(&as_json(&cpu, &description)),
        false => super::print(&as_text(&cpu, &description)),
    }
}

/// One thread is enough for questions.
fn available() -> CpuChip {
    CpuChip::new(CpuOptions {
        threads: 1,
        ..CpuOptions::default()
    })
}

fn as_text(cpu: &CpuChip, description: &Description) -> String {
    let label = description.evidence.to_string();
    let mut text = format!("{:10} {label:9} {}\n", description.name, description.details);
    for (name, details) in PLANNED {
        text.push_str(&format!("{name:10} {:9} {details}\n", Evidence::Planned.to_string()));
    }
    text.push_str(&format!("\nOperators on {}:\n{:28}", description.name, ""));
    for mode in Mode::ALL {
        text.push_str(&format!("{:11}", mode.to_string()));
    }
    for kind in OperationKind::ALL {
        text.push_str(&format!("\n  {:26}", kind.to_string()));
        for mode in Mode::ALL {
            text.push_str(&format!("{:11}", cpu.support(*kind, mode).to_string()));
        }
    }
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

fn as_json(cpu: &CpuChip, description: &Description) -> serde_json::Value {
    let operators: serde_json::Map<_, _> = OperationKind::ALL
        .iter()
        .map(|kind| {
            let modes: serde_json::Map<_, _> = Mode::ALL
                .iter()
                .map(|mode| (mode.to_string(), json!(cpu.support(*kind, *mode).to_string())))
                .collect();
            (kind.to_string(), json!(modes))
        })
        .collect();
    let mut chips = vec![json!({
        "name": description.name,
        "label": description.evidence.to_string(),
        "details": description.details,
        "operators": operators,
    })];
    chips
        .extend(PLANNED.map(
            |(name, details)| json!({ "name": name, "label": Evidence::Planned.to_string(), "details": details }),
        ));
    json!({ "chips": chips })
}
