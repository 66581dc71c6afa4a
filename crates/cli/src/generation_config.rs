//! generation_config.json: how a release wants its tokens drawn.

use cachalot_engine::SamplingOptions;
use serde::Deserialize;

use crate::error::Error;

/// The keys that count; a missing or null key means the default.
#[derive(Debug, Default, Deserialize)]
struct File {
    do_sample: Option<bool>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<usize>,
    min_p: Option<f32>,
    eos_token_id: Option<TokenIds>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TokenIds {
    One(u32),
    Several(Vec<u32>),
}

/// What a release asks for.
#[derive(Clone, Debug, Default)]
pub struct GenerationConfig {
    pub sampling: SamplingOptions,
    /// Tokens that end an answer, besides those of config.json.
    pub stop_tokens: Vec<u32>,
}

impl GenerationConfig {
    /// Reads the file's content; without a file everything has its default. `place` names the folder in errors.
    pub fn read(content: Option<&[u8]>, place: &str) -> Result<Self, Error> {
        let failed = |reason: String| Error::GenerationConfig {
            place: place.to_owned(),
            reason,
        };
        let file: File = match content {
            Some(content) => serde_json::from_slice(content).map_err(|error| failed(error.to_string()))?,
            None => File::default(),
        };
        let defaults = SamplingOptions::default();
        let sampling = match file.do_sample {
            Some(false) => SamplingOptions::greedy(),
            _ => SamplingOptions {
                temperature: file.temperature.unwrap_or(defaults.temperature),
                top_p: file.top_p.unwrap_or(defaults.top_p),
                top_k: file.top_k.unwrap_or(defaults.top_k),
                min_p: file.min_p.unwrap_or(defaults.min_p),
                ..defaults
            },
        };
        sampling.check().map_err(|error| failed(error.to_string()))?;
        let stop_tokens = match file.eos_token_id {
            None => Vec::new(),
            Some(TokenIds::One(id)) => vec![id],
            Some(TokenIds::Several(ids)) => ids,
        };
        Ok(GenerationConfig { sampling, stop_tokens })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_releases() {
        let read = |text: &str| GenerationConfig::read(Some(text.as_bytes()), "folder");
        let config = read(r#"{"do_sample": true, "temperature": 0.6, "top_p": 0.95, "eos_token_id": [1, 2]}"#).unwrap();
        assert_eq!((config.sampling.temperature, config.sampling.top_p), (0.6, 0.95));
        assert_eq!(config.stop_tokens, [1, 2]);
        let config = read(r#"{"do_sample": false, "temperature": null, "eos_token_id": 1}"#).unwrap();
        assert_eq!(
            (config.sampling.temperature, config.stop_tokens.as_slice()),
            (0.0, [1].as_slice())
        );
        for bad in [
            r#"{"temperature": "hot"}"#,
            r#"{"temperature": -1}"#,
            r#"{"top_p": 0}"#,
            "[",
            "[1]",
        ] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.starts_with("folder/generation_config.json: "), "{error}");
        }
        assert_eq!(
            GenerationConfig::read(None, "").unwrap().sampling,
            SamplingOptions::default()
        );
    }
}
