//! Bodies to calls.

use serde_json::Value;

use crate::call::{Call, Input, Protocol};
use crate::error::ProtocolError;
use crate::fields::{Fields, parse_object, wrong_type};
use crate::limits::Limits;
use crate::settings;

/// Tokens of an answer when the client does not say, as OpenAI has it.
const TOKEN_COUNT_DEFAULT: usize = 16;

const REFUSED: &[(&str, &str)] = &[
    ("suffix", "is not supported: the model only goes on from the end"),
    ("echo", "is not supported; put the prompt before the answer yourself"),
    ("prompt_logprobs", "log-probabilities of the prompt are not supported"),
];

pub(crate) fn parse(body: &[u8], limits: &Limits) -> Result<Call, ProtocolError> {
    let object = parse_object(body, limits)?;
    let fields = Fields::new(&object, "", limits);
    fields.refuse(REFUSED)?;
    let answer_count = fields.count("n", 1..=limits.answer_count)?.unwrap_or(1);
    if fields
        .count("best_of", 1..=limits.answer_count)?
        .is_some_and(|count| count > answer_count)
    {
        return Err(fields.unsupported("best_of", "is not supported; use n and choose among the answers"));
    }
    let mut call = Call::new(Protocol::Completions, fields.required_name("model")?, prompt(&fields)?);
    call.sampling = settings::sampling(&fields)?;
    let token_count_max = settings::token_count_max(&fields, &["max_tokens"])?;
    call.token_count_max = Some(token_count_max.unwrap_or(TOKEN_COUNT_DEFAULT));
    call.stops = settings::stops(&fields, "stop")?;
    call.answer_count = answer_count;
    call.logprob_count = fields.count("logprobs", 0..=limits.top_logprob_count)?;
    call.stream = fields.bool("stream")?.unwrap_or(false);
    call.include_usage = match fields.object("stream_options")? {
        Some(options) => options.bool("include_usage")?.unwrap_or(false),
        None => false,
    };
    call.user = fields.name("user")?.map(str::to_owned);
    Ok(call)
}

/// A text, token ids, or a list with one of them.
fn prompt(fields: &Fields<'_>) -> Result<Input, ProtocolError> {
    let Some(value) = fields.value("prompt") else {
        return Err(fields.invalid("prompt", "is missing"));
    };
    match value {
        Value::String(_) => Ok(Input::Text(fields.text("prompt")?.unwrap_or_default().to_owned())),
        Value::Array(items) => match items.as_slice() {
            [] => Err(fields.invalid("prompt", "is empty")),
            [Value::String(text)] if text.len() <= fields.limits.text_bytes => Ok(Input::Text(text.clone())),
            [Value::Array(ids)] => tokens(fields, ids),
            [Value::String(_) | Value::Array(_), ..] => Err(fields.unsupported(
                "prompt",
                "several prompts in one request are not supported; send one request each",
            )),
            ids => tokens(fields, ids),
        },
        other => Err(wrong_type(
            fields.path_of("prompt"),
            "a string or an array of token ids",
            other,
        )),
    }
}

fn tokens(fields: &Fields<'_>, ids: &[Value]) -> Result<Input, ProtocolError> {
    match settings::token_ids(ids) {
        Some(ids) => Ok(Input::Tokens(ids)),
        None => Err(fields.invalid("prompt", "has entries that are no token ids")),
    }
}
