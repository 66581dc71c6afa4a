//! Prints the page that sets predictions beside published results.

use cachalot_planner::{catalogue::Catalogue, validation};

fn main() -> Result<(), cachalot_planner::Error> {
    let catalogue = Catalogue::built_in();
    print!("{}", validation::page(&catalogue, &validation::compare(&catalogue)?));
    Ok(())
}
