//! What the tests share: the built-in model's tokenizer and the fixtures of `tools/fixtures/chat_prompts.py`.

use std::sync::LazyLock;

use cachalot_chat::Tokenizer;
use serde::de::DeserializeOwned;

/// Rows of the built-in model's vocabulary.
pub const VOCABULARY_SIZE: usize = 2048;

pub fn tokenizer_json() -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny/tokenizer.json");
    std::fs::read(path).expect("the built-in model has a tokenizer")
}

pub fn tokenizer() -> Tokenizer {
    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
        Tokenizer::from_bytes(&tokenizer_json(), VOCABULARY_SIZE).expect("the built-in tokenizer is valid")
    });
    TOKENIZER.clone()
}

/// The cases of a fixture, one a line.
#[allow(dead_code)]
pub fn cases<Case: DeserializeOwned>(name: &str) -> Vec<Case> {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    let lines = std::fs::read_to_string(path).expect("the fixture is there");
    let cases: Vec<Case> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("a case"))
        .collect();
    assert!(!cases.is_empty());
    cases
}
