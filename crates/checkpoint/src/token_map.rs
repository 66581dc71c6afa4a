//! Which tokens Engram takes as the same: spelling variants of a text.
//!
//! Nothing in a checkpoint says it but the tokenizer: a token's text, folded by its compatibility form, accents, capitals
//! and white space. Texts are numbered in the order of their first tokens.

use std::collections::HashMap;

use serde_json::{Map, Value};
use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

use crate::{Checkpoint, Error, ModelConfig, config::EngramConfig, json};

const FILE: &str = "tokenizer.json";

impl Checkpoint {
    /// The folded id of every token of the vocabulary, for Engram. Tokens that the tokenizer does not have count as 0.
    ///
    /// # Errors
    /// [`Error::FileMissing`] and [`Error::Json`] for tokenizer.json, [`Error::Tokenizer`] if it folds to another number
    /// of texts than the configuration says: every row would be a wrong one.
    pub fn token_map(&self, engram: &EngramConfig, vocab_size: usize) -> Result<Vec<u32>, Error> {
        if let ModelConfig::V41(config) = self.config()
            && config.folds_by_remainder
        {
            let count = engram.compressed_vocab_size as u32;
            return Ok((0..vocab_size as u32).map(|token| token % count).collect());
        }
        let Some(text) = self.file(FILE) else {
            return Err(Error::FileMissing {
                name: FILE.into(),
                place: self.name().to_owned(),
                remedy: "Engram needs the tokens' texts, download the file beside the weights",
            });
        };
        let wrong = |found: String| Error::Tokenizer {
            place: self.name().to_owned(),
            found,
            expected: format!(
                "one whose tokens fold to {} texts (engram_compressed_vocab_size)",
                engram.compressed_vocab_size
            ),
        };
        let text = std::str::from_utf8(&text).map_err(|_| wrong("a tokenizer.json that is not UTF-8".into()))?;
        let value = json::parse(text).map_err(|source| Error::Json {
            origin: FILE.into(),
            source,
        })?;
        let tokens = tokens(&value, vocab_size).ok_or_else(|| wrong("a tokenizer.json without vocabulary".into()))?;
        let (map, count) = fold(&tokens);
        match count == engram.compressed_vocab_size {
            true => Ok(map),
            false => Err(wrong(format!("a tokenizer.json whose tokens fold to {count} texts"))),
        }
    }
}

/// A token as the tokenizer's file has it.
#[derive(Clone, Debug)]
enum Token {
    /// In the alphabet that stands for bytes.
    Encoded(String),
    /// As it is.
    Literal(String),
}

/// The tokens by id.
fn tokens(tokenizer: &Value, vocab_size: usize) -> Option<Vec<Option<Token>>> {
    let mut tokens = vec![None; vocab_size];
    let mut put = |id: Option<u64>, token: Token| {
        let place = id.and_then(|id| tokens.get_mut(usize::try_from(id).ok()?));
        if let Some(place) = place {
            *place = Some(token);
        }
    };
    let vocabulary: &Map<String, Value> = tokenizer["model"]["vocab"].as_object()?;
    for (text, id) in vocabulary {
        put(id.as_u64(), Token::Encoded(text.clone()));
    }
    for added in tokenizer["added_tokens"].as_array().into_iter().flatten() {
        let text = added["content"].as_str()?;
        put(added["id"].as_u64(), Token::Literal(text.to_owned()));
    }
    Some(tokens)
}

/// Folded ids, and how many there are.
fn fold(tokens: &[Option<Token>]) -> (Vec<u32>, usize) {
    let alphabet = byte_alphabet();
    let mut numbers: HashMap<String, u32> = HashMap::new();
    let ids = tokens.iter().map(|token| {
        let Some(token) = token else {
            return 0;
        };
        let next = numbers.len() as u32;
        *numbers.entry(key(token, &alphabet)).or_insert(next)
    });
    let ids = ids.collect();
    (ids, numbers.len())
}

/// The text under which a token is numbered: its own where it is no whole text.
fn key(token: &Token, alphabet: &HashMap<char, u8>) -> String {
    let (raw, text) = match token {
        Token::Literal(text) => (text, text.clone()),
        Token::Encoded(raw) => {
            let bytes: Option<Vec<u8>> = raw.chars().map(|symbol| alphabet.get(&symbol).copied()).collect();
            let text = bytes.map_or_else(|| raw.clone(), |bytes| String::from_utf8_lossy(&bytes).into_owned());
            (raw, text)
        }
    };
    match text.contains(char::REPLACEMENT_CHARACTER) {
        true => raw.clone(),
        false => normalised(&text),
    }
}

fn normalised(text: &str) -> String {
    let decomposed = text.nfkc().nfd().filter(|symbol| !is_combining_mark(*symbol));
    let mut folded = String::with_capacity(text.len());
    let mut in_space = false;
    for symbol in decomposed.flat_map(char::to_lowercase) {
        let is_space = matches!(symbol, ' ' | '\t' | '\r' | '\n');
        match (is_space, in_space) {
            (true, true) => {}
            (true, false) => folded.push(' '),
            (false, _) => folded.push(symbol),
        }
        in_space = is_space;
    }
    let trimmed = match folded.as_str() {
        " " => " ",
        other => other.trim(),
    };
    match trimmed {
        "" => text.to_owned(),
        other => other.to_owned(),
    }
}

/// Symbols of byte-level vocabularies: printable Latin-1 stands for itself, the other bytes for what follows U+0100.
fn byte_alphabet() -> HashMap<char, u8> {
    let is_printable = |byte: u8| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut others = 0x100..;
    let symbols = (0..=255u8).map(|byte| match is_printable(byte) {
        true => (char::from(byte), byte),
        false => {
            let code = others.next().expect("an endless range");
            (char::from_u32(code).expect("far below surrogates"), byte)
        }
    });
    symbols.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected by the `tokenizers` library (`tools/fixtures/folded_texts.py`).
    #[test]
    fn variants_fold_to_one_text() {
        let pairs = include_str!("../tests/fixtures/folded_texts.json");
        let pairs: Vec<[String; 2]> = serde_json::from_str(pairs).expect("pairs of texts");
        assert!(pairs.len() > 300);
        for [text, expected] in pairs {
            assert_eq!(normalised(&text), expected, "{text:?}");
        }
    }

    #[test]
    fn texts_are_numbered_in_the_order_of_their_first_tokens() {
        let encoded = |text: &str| Some(Token::Encoded(text.into()));
        let tokens = [
            Some(Token::Literal("<|begin|>".into())),
            encoded("the"),
            encoded("ĠThe"),
            encoded("é"),
            encoded("Ã©"),
            None,
            encoded("e"),
            encoded("Ġ"),
        ];
        // A lone byte of a longer character is no text and stays as it is spelled.
        assert_eq!(fold(&tokens), (vec![0, 1, 1, 2, 3, 0, 3, 4], 5));
    }
}
