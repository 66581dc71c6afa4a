//! This machine as a chip: what the system says, and the ceilings that a probe measures.

use std::path::Path;

use cachalot_chip_cpu::CpuOptions;
use cachalot_planner::{
    catalogue::{Chip, Figure},
    engine,
};

use crate::{commands::bench::ceilings, machine};

/// This machine. Without `probe` its speeds are unknown.
pub fn detect(probe: bool) -> Chip {
    let options = CpuOptions::default();
    let name = format!(
        "this machine ({} threads, {} kernels)",
        options.threads, options.kernels
    );
    let mut chip = engine::chip(&name, if probe { ceilings::probe(options) } else { None });
    if let Some(bytes) = machine::memory_bytes() {
        chip.memory_gb = Figure::measured(bytes as f64 / 1e9, "system");
    }
    chip
}

/// Free bytes of the disk of the current folder.
pub fn disk_bytes() -> Option<u64> {
    cachalot_checkpoint::available_bytes(Path::new("."))
}
