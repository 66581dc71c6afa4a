//! The texts to score.

use std::path::Path;

use crate::{commands, error::Error, loading::Loaded, texts};

/// Tokens of one text.
pub struct Text {
    file: String,
    /// Where it begins in the file, from 1.
    pub line: usize,
    pub tokens: Vec<u32>,
}

impl Text {
    pub fn too_long(&self, context: usize) -> Error {
        Error::Line {
            file: self.file.clone(),
            line: self.line,
            reason: format!("{} tokens exceed the context of {context}", self.tokens.len()),
            remedy: "cut the text or give more --context",
        }
    }
}

/// One JSON array of ids a line; empty lines are no texts.
pub fn token_lines(path: &Path, vocabulary: usize) -> Result<Vec<Text>, Error> {
    let file = path.display().to_string();
    let content = commands::read_text(path)?;
    let lines = content.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let texts = lines
        .map(|(index, line)| {
            let tokens = tokens(line, vocabulary).map_err(|reason| Error::Line {
                file: file.clone(),
                line: index + 1,
                reason,
                remedy: "expected an array of token ids of this model, such as [0, 3, 17]",
            })?;
            Ok(Text {
                file: file.clone(),
                line: index + 1,
                tokens,
            })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    not_empty(texts, file)
}

/// The whole file as one text, or each of its lines; begin-of-sentence comes first, nothing in them is special.
pub fn texts(path: &Path, by_line: bool, loaded: &Loaded) -> Result<Vec<Text>, Error> {
    let file = path.display().to_string();
    let content = commands::read_text(path)?;
    let tokenizer = texts::tokenizer(&loaded.checkpoint, &loaded.place)?;
    let pieces: Vec<(usize, &str)> = match by_line {
        false => vec![(0, content.as_str())],
        true => content.lines().enumerate().collect(),
    };
    let texts = pieces
        .into_iter()
        .filter(|(_, text)| !text.trim().is_empty())
        .map(|(index, text)| {
            let ids = tokenizer
                .encode_plain(text)
                .map_err(|error| Error::Prompt(error.into()))?;
            Ok(Text {
                file: file.clone(),
                line: index + 1,
                tokens: std::iter::once(tokenizer.bos_id()).chain(ids).collect(),
            })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    not_empty(texts, file)
}

fn tokens(line: &str, vocabulary: usize) -> Result<Vec<u32>, String> {
    let tokens: Vec<u32> = serde_json::from_str(line).map_err(|error| error.to_string())?;
    match tokens.iter().position(|token| *token as usize >= vocabulary) {
        _ if tokens.is_empty() => Err("the array is empty".to_owned()),
        Some(index) => Err(format!(
            "id {} (number {} of the line) is outside the vocabulary of {vocabulary}",
            tokens[index],
            index + 1
        )),
        None => Ok(tokens),
    }
}

fn not_empty(texts: Vec<Text>, file: String) -> Result<Vec<Text>, Error> {
    match texts.is_empty() {
        true => Err(Error::Empty {
            file,
            what: "text",
            remedy: "give at least one line",
        }),
        false => Ok(texts),
    }
}

#[cfg(test)]
mod tests {
    use super::tokens;

    #[test]
    fn only_ids_of_the_vocabulary_are_tokens() {
        assert_eq!(tokens(" [0, 7] ", 8), Ok(vec![0, 7]));
        for bad in [
            "[0, 8]",
            "[]",
            "[-1]",
            "[1.5]",
            "[4294967296]",
            "{}",
            "[1",
            "[1] [2]",
            "1",
        ] {
            assert!(tokens(bad, 8).is_err(), "{bad}");
        }
    }
}
