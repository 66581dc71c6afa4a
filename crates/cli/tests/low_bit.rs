//! The dense part in fewer bits, from the command line.

mod support;

use std::fs;

use support::{folder, json_in, output_in, run_in};

/// Long enough to count as a text.
const CASE: &str = r#"{"kind": "story", "prompt": "Once upon a time there was a fox who lived at the edge of the forest and counted the stars each night until the owl asked her why she did so and what she hoped to find among them.", "expected": " She said that she was looking for the one that never moves."}"#;

#[test]
fn fewer_bits_are_further_from_the_reference() {
    let home = folder();
    fs::write(home.path().join("cases"), CASE).unwrap();
    let found = json_in(home.path(), &["distance", "--cases", "cases", "--json"]);
    let ways = found["ways"].as_array().unwrap();
    let names: Vec<_> = ways
        .iter()
        .map(|way| (way["mode"].as_str(), way["dense"].as_str()))
        .collect();
    let fast = |dense| (Some("fast"), dense);
    let expected = [fast(None), fast(Some("int8")), fast(Some("int6")), fast(Some("int4"))];
    assert_eq!(names[1..], expected);
    let number = |way: usize, key: &str| ways[way][key].as_f64().unwrap();
    assert!(number(1, "kl_mean") > 0.0);
    assert!(number(4, "kl_mean") > number(3, "kl_mean") && number(3, "kl_mean") > number(1, "kl_mean"));
    for way in 1..4 {
        assert!(number(way, "bytes_per_token") > number(way + 1, "bytes_per_token"));
        assert!(number(way, "kl_p99") <= number(way, "kl_max"));
    }
    let empty = run_in(home.path(), &["distance", "--cases", "cases", "--limit", "0"], b"");
    assert!(
        empty.errors.contains("no text of 50 to 2,000 tokens"),
        "{}",
        empty.errors
    );
}

const IDS: &str = "[0, 5, 6, 700, 31, 32, 33]";

#[test]
fn a_converted_model_answers_as_one_that_is_converted_while_loading() {
    let home = folder();
    fs::write(home.path().join("ids"), IDS).unwrap();
    let released = json_in(home.path(), &["score", "--tokens", "ids"]);
    for format in ["int8", "int6", "int4"] {
        let printed = output_in(home.path(), &["convert", "built-in", format, "--dense", format]);
        assert_eq!(printed, format!("{format}\n"));
        let loaded = json_in(home.path(), &["score", "--tokens", "ids", "--dense", format]);
        let stored = json_in(home.path(), &["score", format, "--tokens", "ids"]);
        assert_eq!(loaded["lines"], stored["lines"], "{format}");
        assert_ne!(loaded["lines"], released["lines"], "{format}");
        let inspected = json_in(home.path(), &["inspect", format, "--json", "--verify"]);
        assert_eq!(inspected["quantisation"]["low_bit"], format);
        assert!(home.path().join(format).join("tokenizer.json").is_file());
        let answer = output_in(home.path(), &["run", "--model", format, "--greedy", "What is 34 + 25?"]);
        assert_eq!(answer, "34 + 25 = 59.\n", "{format}");
    }
    for (arguments, part) in [
        (["convert", "built-in", "int4", "--dense", "int4"], "int4 is not empty"),
        (
            ["convert", "int4", "new", "--dense", "int6"],
            "start from the released model",
        ),
    ] {
        let refused = run_in(home.path(), &arguments, b"");
        assert_eq!(refused.code, Some(1));
        assert!(refused.errors.contains(part), "{}", refused.errors);
    }
    let wrong = run_in(home.path(), &["run", "--dense", "int5", "x"], b"");
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.errors.contains("int8, int6, int4"), "{}", wrong.errors);
}
