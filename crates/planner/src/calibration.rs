//! The efficiencies, found by one fixed rule from the results that are named as calibrating.
//!
//! For each family apart, the rule takes from a fixed grid the values with the smallest sum of squares of
//!
//! * `ln(predicted / published)` of the family's calibrating results, and
//! * `ln(value / usual) / 4` for each efficiency, which settles those that the results do not determine.
//!
//! The link's efficiency is shared by the two families of accelerators, because each has few results that cross links.
//! Nothing is fitted to a single result.

use crate::{
    Error,
    catalogue::{Catalogue, EFFICIENCIES, Efficiency, Family},
    published::{self, Prepared},
};

/// What fits the families of the catalogue.
pub const COMMAND: &str = "cargo run -p cachalot-planner --example calibrate";

/// What programs usually reach; only settles what results leave open.
const USUAL: Efficiency = Efficiency {
    memory: 0.7,
    compute: 0.5,
    link: 0.7,
    launch_us: 5.0,
};
/// How much less a distance from the usual counts than the same distance from a result.
const USUAL_WEIGHT: f64 = 1.0 / 16.0;

/// Values that a fit tries.
pub(crate) struct Grid {
    pub memory: &'static [f64],
    pub compute: &'static [f64],
    pub launch_us: &'static [f64],
}

/// The values of a grid with the least loss; links do not enter.
pub(crate) fn least(grid: &Grid, loss: impl Fn(Efficiency) -> f64) -> Efficiency {
    let mut best = (f64::INFINITY, USUAL);
    for memory in grid.memory {
        for compute in grid.compute {
            for launch_us in grid.launch_us {
                let efficiency = Efficiency {
                    memory: *memory,
                    compute: *compute,
                    link: 1.0,
                    launch_us: *launch_us,
                };
                let loss = loss(efficiency);
                if loss < best.0 {
                    best = (loss, efficiency);
                }
            }
        }
    }
    best.1
}

const MEMORY: [f64; 12] = [0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95];
const COMPUTE: [f64; 16] = [
    0.08, 0.1, 0.12, 0.15, 0.18, 0.22, 0.26, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8,
];
const LINK: [f64; 7] = [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95];
const LAUNCH_US: [f64; 9] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0];

/// Fits all families.
///
/// # Errors
/// Those of looking up the models and chips of the published results.
pub fn fit() -> Result<Vec<Family>, Error> {
    let mut results = Vec::new();
    for result in published::results().into_iter().filter(|result| result.calibrates) {
        results.push(Prepared::new(result)?);
    }
    let mut families = Catalogue::families(EFFICIENCIES, "efficiencies.toml")?;
    let mut best: Option<(f64, Vec<Family>)> = None;
    for link in LINK {
        let mut sum = 0.0;
        for index in 0..families.len() {
            let (loss, efficiency) = fit_family(&families, index, link, &results);
            families[index].efficiency = efficiency;
            sum += loss;
        }
        if best.as_ref().is_none_or(|(least, _)| sum < *least) {
            best = Some((sum, families.clone()));
        }
    }
    Ok(best.map_or(families, |(_, families)| families))
}

fn fit_family(families: &[Family], index: usize, link: f64, results: &[Prepared]) -> (f64, Efficiency) {
    let mut catalogue = Catalogue::with_families(families.to_vec());
    let id = families[index].id.clone();
    let own: Vec<&Prepared> = results
        .iter()
        .filter(|prepared| {
            catalogue
                .chip(&prepared.result.chip)
                .is_ok_and(|chip| chip.family == id)
        })
        .collect();
    let mut best = (f64::INFINITY, USUAL);
    for memory in MEMORY {
        for compute in COMPUTE {
            for launch_us in LAUNCH_US {
                let efficiency = Efficiency {
                    memory,
                    compute,
                    link,
                    launch_us,
                };
                catalogue.families[index].efficiency = efficiency;
                let loss = distance_from_usual(efficiency) + loss(&catalogue, &own);
                if loss < best.0 {
                    best = (loss, efficiency);
                }
            }
        }
    }
    best
}

fn loss(catalogue: &Catalogue, results: &[&Prepared]) -> f64 {
    let squares = results.iter().map(|prepared| match prepared.predict(catalogue) {
        Ok(predicted) => (predicted / prepared.result.published).ln().powi(2),
        // A chip without the needed figures says nothing.
        Err(_) => 0.0,
    });
    squares.sum()
}

fn distance_from_usual(efficiency: Efficiency) -> f64 {
    let pairs = [
        (efficiency.memory, USUAL.memory),
        (efficiency.compute, USUAL.compute),
        (efficiency.link, USUAL.link),
        (efficiency.launch_us, USUAL.launch_us),
    ];
    let squares = pairs.iter().map(|(value, usual)| (value / usual).ln().powi(2));
    USUAL_WEIGHT * squares.sum::<f64>()
}

/// The fitted families as the text of the catalogue's file that `command` writes.
pub fn to_toml(families: &[Family], command: &str) -> String {
    let mut text = format!("# Written by the calibration; `{command}` makes it anew.\n");
    for family in families {
        let Efficiency {
            memory,
            compute,
            link,
            launch_us,
        } = family.efficiency;
        text.push_str(&format!(
            "\n[[family]]\nid = \"{}\"\ncovers = \"{}\"\nmemory = {memory:?}\ncompute = {compute:?}\nlink = {link:?}\n\
             launch_us = {launch_us:?}\n",
            family.id, family.covers
        ));
    }
    text
}
