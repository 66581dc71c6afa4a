//! Bodies of `/tokenize`, `/detokenize` and `/v1/models`.

use cachalot_chat::Tokenizer;
use serde_json::{Value, json};

use crate::call::{Call, Protocol, parse};
use crate::error::ProtocolError;
use crate::fields::{Fields, parse_object};
use crate::limits::Limits;
use crate::prepare::Preparer;
use crate::replay::ReplayStore;
use crate::settings;

/// What is to be cut into tokens.
#[derive(Debug, Clone)]
pub enum Tokenize {
    /// A plain text; spelled special tokens become those tokens only if asked for.
    Text {
        /// The text.
        text: String,
        /// Whether `<｜User｜>` and the like become special tokens.
        special: bool,
        /// Whether the begin of a sentence goes before it.
        begin: bool,
    },
    /// A request of chat completions, whose prompt is meant.
    Conversation(Box<Call>),
}

/// Reads the body of `POST /tokenize`: `{"prompt" | "content": text}` or a body of chat completions.
///
/// # Errors
/// [`ProtocolError`] naming the field.
pub fn parse_tokenize(body: &[u8], limits: &Limits) -> Result<Tokenize, ProtocolError> {
    let object = parse_object(body, limits)?;
    let fields = Fields::new(&object, "", limits);
    if fields.value("messages").is_some() {
        let mut object = object.clone();
        object.entry("model").or_insert_with(|| "any".into());
        let body = Value::Object(object).to_string();
        return Ok(Tokenize::Conversation(Box::new(parse(
            Protocol::ChatCompletions,
            body.as_bytes(),
            limits,
        )?)));
    }
    let text = fields.text("prompt")?.or(fields.text("content")?);
    let text = text.ok_or_else(|| ProtocolError::invalid("prompt", "is missing; send prompt or messages"))?;
    Ok(Tokenize::Text {
        text: text.to_owned(),
        special: fields.bool("parse_special")?.unwrap_or(false),
        begin: fields
            .bool("add_special_tokens")?
            .or(fields.bool("add_special")?)
            .unwrap_or(false),
    })
}

/// The body of the answer to `request`.
///
/// # Errors
/// The text cannot be cut into tokens.
pub fn tokenize(request: &Tokenize, preparer: &Preparer, model_context: usize) -> Result<Value, ProtocolError> {
    let tokenizer = preparer.encoder().tokenizer();
    let ids = match request {
        Tokenize::Text { text, special, begin } => {
            let mut ids: Vec<u32> = begin.then(|| tokenizer.bos_id()).into_iter().collect();
            let encoded = if *special {
                tokenizer.encode_prompt(text)
            } else {
                tokenizer.encode_plain(text)
            };
            ids.extend(encoded?);
            ids
        }
        Tokenize::Conversation(call) => preparer.prompt_tokens(call, &ReplayStore::new(0), "")?,
    };
    Ok(json!({"tokens": ids, "count": ids.len(), "max_model_len": model_context}))
}

/// Reads the body of `POST /detokenize`, `{"tokens": [ids]}`, and gives the body of the answer.
///
/// # Errors
/// [`ProtocolError`] naming the field.
pub fn detokenize(body: &[u8], limits: &Limits, tokenizer: &Tokenizer) -> Result<Value, ProtocolError> {
    let object = parse_object(body, limits)?;
    let fields = Fields::new(&object, "", limits);
    if fields.value("tokens").is_none() {
        return Err(fields.invalid("tokens", "is missing"));
    }
    let ids = settings::token_ids(fields.array("tokens")?);
    let ids = ids.ok_or_else(|| fields.invalid("tokens", "has entries that are no token ids"))?;
    if let Some(id) = ids.iter().find(|id| **id as usize >= tokenizer.vocabulary_size()) {
        let message = format!(
            "has the token {id}, but the vocabulary has {}",
            tokenizer.vocabulary_size()
        );
        return Err(fields.invalid("tokens", message));
    }
    let text = tokenizer.decode(&ids);
    Ok(json!({"prompt": text, "content": text}))
}

/// Reads the body of `POST /v1/messages/count_tokens`: that of messages, in which `max_tokens` may be left out.
///
/// # Errors
/// [`ProtocolError`] naming the field.
pub fn parse_count_tokens(body: &[u8], limits: &Limits) -> Result<Call, ProtocolError> {
    parse(Protocol::Messages, body, limits)
}

/// The body of the answer to `POST /v1/messages/count_tokens`.
pub fn count_tokens_body(token_count: usize) -> Value {
    json!({"input_tokens": token_count})
}

/// A model that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// Its name, or an alias.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Most tokens of prompt and answer.
    pub context_token_count: usize,
}

/// The body of `GET /v1/models`: OpenAI's list, Anthropic's fields, and the array `models` that Codex asks for.
pub fn models_body(models: &[ModelInfo]) -> Value {
    let data: Vec<Value> = models.iter().map(model_body).collect();
    let codex: Vec<Value> = models
        .iter()
        .map(|model| json!({"slug": model.id, "display_name": model.id, "context_window": model.context_token_count}))
        .collect();
    json!({
        "object": "list",
        "data": data,
        "models": codex,
        "has_more": false,
        "first_id": models.first().map(|model| &model.id),
        "last_id": models.last().map(|model| &model.id),
    })
}

/// The body of `GET /v1/models/{id}`.
pub fn model_body(model: &ModelInfo) -> Value {
    json!({
        "id": model.id,
        "object": "model",
        "type": "model",
        "display_name": model.id,
        "created": model.created,
        "created_at": rfc3339(model.created),
        "lifecycle": "active",
        "max_input_tokens": model.context_token_count,
        "owned_by": "cachalot",
        "max_model_len": model.context_token_count,
    })
}

/// Seconds since 1970 as a date and time in UTC.
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days are counted in eras of 400 years that begin in March, so that the leap day comes last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        // By `date -u -d @SECONDS +%FT%TZ`.
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_750_000_000, "2025-06-15T15:06:40Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), date);
        }
    }
}
