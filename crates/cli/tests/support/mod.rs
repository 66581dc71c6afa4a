//! Runs the program away from the user's caches, and makes small checkpoints to run it on.
#![allow(dead_code)] // Each test file uses a part.

pub mod hub;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// The built-in model's files.
pub const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny");
/// Checkpoints with the logits of transformers' port; see the readme there.
pub const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/fixtures");

/// What a run of the program left.
pub struct Outcome {
    pub code: Option<i32>,
    pub output: String,
    pub errors: String,
}

/// The program with a home, a cache and a state folder of its own, and no network.
pub fn command(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cachalot"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HF_") {
            command.env_remove(name);
        }
    }
    command
        .env("HOME", home)
        .env("HF_HOME", home.join("hf"))
        .env("HF_HUB_OFFLINE", "1")
        .env("XDG_STATE_HOME", home.join("state"))
        .env_remove("NO_COLOR");
    command
}

/// Runs it with arguments and standard input, in a folder.
pub fn run_in(folder: &Path, arguments: &[&str], input: &[u8]) -> Outcome {
    let mut child = command(folder)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // A program that refuses its arguments does not read.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    let output = child.wait_with_output().expect("the program ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let outcome = Outcome {
        code: output.status.code(),
        output: text(output.stdout),
        errors: text(output.stderr),
    };
    assert!(!outcome.errors.contains("panicked"), "{}", outcome.errors);
    outcome
}

/// Runs it in a new folder; it must succeed. Gives what it printed.
pub fn output(arguments: &[&str]) -> String {
    output_in(folder().path(), arguments)
}

pub fn output_in(folder: &Path, arguments: &[&str]) -> String {
    let outcome = run_in(folder, arguments, b"");
    assert_eq!(outcome.code, Some(0), "{arguments:?}: {}", outcome.errors);
    outcome.output
}

/// The same for JSON.
pub fn json(arguments: &[&str]) -> Value {
    json_in(folder().path(), arguments)
}

pub fn json_in(folder: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&output_in(folder, arguments)).expect("JSON")
}

pub fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// A copy of the built-in model that a test may damage.
pub fn tiny_copy(folder: &Path) -> PathBuf {
    let copy = folder.join("model");
    fs::create_dir(&copy).expect("a folder");
    for entry in fs::read_dir(TINY).expect("the model") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name");
        if name != "evaluation.jsonl" {
            fs::copy(&path, copy.join(name)).expect("a copy");
        }
    }
    copy
}
