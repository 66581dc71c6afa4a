//! Commands that write and score text, on the built-in model.

mod support;

use std::fs;

use cachalot_chat::Tokenizer;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use support::{FIXTURES, TINY, folder, json, json_in, output, output_in, run_in};

#[test]
fn an_answer_is_streamed_to_standard_output() {
    // Without a terminal the reasoning is left out.
    let answer = "The NVIDIA H200 has 141 GB of HBM3e memory.\n";
    let question = "What is the HBM size of the H200?";
    assert_eq!(output(&["run", "--greedy", question]), answer);
    let home = folder();
    for arguments in [["run", "--greedy"].as_slice(), &["run", "--greedy", "-"]] {
        let piped = run_in(home.path(), arguments, format!("{question}\n").as_bytes());
        assert_eq!(piped.output, answer);
    }
    let told = run_in(home.path(), &["run", "--greedy", "--verbose", question], b"");
    assert_eq!(told.output, answer);
    for part in ["cpu (measured)", "reference", "tokens/s", "built-in", "18 tokens"] {
        assert!(told.errors.contains(part), "{part} in {}", told.errors);
    }
}

#[test]
fn json_tells_what_was_thought_and_what_it_cost() {
    let value = json(&["run", "--json", "--greedy", "What is 34 + 25?"]);
    assert_eq!(value["text"], "34 + 25 = 59.");
    assert!(value["reasoning"].as_str().unwrap().ends_with("So 34+25=59."));
    assert_eq!(value["finish_reason"], "stop");
    assert_eq!(value["tool_calls"], json!([]));
    assert_eq!(
        value["usage"]["prompt_tokens"].as_u64().unwrap() + value["usage"]["completion_tokens"].as_u64().unwrap(),
        value["usage"]["total_tokens"].as_u64().unwrap()
    );
    assert!(value["timings"]["load_seconds"].as_f64().unwrap() > 0.0);

    let value = json(&[
        "run",
        "--json",
        "--greedy",
        "--no-think",
        "--max-tokens",
        "3",
        "Tell me a story about a fox",
    ]);
    assert_eq!(value["finish_reason"], "length");
    assert_eq!(value["reasoning"], "");
    assert_eq!(value["usage"]["completion_tokens"], 3);
}

#[test]
fn the_same_seed_gives_the_same_text() {
    let text = |seed: &str| {
        output(&[
            "run",
            "--no-think",
            "--seed",
            seed,
            "--temperature",
            "1",
            "Tell me a story about a fox",
        ])
    };
    assert_eq!(text("7"), text("7"));
    assert_ne!(text("7"), text("8"));
}

