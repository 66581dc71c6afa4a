//! Bad input: a nonzero exit code and one sentence with the file or key and the remedy.

mod support;

use std::{fs, path::Path};

use serde_json::{Value, json};
use support::{folder, run_in, tiny_copy};

/// Runs the program in `folder`; it must fail with `code` and say all of `parts`.
fn refused(folder: &Path, arguments: &[&str], input: &[u8], code: i32, parts: &[&str]) {
    let outcome = run_in(folder, arguments, input);
    assert_eq!(
        outcome.code,
        Some(code),
        "{arguments:?}: {}{}",
        outcome.output,
        outcome.errors
    );
    assert_eq!(outcome.output, "", "{arguments:?}");
    for part in parts {
        assert!(
            outcome.errors.contains(part),
            "{part:?} of {arguments:?} in {}",
            outcome.errors
        );
    }
}

/// Arguments, standard input, exit code, parts of the message.
type Case = (&'static [&'static str], &'static [u8], i32, &'static [&'static str]);

#[test]
fn wrong_arguments() {
    let home = folder();
    let cases: [Case; 22] = [
        (&["frobnicate"], b"", 2, &["frobnicate", "--help"]),
        (&["run", "--frob", "x"], b"", 2, &["--frob"]),
        (&["run", "--mode", "exact", "x"], b"", 2, &["reference, official, fast"]),
        (&["run", "--context", "8x", "x"], b"", 2, &["8k or 1M"]),
        (&["run", "--threads", "0", "x"], b"", 2, &["1..=1024"]),
        (&["run", "--greedy", "--seed", "1", "x"], b"", 2, &["--seed"]),
        (&["run"], b"", 1, &["no prompt", "cachalot chat"]),
        (&["run", " \n"], b"", 1, &["no prompt"]),
        (&["run"], b"ab\xffc", 1, &["standard input", "byte 2 is 0xff", "iconv"]),
        (&["chat"], b"\xff\n", 1, &["standard input", "byte 0"]),
        (&["run", "--temperature", "-1", "x"], b"", 1, &["temperature is -1"]),
        (&["run", "--top-p", "1.5", "x"], b"", 1, &["top_p is 1.5"]),
        (&["run", "--context", "2M", "x"], b"", 1, &["2,097,152", "1,048,576"]),
        (
            &["run", "--context", "4", "long prompt"],
            b"",
            1,
            &["context of ", "--context"],
        ),
        (
            &["run", "--model", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "x"],
            b"",
            1,
            &[
                "DeepSeek-R1-Distill-Qwen-7B is not supported",
                "Qwen or Llama",
                "deepseek-ai/DeepSeek-R1 ",
            ],
        ),
        (
            &["inspect", "DeepSeek-R1-Distill-Llama-70B"],
            b"",
            1,
            &["is not supported", "Qwen or Llama"],
        ),
        (
            &["run", "--model", "deepseek-ai/DeepSeek-V4-Flash", "x"],
            b"",
            1,
            &["160 GB", "cachalot download", "--yes"],
        ),
        (
            &["run", "--model", "DeepSeek-V4-Flsh", "x"],
            b"",
            1,
            &["did you mean deepseek-ai/DeepSeek-V4-Flash?"],
        ),
        (
            &["run", "--model", "./nowhere", "x"],
            b"",
            1,
            &["./nowhere", "check the path"],
        ),
        (
            &["inspect", "deepseek-ai/DeepSeek-V4-Flsh"],
            b"",
            1,
            &["deepseek-ai/DeepSeek-V4-Flash"],
        ),
        (&["download", "nothing"], b"", 1, &["organisation/name"]),
        (&["download", "org/name"], b"", 1, &["HF_HUB_OFFLINE"]),
    ];
    for (arguments, input, code, parts) in cases {
        refused(home.path(), arguments, input, code, parts);
    }
}

#[test]
fn damaged_models() {
    type Damage = fn(&Path);
    let cases: [(Damage, &[&str]); 8] = [
        (
            |model| {
                edit(&model.join("tokenizer.json"), |value| {
                    value["model"]["vocab"]["surplus"] = json!(5000);
                })
            },
            &["model: token \"surplus\"", "5000", "2048", "belong to different models"],
        ),
        (
            |model| fs::write(model.join("tokenizer.json"), "{").unwrap(),
            &["tokenizer.json", "fetch it again"],
        ),
        (
            |model| fs::remove_file(model.join("tokenizer.json")).unwrap(),
            &["tokenizer.json", "model"],
        ),
        (
            |model| {
                let path = model.join("model-00001-of-00001.safetensors");
                let bytes = fs::read(&path).unwrap();
                fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
            },
            &["model-00001-of-00001.safetensors", "download it again"],
        ),
        (
            |model| edit(&model.join("config.json"), |value| value["hidden_size"] = json!(-3)),
            &["config.json", "\"hidden_size\" is -3"],
        ),
        (
            |model| {
                edit(&model.join("config.json"), |value| {
                    value["num_hidden_layers"] = json!(4_000_000_000_u64)
                })
            },
            &["config.json", "num_hidden_layers"],
        ),
        (
            |model| {
                edit(&model.join("model.safetensors.index.json"), |value| {
                    value["weight_map"].as_object_mut().unwrap().remove("head.weight");
                })
            },
            &["head.weight", "model.safetensors.index.json"],
        ),
        (
            |model| fs::write(model.join("generation_config.json"), r#"{"top_p": 7}"#).unwrap(),
            &["generation_config.json", "top_p is 7"],
        ),
    ];
    for (damage, parts) in cases {
        let home = folder();
        damage(&tiny_copy(home.path()));
        refused(home.path(), &["run", "--model", "model", "Hi"], b"", 1, parts);
    }
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

#[test]
fn bad_files_to_score_and_evaluate() {
    let home = folder();
    let write = |name: &str, content: &[u8]| fs::write(home.path().join(name), content).unwrap();
    write("good", b"[0, 5, 6]\n");
    write("word", b"[0]\n\n[0, \"a\"]\n");
    write("large", b"[0, 2048]\n");
    write("empty", b"\n \n");
    write("latin", b"caf\xe9\n");
    write("cases", b"{\"kind\": \"a\", \"prompt\": \"b\"}\n");
    write("reference", b"no tensors at all");
    assert_eq!(
        run_in(home.path(), &["score", "--tokens", "good", "--logits", "logits"], b"").code,
        Some(0)
    );
    write("other", b"[0, 5]\n");
    let cases: [(&[&str], &[&str]); 11] = [
        (
            &["score", "--tokens", "word"],
            &["word:3:", "expected an array of token ids"],
        ),
        (
            &["score", "--tokens", "large"],
            &["large:1:", "id 2048", "vocabulary of 2048"],
        ),
        (&["score", "--tokens", "empty"], &["empty holds no text"]),
        (&["score", "--tokens", "missing"], &["cannot read missing"]),
        (&["score", "--text", "latin"], &["latin is not UTF-8", "byte 3"]),
        (&["score", "--tokens", "good", "--context", "2"], &["good:1:"]),
        (
            &["score", "--tokens", "good", "--against", "reference"],
            &["reference", "safetensors"],
        ),
        (
            &["score", "--tokens", "other", "--against", "logits"],
            &["logits_0", "[3, 2048]", "[2, 2048]"],
        ),
        (
            &["score", "--tokens", "good", "--logits", "no/where"],
            &["cannot write no/where"],
        ),
        (&["eval", "--cases", "cases"], &["cases:1:", "expected"]),
        (&["eval", "--kind", "nonsense"], &["no case of that kind"]),
    ];
    for (arguments, parts) in cases {
        refused(home.path(), arguments, b"", 1, parts);
    }
    let left: Vec<_> = fs::read_dir(home.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        !left.iter().any(|name| name.to_string_lossy().contains("partial")),
        "{left:?}"
    );
}

#[test]
fn nothing_is_overwritten_by_synth() {
    let home = folder();
    fs::create_dir(home.path().join("full")).unwrap();
    fs::write(home.path().join("full/letter"), "dear").unwrap();
    let like = ["synth", "--like", "DeepSeek-V4-Flash", "--layers"];
    refused(
        home.path(),
        &[like.as_slice(), &["1", "full"]].concat(),
        b"",
        1,
        &["full is not empty"],
    );
    refused(
        home.path(),
        &[like.as_slice(), &["0", "new"]].concat(),
        b"",
        1,
        &["num_hidden_layers"],
    );
    refused(
        home.path(),
        &["synth", "--like", "nobody/knows", "--layers", "1", "new"],
        b"",
        1,
        &["nobody/knows"],
    );
    assert!(!home.path().join("new").exists());
}
