//! The time model against published results, and that its efficiencies come from the fixed rule.

use std::{collections::BTreeSet, fs, path::Path};

use cachalot_planner::{
    calibration,
    catalogue::{Catalogue, EFFICIENCIES},
    published::Kind,
    report, validation,
};

#[test]
fn efficiencies_are_those_that_the_rule_finds() {
    let families = calibration::fit().unwrap();
    assert_eq!(
        calibration::to_toml(&families, calibration::COMMAND),
        EFFICIENCIES,
        "run `cargo run -p cachalot-planner --example calibrate > crates/planner/catalogue/efficiencies.toml`"
    );
}

#[test]
fn at_most_half_of_rows_and_results_calibrate() {
    let comparisons = validation::compare(&Catalogue::built_in()).unwrap();
    let results = comparisons.iter().map(|comparison| &comparison.result);
    let calibrating: Vec<_> = results.clone().filter(|result| result.calibrates).collect();
    assert!(2 * calibrating.len() <= comparisons.len());
    let rows: BTreeSet<u64> = results.map(|result| result.row).collect();
    let calibrating_rows: BTreeSet<u64> = calibrating.iter().map(|result| result.row).collect();
    assert_eq!(rows.len(), 13);
    assert!(2 * calibrating_rows.len() <= rows.len());
    // A row calibrates as a whole, and only if its figures are values.
    for comparison in &comparisons {
        let result = &comparison.result;
        assert_eq!(
            result.calibrates,
            calibrating_rows.contains(&result.row),
            "{}",
            result.id
        );
        assert!(!result.calibrates || result.kind == Kind::Value, "{}", result.id);
    }
}

#[test]
fn held_out_results_are_predicted() {
    let comparisons = validation::compare(&Catalogue::built_in()).unwrap();
    let median = validation::median_error_held_out(&comparisons).unwrap();
    assert!(median <= 0.25, "median error {median}");
    for comparison in comparisons.iter().filter(|comparison| !comparison.result.calibrates) {
        assert!(comparison.holds(), "{}: {:?}", comparison.result.id, comparison.ratio());
    }
}

#[test]
fn the_page_on_ascend_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/can-ascend-match.md");
    let page = fs::read_to_string(path).unwrap();
    assert!(
        page == report::can_ascend_match(&Catalogue::built_in()).unwrap(),
        "run `cargo run -- plan --report docs/can-ascend-match.md`"
    );
}

#[test]
fn the_validation_page_is_up_to_date() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("VALIDATION.md")).unwrap();
    let comparisons = validation::compare(&Catalogue::built_in()).unwrap();
    assert!(
        page == validation::page(&Catalogue::built_in(), &comparisons),
        "run `cargo run -p cachalot-planner --example validation > crates/planner/VALIDATION.md`"
    );
}