#[test]
fn a_greedy_text_is_the_likeliest_token_after_each_token() {
    let home = folder();
    let prompt = "Once upon a time";
    let value = json_in(
        home.path(),
        &["run", "--raw", "--greedy", "--json", "--max-tokens", "200", prompt],
    );
    assert_eq!(value["finish_reason"], "stop");
    let tokenizer = Tokenizer::from_bytes(&fs::read(format!("{TINY}/tokenizer.json")).unwrap(), 2048).unwrap();
    let mut tokens = vec![tokenizer.bos_id()];
    tokens.extend(tokenizer.encode_plain(prompt).unwrap());
    let prompt_token_count = tokens.len();
    tokens.extend(tokenizer.encode_plain(value["text"].as_str().unwrap()).unwrap());
    fs::write(home.path().join("tokens.jsonl"), format!("{tokens:?}\n")).unwrap();

    // Chunks of another size must not matter.
    let score = ["score", "--tokens", "tokens.jsonl", "--chunk", "7"];
    let scored = json_in(
        home.path(),
        &[score.as_slice(), &["--logits", "logits.safetensors"]].concat(),
    );
    assert_eq!(scored["lines"][0]["tokens"], tokens.len());
    let file = fs::read(home.path().join("logits.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let logits = tensors.tensor("logits_0").unwrap();
    assert_eq!(logits.shape(), [tokens.len(), 2048]);
    let rows = logits.data().chunks_exact(4 * 2048);
    let likeliest: Vec<u32> = rows.map(likeliest).collect();
    tokens.push(tokenizer.eos_id());
    assert_eq!(likeliest[prompt_token_count - 1..], tokens[prompt_token_count..]);

    let again = json_in(
        home.path(),
        &[score.as_slice(), &["--against", "logits.safetensors"]].concat(),
    );
    assert_eq!(again["against"]["positions"], tokens.len() - 1);
    assert_eq!(again["against"]["kl_max"], 0.0);
    assert_eq!(again["against"]["top1_agreement"], 1.0);
    assert_eq!(again["perplexity"], scored["perplexity"]);
}

fn likeliest(row: &[u8]) -> u32 {
    let logits = row.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    let (best, _) = logits.enumerate().reduce(|a, b| if b.1 > a.1 { b } else { a }).unwrap();
    best as u32
}

#[test]
fn the_reference_mode_agrees_with_transformers() {
    let model = format!("{FIXTURES}/hf-f32");
    let prompts: Value = serde_json::from_slice(&fs::read(format!("{model}/prompts.json")).unwrap()).unwrap();
    let file = fs::read(format!("{model}/logits.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&file).unwrap();
    // The short prompts, whose logits are kept for every position.
    let tensors = [(0, "logits.1"), (1, "logits.7")]
        .map(|(index, name)| (format!("logits_{index}"), expected.tensor(name).unwrap()));
    let home = folder();
    fs::write(
        home.path().join("expected.safetensors"),
        safetensors::serialize(tensors, None).unwrap(),
    )
    .unwrap();
    let lines: Vec<String> = (0..2)
        .map(|index| prompts["prompts"][index]["tokens"].to_string())
        .collect();
    fs::write(home.path().join("tokens.jsonl"), lines.join("\n")).unwrap();

    let score = [
        "score",
        &model,
        "--tokens",
        "tokens.jsonl",
        "--against",
        "expected.safetensors",
        "--mode",
        "reference",
    ];
    let value = json_in(home.path(), &score);
    assert_eq!(value["against"]["positions"], 8);
    assert_eq!(value["against"]["top1_agreement"], 1.0);
    assert!(
        value["against"]["relative_error_max"].as_f64().unwrap() < 1e-3,
        "{value}"
    );
}

#[test]
fn a_text_file_is_one_text_or_one_for_each_line() {
    let home = folder();
    fs::write(home.path().join("text.txt"), "Once upon a time,\n\nthere was a fox.\n").unwrap();
    let whole = json_in(home.path(), &["score", "--text", "text.txt"]);
    assert_eq!(whole["lines"].as_array().unwrap().len(), 1);
    let lines = json_in(home.path(), &["score", "--text", "text.txt", "--lines"]);
    let numbers: Vec<_> = lines["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| &line["line"])
        .collect();
    assert_eq!(numbers, [1, 3]);
    for line in lines["lines"].as_array().unwrap() {
        let logs: Vec<f64> = serde_json::from_value(line["log_probabilities"].clone()).unwrap();
        assert_eq!(logs.len() + 1, line["tokens"].as_u64().unwrap() as usize);
        let expected = (-logs.iter().sum::<f64>() / logs.len() as f64).exp();
        assert!((line["perplexity"].as_f64().unwrap() / expected - 1.0).abs() < 1e-9);
    }
}

#[test]
fn evaluation_counts_exact_answers() {
    let value = json(&["eval", "--kind", "facts", "--limit", "2", "--json"]);
    assert_eq!(value["kinds"][0]["kind"], "facts");
    assert_eq!(value["kinds"][0]["exact"], 2, "{value}");
    assert_eq!(value["all"]["cases"], 2);

    let home = folder();
    let prompt = "<｜begin▁of▁sentence｜><｜User｜>What is 34 + 25?<｜Assistant｜><think>";
    let answer = json_in(home.path(), &["run", "--json", "--greedy", "What is 34 + 25?"]);
    let part = |key: &str| answer[key].as_str().unwrap().to_owned();
    let right = format!("{}</think>{}", part("reasoning"), part("text"));
    let wrong = [&right[..right.len() - 1], &format!("{right}."), "", "no"].map(str::to_owned);
    let cases: Vec<String> = std::iter::once(right.clone())
        .chain(wrong)
        .map(|expected| json!({ "kind": "sum", "prompt": prompt, "expected": expected }).to_string())
        .collect();
    fs::write(home.path().join("cases.jsonl"), cases.join("\n")).unwrap();
    let table = output_in(home.path(), &["eval", "--cases", "cases.jsonl"]);
    let words: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(words[..3], ["sum", "5", "20.0%"]);
}

/// Sums stand in the window; calls and recall need what the compressors kept and the indexer chose. An engine that gets
/// one of these wrong answers next to nothing; another order of sums costs an answer here and there.
#[test]
fn the_built_in_model_calculates_calls_tools_and_remembers() {
    let kinds = ["sums", "tool_get_weather", "recall_330", "recall_1000"];
    let arguments = kinds.iter().flat_map(|kind| ["--kind", *kind]);
    let arguments: Vec<&str> = ["eval", "--limit", "6", "--json"]
        .into_iter()
        .chain(arguments)
        .collect();
    let value = json(&arguments);
    let found = value["kinds"].as_array().unwrap();
    assert_eq!(found.len(), kinds.len());
    for kind in found {
        assert_eq!(kind["cases"], 6, "{kind}");
        assert!(kind["exact"].as_u64().unwrap() >= 4, "{kind}");
    }
}
