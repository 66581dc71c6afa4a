//! `cachalot bench`: the numbers it reports hang together. How large they are is no test's business.

mod support;

use serde_json::Value;

const SHORT: [&str; 8] = ["--repetitions", "2", "--steps", "2", "--seconds", "0", "--threads", "1"];

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

#[test]
fn the_built_in_model_is_measured_beside_ceilings() {
    let lists = [
        "bench",
        "--prefill",
        "5",
        "--decode",
        "0,300,1M",
        "--batch",
        "1,3",
        "--json",
        "-",
    ];
    let found = support::json(&[&lists[..], &SHORT].concat());
    for ceiling in [&found["ceilings"]["read"], &found["ceilings"]["arithmetic"]] {
        assert!(
            ceiling
                .as_array()
                .expect("a list")
                .iter()
                .all(|ceiling| number(&ceiling["best"]) > 0.0)
        );
    }
    let points = found["points"].as_array().expect("a list");
    let measured: Vec<_> = points
        .iter()
        .map(|point| (&point["phase"], &point["tokens"], &point["batch"]))
        .collect();
    let expected = [
        ("prefill", 5, 1),
        ("decode", 0, 1),
        ("decode", 300, 1),
        ("decode", 0, 3),
        ("decode", 300, 3),
    ];
    assert_eq!(measured.len(), expected.len());
    for (found, (phase, tokens, batch)) in measured.into_iter().zip(expected) {
        assert_eq!(found, (&phase.into(), &tokens.into(), &batch.into()));
    }
    // The built-in model was not made for a million tokens: skipped, with the reason.
    assert_eq!(found["skipped"].as_array().expect("a list").len(), 2);
    let decode = &points[1];
    assert_eq!(
        decode["cost_per_token"]["weight_bytes"],
        number(&found["active_weight_bytes"])
    );
    assert!(number(&points[2]["cost_per_token"]["state_bytes"]) > number(&decode["cost_per_token"]["state_bytes"]));
    // Three sequences share dense weights.
    assert!(number(&points[3]["cost_per_token"]["weight_bytes"]) < 0.9 * number(&found["active_weight_bytes"]));
    for point in points {
        assert!(number(&point["bandwidth_fraction"]) > 0.0 && number(&point["floor_seconds_per_token"]) > 0.0);
        assert!(point["operators"].as_array().expect("a list").len() > 10);
    }
}

#[test]
fn runs_are_compared_profiled_and_drawn() {
    let folder = support::folder();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (json, chart) = (file("then.json"), format!("--profile={}", file("profile.svg")));
    let lists = ["bench", "--prefill", "none", "--decode", "0", "--json", &json];
    support::output_in(folder.path(), &[&lists[..], &SHORT].concat());
    let lists = ["bench", "--prefill", "8", "--decode", "0", "--compare", &json, &chart];
    let text = support::output_in(folder.path(), &[&lists[..], &SHORT].concat());
    for expected in [
        "of read",
        "routed experts",
        "Compared with the earlier run",
        "streaming reads",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains('\x1b'), "colours are for terminals");
    let chart = std::fs::read_to_string(file("profile.svg")).expect("a chart");
    assert!(chart.starts_with("<svg") && chart.contains("sparse attention"));
}

#[test]
fn experts_from_disk_are_measured_beside_the_disk() {
    let folder = support::folder();
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny");
    support::output_in(folder.path(), &["synth", "--like", tiny, "--layers", "3", "model"]);
    let bench = |memory: &str| {
        let lists = ["bench", "-m", "model", "--memory", memory, "--prefill", "none"];
        let lists = [&lists[..], &["--decode", "0", "--json", "-"], &SHORT].concat();
        support::run_in(folder.path(), &lists, b"")
    };
    // What a refusal advises is enough.
    let refused = bench("1MiB").errors;
    let (_, advice) = refused.split_once("at least --memory ").expect("advice");
    let (least, _) = advice.split_once(',').expect("a size");
    let outcome = bench(least);
    assert_eq!(outcome.code, Some(0), "{}", outcome.errors);
    let found: Value = serde_json::from_str(&outcome.output).expect("JSON");
    assert!(number(&found["ceilings"]["disk"]["best"]) > 0.0);
    let (point, experts) = (&found["points"][0], &found["points"][0]["experts"]);
    assert!(number(&experts["bytes_read"]) > 0.0, "{experts}");
    let share = &point["disk"];
    assert!((0.0..1.0).contains(&number(&share["hit_share"])), "{share}");
    let streaming = number(&share["bytes_per_token"]) / number(&found["ceilings"]["disk"]["best"]);
    assert!(number(&share["floor_seconds_per_token"]) > streaming, "{share}");
    assert!(number(&share["floor_seconds_per_token"]) >= number(&point["floor_seconds_per_token"]));
}

#[test]
fn bad_requests_are_refused() {
    let folder = support::folder();
    std::fs::write(folder.path().join("old.json"), "{\"format\": 1}").expect("a file");
    for (arguments, expected) in [
        (&["--compare", "old.json"][..], "bench --json"),
        (&["--compare", "nowhere.json"], "nowhere.json"),
        (&["--decode", "2x"], "8k or 1M"),
        (&["--batch", "0"], "1..=1024"),
        (&["--context", "2M"], "1,048,576"),
        (&["-m", "./nowhere"], "nowhere"),
    ] {
        let outcome = support::run_in(folder.path(), &[&["bench"], arguments].concat(), b"");
        assert_ne!(outcome.code, Some(0), "{arguments:?}");
        assert!(outcome.errors.contains(expected), "{arguments:?}: {}", outcome.errors);
    }
}
