//! This program itself on a machine whose ceilings were measured.
//!
//! A prediction takes two measured ceilings (streaming reads, and multiply-adds of the kind that the kernels use) and three
//! efficiencies of the kernels: the parts of both ceilings that they reach, and the time that an operator costs beside
//! them. The efficiencies are fitted to runs of `cachalot bench` on a tiny model, which waits for operators, and on a slice
//! of V4-Flash, which waits for memory and arithmetic; there is one set for all models, contexts and batches.

use crate::{
    Error,
    calibration::{self, Grid},
    catalogue::{Catalogue, Chip, Efficiency, Family, Figure},
    model::Model,
    precision::Precision,
    step::{Layout, Speculation, Step, Work},
    time::{Rates, StepTime, Unknown},
};

/// The fitted efficiencies, as TOML.
pub const EFFICIENCIES: &str = include_str!("../catalogue/engine.toml");
/// Id of the family of chips that run this program.
pub const FAMILY: &str = "cachalot";
/// Rows of a step of prefill, unless the user says otherwise.
pub const PREFILL_ROWS: f64 = 512.0;

/// What a machine does at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// Streaming reads of all threads, bytes a second.
    pub read_bytes_per_second: f64,
    /// Arithmetic that the kernels use, operations a second, two for a multiply-add.
    pub operations_per_second: f64,
}

/// A measured speed.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// What ran.
    pub model: Model,
    /// Of the machine, in the same run.
    pub ceilings: Ceilings,
    /// What was done.
    pub work: Work,
    /// How fast.
    pub tokens_per_second: f64,
}

/// The family with its efficiencies.
///
/// # Panics
/// Never: the text is part of the program and a test reads it.
pub fn family() -> Family {
    let families = Catalogue::families(EFFICIENCIES, "engine.toml").expect("the built-in efficiencies are valid");
    families.into_iter().next().expect("one family")
}

/// A machine as a chip of the family.
pub fn chip(name: &str, ceilings: Option<Ceilings>) -> Chip {
    let mut chip = Chip::of_machine(name, FAMILY);
    if let Some(ceilings) = ceilings {
        chip.bandwidth_tb_s = Figure::measured(ceilings.read_bytes_per_second / 1e12, "measured here");
        chip.bf16_tflops = Figure::measured(ceilings.operations_per_second / 1e12, "measured here");
    }
    chip
}

/// Time of a step of a model whose released weights are all in memory.
///
/// # Errors
/// [`Unknown`] never, as both ceilings are known; the type is that of other chips.
pub fn predict(model: &Model, ceilings: Ceilings, efficiency: Efficiency, work: Work) -> Result<StepTime, Unknown> {
    let chip = chip("this machine", Some(ceilings));
    let rates = Rates {
        chip: &chip,
        efficiency,
        slow_bytes_per_second: None,
    };
    rates.time(&Step {
        model,
        precision: Precision::Released,
        layout: Layout { devices: 1, tensor: 1 },
        work,
        speculation: Speculation::OFF,
        link_devices: 1,
        hit_rate: 1.0,
    })
}

/// The efficiencies that bring predictions nearest to measurements: the least sum of squares of
/// `ln(predicted / measured)` over a fixed grid.
///
/// # Errors
/// [`Error::Request`] without measurements.
pub fn fit(measurements: &[Measurement]) -> Result<Efficiency, Error> {
    if measurements.is_empty() {
        return Err(Error::Request {
            what: "the number of measurements",
            value: "0".to_owned(),
            expected: "at least 1".to_owned(),
        });
    }
    Ok(calibration::least(&GRID, |efficiency| {
        let squares = measurements.iter().map(|measured| {
            let predicted = predict(&measured.model, measured.ceilings, efficiency, measured.work);
            let predicted = predicted.map_or(f64::NAN, |step| step.tokens_per_second());
            (predicted / measured.tokens_per_second).ln().powi(2)
        });
        squares.sum()
    }))
}

/// Finer than that of other families: here the results determine every efficiency.
const GRID: Grid = Grid {
    memory: &[
        0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0,
    ],
    compute: &[
        0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.18, 0.22, 0.26, 0.3, 0.35, 0.4,
        0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9,
    ],
    launch_us: &[
        0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.25, 2.5, 2.75, 3.0, 3.5, 4.0, 5.0, 6.0,
        8.0, 10.0,
    ],
};
