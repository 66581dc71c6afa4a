//! `cachalot plan` as a user meets it.

use std::process::{Command, Output};

fn plan(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cachalot"));
    command.arg("plan").args(arguments).env("NO_COLOR", "1");
    command.output().expect("the program starts")
}

fn json(arguments: &[&str]) -> serde_json::Value {
    let output = plan(&[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
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
    let found = json(&["DeepSeek-V4-Pro", "--chip", "h20", "--count", "8"]);
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
        (&["DeepSeek-V4-Flash", "--chip", "h20", "--context", "2M"], "1048576"),
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
