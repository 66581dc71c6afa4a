//! Fits the efficiencies of this program to runs of `cachalot bench` and prints them as TOML; on standard error, predicted
//! beside measured. Arguments: for each run the folder of its model, `=`, and the JSON that it wrote.

use std::{error::Error, fs};

use cachalot_planner::{
    calibration,
    engine::{self, Ceilings, Measurement},
    model,
    step::Work,
};
use serde_json::Value;

/// Fastest repetition less the slowest, over the median.
const SPREAD_MAX: f64 = 0.25;

fn main() -> Result<(), Box<dyn Error>> {
    let mut measurements = Vec::new();
    for argument in std::env::args().skip(1) {
        let (folder, file) = argument.split_once('=').ok_or("expected MODEL-FOLDER=RUN.json")?;
        let run: Value = serde_json::from_slice(&fs::read(file)?)?;
        let ceilings = Ceilings {
            read_bytes_per_second: number(&run["ceilings"]["read_bytes_per_second"])?,
            operations_per_second: number(&run["ceilings"]["operations_per_second"])?,
        };
        for point in run["points"].as_array().ok_or("no points")? {
            // A machine that was busy would be written into every later prediction.
            let spread = spread(point);
            if spread > SPREAD_MAX {
                let (phase, tokens) = (&point["phase"], &point["tokens"]);
                let percent = spread * 100.0;
                return Err(format!(
                    "{file}: {phase} at {tokens} varied by {percent:.0} %: run again when nothing else does"
                )
                .into());
            }
            measurements.push(Measurement {
                model: model::find(folder)?,
                ceilings,
                work: work(point, number(&run["chunk"])?)?,
                tokens_per_second: number(&point["tokens_per_second"])?,
            });
        }
    }
    let efficiency = engine::fit(&measurements)?;
    let family = cachalot_planner::catalogue::Family {
        efficiency,
        ..engine::family()
    };
    print!("{}", calibration::to_toml(&[family], "tools/planner/calibrate-engine"));
    for measured in &measurements {
        let predicted = engine::predict(&measured.model, measured.ceilings, efficiency, measured.work);
        let predicted = predicted.map_or(f64::NAN, |step| step.tokens_per_second());
        eprintln!(
            "{:9.1} measured {:9.1} predicted {:5.2}  {:?}, {:?}",
            measured.tokens_per_second,
            predicted,
            predicted / measured.tokens_per_second,
            measured.model.name,
            measured.work
        );
    }
    Ok(())
}

fn spread(point: &Value) -> f64 {
    let rates: Vec<f64> = point["rates"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_f64)
        .collect();
    let fastest = rates.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let slowest = rates.iter().copied().fold(f64::INFINITY, f64::min);
    (fastest - slowest) / point["tokens_per_second"].as_f64().unwrap_or(f64::NAN)
}

fn work(point: &Value, chunk: f64) -> Result<Work, Box<dyn Error>> {
    let tokens = number(&point["tokens"])?;
    Ok(match point["phase"].as_str() {
        Some("decode") => Work::Decode {
            sequences: number(&point["batch"])?,
            context: tokens + number(&point["steps"])? / 2.0,
        },
        _ => Work::Prefill {
            tokens: tokens.min(chunk),
            prompt: tokens,
        },
    })
}

fn number(value: &Value) -> Result<f64, String> {
    value
        .as_f64()
        .ok_or_else(|| format!("expected a number, found {value}"))
}
