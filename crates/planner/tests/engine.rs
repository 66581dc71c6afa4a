//! Predictions for this program: their arithmetic, and that the fit finds what made the numbers.

use cachalot_planner::{
    catalogue::Efficiency,
    engine::{self, Ceilings, Measurement},
    model,
    step::{Class, Work},
};

const CEILINGS: Ceilings = Ceilings {
    read_bytes_per_second: 30e9,
    operations_per_second: 400e9,
};

const DECODE: Work = Work::Decode {
    sequences: 1.0,
    context: 8192.0,
};

#[test]
fn a_token_takes_its_bytes_its_operators_and_nothing_else() {
    let flash = model::find("DeepSeek-V4-Flash").unwrap();
    // Arithmetic that costs nothing, so that reads and operators remain.
    let ceilings = Ceilings {
        operations_per_second: 1e30,
        ..CEILINGS
    };
    let efficiency = Efficiency {
        memory: 0.75,
        compute: 1.0,
        link: 1.0,
        launch_us: 2.0,
    };
    let step = engine::predict(&flash, ceilings, efficiency, DECODE).unwrap();
    let weights = step.seconds_of(Class::Dense) + step.seconds_of(Class::Experts);
    // The floor of the V4 architecture notes, and one row of the embedding.
    let expected = (11_217_572_060.0 + 2.0 * 4096.0) / (0.75 * 30e9);
    assert!((weights / expected - 1.0).abs() < 1e-9, "{weights} and {expected}");
    let launches = flash.launches() as f64 * 2e-6;
    assert!((step.seconds_of(Class::Launches) - launches).abs() < 1e-12);
    let state = step.seconds_of(Class::Attention) + step.seconds_of(Class::Indexer);
    let bytes = 584.0 * (43.0 * 128.0 + 21.0 * 512.0 + 20.0 * 64.0) + 68.0 * 21.0 * 2048.0;
    assert!((state * 0.75 * 30e9 / bytes - 1.0).abs() < 1e-9);
}

#[test]
fn the_fit_finds_the_efficiencies_behind_measurements() {
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny");
    for (memory, compute, launch_us) in [(0.75, 0.3, 1.4), (0.5, 0.6, 3.0)] {
        let truth = Efficiency {
            memory,
            compute,
            link: 1.0,
            launch_us,
        };
        let prefill = Work::Prefill {
            tokens: 512.0,
            prompt: 2048.0,
        };
        let mut measurements = Vec::new();
        for name in [tiny, "DeepSeek-V4-Flash"] {
            let model = model::find(name).unwrap();
            for work in [DECODE, prefill] {
                let step = engine::predict(&model, CEILINGS, truth, work).unwrap();
                measurements.push(Measurement {
                    model: model.clone(),
                    ceilings: CEILINGS,
                    work,
                    tokens_per_second: step.tokens_per_second(),
                });
            }
        }
        assert_eq!(engine::fit(&measurements).unwrap(), truth);
    }
    assert!(engine::fit(&[]).is_err());
}

#[test]
fn the_built_in_efficiencies_are_parts_of_ceilings() {
    let efficiency = engine::family().efficiency;
    assert_eq!(engine::family().id, engine::FAMILY);
    assert!((0.0..=1.0).contains(&efficiency.memory) && (0.0..=1.0).contains(&efficiency.compute));
    assert!(efficiency.launch_us > 0.0);
}
