//! Requests that need the tokenizer but not the model.

use cachalot_engine::constraint::Grammar;
use cachalot_protocol::{ErrorKind, Protocol, ProtocolError, parse};
use serde_json::{Value, json};

use super::Shared;

/// The engine's word for a grammar of the protocols.
pub fn grammar(grammar: &cachalot_protocol::Grammar) -> Grammar {
    match grammar {
        cachalot_protocol::Grammar::JsonSchema(schema) => Grammar::JsonSchema(schema.clone()),
        cachalot_protocol::Grammar::Regex(text) => Grammar::Regex(text.clone()),
        cachalot_protocol::Grammar::Lark(text) => Grammar::Lark(text.clone()),
    }
}

/// `POST /v1/messages/count_tokens`: a request for an answer without its token limit.
pub fn count_tokens(shared: &Shared, body: &[u8]) -> Result<Value, ProtocolError> {
    let mut value = read(body)?;
    if let Some(object) = value.as_object_mut() {
        object.entry("max_tokens").or_insert(json!(1));
    }
    let bytes = value.to_string();
    let call = parse(Protocol::Messages, bytes.as_bytes(), &shared.options.limits)?;
    let count = shared.preparer.prepare(&call, &shared.replay, "")?.ids.len();
    Ok(json!({ "input_tokens": count }))
}

/// `POST /tokenize`: `{"prompt": TEXT}`, or the messages of a chat completion.
pub fn tokenize(shared: &Shared, body: &[u8]) -> Result<Value, ProtocolError> {
    let mut value = read(body)?;
    let tokens = if let Some(text) = value["prompt"].as_str().or_else(|| value["content"].as_str()) {
        shared.preparer.encoder().tokenizer().encode_plain(text)?
    } else if value["messages"].is_array() {
        if value["model"].is_null() {
            value["model"] = json!(shared.options.name);
        }
        let call = parse(
            Protocol::ChatCompletions,
            value.to_string().as_bytes(),
            &shared.options.limits,
        )?;
        shared.preparer.prepare(&call, &shared.replay, "")?.ids
    } else {
        return Err(ProtocolError::invalid(
            "prompt",
            "is missing; send a text, or `messages`",
        ));
    };
    let context = shared.service.context();
    Ok(json!({ "count": tokens.len(), "max_model_len": context, "tokens": tokens }))
}

/// `POST /detokenize`: `{"tokens": [ID, ...]}`.
pub fn detokenize(shared: &Shared, body: &[u8]) -> Result<Value, ProtocolError> {
    let value = read(body)?;
    let ids = value["tokens"].as_array().and_then(|items| {
        let id = |item: &Value| u32::try_from(item.as_u64()?).ok();
        items.iter().map(id).collect::<Option<Vec<u32>>>()
    });
    let Some(ids) = ids else {
        return Err(ProtocolError::invalid("tokens", "must be an array of token ids"));
    };
    let text = shared.preparer.encoder().tokenizer().decode(&ids);
    Ok(json!({ "prompt": text, "content": text }))
}

fn read(body: &[u8]) -> Result<Value, ProtocolError> {
    let failed = |error| ProtocolError::new(ErrorKind::InvalidRequest, format!("the body is no JSON: {error}"));
    let value: Value = serde_json::from_slice(body).map_err(failed)?;
    match value.is_object() {
        true => Ok(value),
        false => Err(ProtocolError::new(
            ErrorKind::InvalidRequest,
            "the body is no JSON object",
        )),
    }
}
