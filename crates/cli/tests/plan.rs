//! `cachalot plan` as a user meets it.

use std::process::{Command, Output};

fn plan(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cachalot"));
    command.arg("plan").args(arguments).env("NO_COLOR", "1");
    command.output().expect("the program starts")
}

fn json(arguments: &[&str]) -> serde_json::Value {
    json_with(arguments, 0)
}

/// JSON of a plan that ends with an exit code.
fn json_with(arguments: &[&str], code: i32) -> serde_json::Value {
    let output = plan(&[arguments, &["--json"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn a_plan_tells_what_fits() {
    let found = json(&[
        "deepseek-ai/DeepSeek-V4-Flash",
        "--chip",
        "910b3",
        "--count",
        "8",
        "--context",
        "128k",
        "--users",
        "32",
    ]);
    assert_eq!(found["released_bytes"], 159_609_485_896_u64);
    assert_eq!(found["kv_bytes_per_token_packed"], 3514.25);
    assert_eq!((&found["fits"], &found["weights"]), (&true.into(), &"w8a8".into()));
    assert!(found["users_max"].as_u64().unwrap() >= 32 && found["context_max"].as_u64().unwrap() >= 131_072);
    assert!(found["watts"].is_null(), "nobody has published the power of a 910B3");
}

#[test]
fn what_does_not_fit_gets_changes_that_fit() {
    let found = json_with(&["DeepSeek-V4-Pro", "--chip", "h20", "--count", "8"], 1);
    assert_eq!(found["fits"], false);
    assert!(found["decode_tokens_per_second"].is_null());
    let remedies: Vec<&str> = found["remedies"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|text| text.as_str())
        .collect();
    let count = remedies
        .iter()
        .find_map(|text| text.strip_prefix("--count "))
        .expect("more chips would do");
    let count = count.split(' ').next().unwrap();
    assert_eq!(
        json(&["DeepSeek-V4-Pro", "--chip", "h20", "--count", count])["fits"],
        true
    );
}

#[test]
fn unknown_stays_unknown_and_typing_errors_get_the_nearest_names() {
    let found = json(&["DeepSeek-V4-Flash", "--chip", "mlu590"]);
    assert!(found["fits"].is_null() && found["decode_tokens_per_second"].is_null());
    for (arguments, expected) in [
        (
            &["DeepSeek-V4-Flsh", "--chip", "h20"][..],
            "deepseek-ai/DeepSeek-V4-Flash",
        ),
        (&["DeepSeek-V4-Flash", "--chip", "910b33"], "910b3"),
        (&["DeepSeek-V4-Flash", "--chip", "h20", "--context", "2M"], "1,048,576"),
        (
            &["DeepSeek-V4-Flash", "--chip", "h20", "--context", "12parsecs"],
            "such as 4096, 128k or 1M",
        ),
        (&["DeepSeek-V4-Flash", "--chip", "h20", "--memory", "lots"], "64 GiB"),
        (
            &["DeepSeek-V4-Flash", "--chip", "h20", "--weights", "fp3"],
            "released, w8a8",
        ),
        (
            &[
                "DeepSeek-V4-Flash",
                "--chip",
                "h20",
                "--drafts",
                "1",
                "--tokens-per-step",
                "9",
            ],
            "1 to 2",
        ),
        (&["DeepSeek-V4-Flash", "--chips", "/nowhere.toml"], "/nowhere.toml"),
        (&["--chip", "h20", "--rent", "-1"], "above 0"),
        (&["--chip", "h20", "--rent=-1"], "above 0"),
        (&["--chip", "h20", "--rent", "NaN"], "above 0"),
        (&["--chip", "h20", "--rent", "0"], "above 0"),
        (&["--compare", "h20", "--user-tps", "0"], "above 0"),
        (&["--memory", "64", "--no-probe"], "with its unit"),
        (&["--slow-memory", "7", "--no-probe"], "with its unit"),
        (&["DeepSeek-V4-Flash", "--chip", "h20", "--drafts", "17"], "0 to 16"),
        (&["DeepSeek-V4-Pro", "--compare", "cpu"], "smallest change"),
        (&["DeepSeek-V4-Pro", "--fleet", "h20", "--count", "1"], "--count "),
    ] {
        let output = plan(arguments);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && message.contains(expected),
            "{arguments:?}: {message}"
        );
    }
}

#[test]
fn chips_are_compared_swept_and_plotted() {
    let folder = tempfile::tempdir().unwrap();
    let plot = folder.path().join("plot.svg");
    let chips = [
        "DeepSeek-V4-Flash",
        "--compare",
        "950dt,h20,cpu",
        "--target-tps",
        "100,000",
        "--plot",
    ];
    let found = json(&[&chips[..], &[plot.to_str().unwrap()]].concat());
    let compared = found["chips"].as_array().unwrap();
    assert!(compared[0]["tokens_per_second"].as_f64().unwrap() >= 1e5 && compared[0]["megawatts"].is_null());
    assert!(compared[1]["megawatts"].as_f64().unwrap() > 0.0);
    assert!(compared[2]["impossible"].is_string());
    assert!(std::fs::read_to_string(plot).unwrap().starts_with("<svg"));
    let fleets = json(&["DeepSeek-V4-Pro", "--fleet", "gb300"])["fleets"].clone();
    let rates: Vec<f64> = fleets
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|fleet| fleet["tokens_per_second"].as_f64())
        .collect();
    assert!(rates.len() > 5 && rates.is_sorted());
}

#[test]
fn this_machine_is_measured_only_on_demand() {
    let known = json(&[]);
    assert!(known["decode_tokens_per_second"].as_f64().unwrap() > 0.0);
    let unknown = json(&["--no-probe"]);
    assert!(unknown["decode_tokens_per_second"].is_null());
}

#[test]
fn a_fleet_is_as_large_as_its_target_asks() {
    let fleets = json(&["DeepSeek-V4-Flash", "--fleet", "h20", "--target-tps", "50k"])["fleets"].clone();
    let fleets = fleets.as_array().unwrap();
    assert_eq!(fleets.len(), 1);
    let rate = fleets[0]["tokens_per_second"].as_f64().unwrap();
    let replica =
        fleets[0]["chips_per_replica"].as_f64().unwrap() * fleets[0]["tokens_per_second_per_chip"].as_f64().unwrap();
    assert!(
        rate >= 50_000.0 && rate - replica < 50_000.0,
        "{rate} of replicas of {replica}"
    );
}

#[test]
fn memory_is_planned_without_a_measurement() {
    let output = plan(&[
        "DeepSeek-V4-Flash",
        "--memory",
        "64GB",
        "--slow-memory",
        "7GB",
        "--no-probe",
    ]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success());
    assert!(
        text.contains("come from slower memory") && text.contains("leave out --no-probe"),
        "{text}"
    );
}

#[test]
fn the_help_names_every_chip() {
    let help = String::from_utf8_lossy(&plan(&["--help"]).stdout).into_owned();
    for chip in ["910b3", "950dt", "h200", "gb300"] {
        assert!(help.contains(chip), "{chip}");
    }
}
