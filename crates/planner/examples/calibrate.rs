//! Fits the efficiencies anew and prints them, then predicted beside published on standard error.

use cachalot_planner::{calibration, catalogue::Catalogue, validation};

fn main() -> Result<(), cachalot_planner::Error> {
    let families = calibration::fit()?;
    print!("{}", calibration::to_toml(&families, calibration::COMMAND));
    let mut catalogue = Catalogue::built_in();
    catalogue.families = families;
    let comparisons = validation::compare(&catalogue)?;
    for comparison in &comparisons {
        eprintln!(
            "{:22} {:5} {:8.1} {:8.1} {:.2}",
            comparison.result.id,
            if comparison.result.calibrates { "fit" } else { "held" },
            comparison.predicted.unwrap_or(f64::NAN),
            comparison.result.published,
            comparison.ratio().unwrap_or(f64::NAN)
        );
    }
    eprintln!(
        "median error of held-out results {:.3}",
        validation::median_error_held_out(&comparisons).unwrap_or(f64::NAN)
    );
    Ok(())
}
