//! Bodies to calls.

use cachalot_chat::{Thinking, ToolDefinition};
use serde_json::{Map, Value, json};

use super::{custom, items};
use crate::call::{AnswerFormat, Call, Dialogue, Input, Protocol, Tool, ToolSelection, ToolShape};
use crate::chat_completions::{allowed_tools, check_selection, function_tool, openai_text_format};
use crate::error::ProtocolError;
use crate::fields::{Fields, parse_object};
use crate::limits::Limits;
use crate::settings;

const REFUSED: &[(&str, &str)] = &[
    ("background", "answers in the background are not supported; use stream"),
    (
        "conversation",
        "stored conversations are not supported; use previous_response_id",
    ),
    (
        "prompt",
        "stored prompts are not supported; send instructions and input",
    ),
];

pub(crate) fn parse(body: &[u8], limits: &Limits) -> Result<Call, ProtocolError> {
    let object = parse_object(body, limits)?;
    let fields = Fields::new(&object, "", limits);
    fields.refuse(REFUSED)?;
    let mut ignored = Vec::new();
    let dialogue = Dialogue {
        instructions: fields.text("instructions")?.map(str::to_owned),
        messages: items::messages(&fields, &mut ignored)?,
        tools: tools(&fields, &mut ignored)?,
        selection: selection(&fields)?,
        parallel_calls: fields.bool("parallel_tool_calls")?.unwrap_or(true),
        thinking: thinking(&fields)?,
    };
    check_selection(&fields, &dialogue)?;
    let mut call = Call::new(
        Protocol::Responses,
        fields.required_name("model")?,
        Input::Dialogue(Box::new(dialogue)),
    );
    call.sampling = settings::sampling(&fields)?;
    call.token_count_max = settings::token_count_max(&fields, &["max_output_tokens"])?;
    call.stops = settings::stops(&fields, "stop")?;
    call.logprob_count = logprob_count(&fields)?;
    call.format = match fields.object("text")? {
        Some(text) => match text.object("format")? {
            Some(format) => openai_text_format(&format, false)?,
            None => AnswerFormat::Text,
        },
        None => AnswerFormat::Text,
    };
    call.stream = fields.bool("stream")?.unwrap_or(false);
    call.previous_response_id = fields.name("previous_response_id")?.map(str::to_owned);
    call.store = fields.bool("store")?.unwrap_or(true);
    call.user = fields.name("user")?.map(str::to_owned);
    call.ignored = ignored;
    call.echo = echo(&fields, &call);
    Ok(call)
}

fn tools(fields: &Fields<'_>, ignored: &mut Vec<String>) -> Result<Vec<Tool>, ProtocolError> {
    let mut tools = Vec::new();
    for item in fields.objects("tools", fields.limits.tool_count)? {
        match item.required_name("type")? {
            "function" => tools.push(function_tool(&item, "parameters")?),
            "custom" => tools.push(custom_tool(&item)?),
            // Tools that run at OpenAI, which clients offer whether or not the server has them.
            other => ignored.push(format!("{} of type {other}", item.path())),
        }
    }
    settings::check_tools("tools", &tools)?;
    Ok(tools)
}

fn custom_tool(fields: &Fields<'_>) -> Result<Tool, ProtocolError> {
    let mut description = fields.text("description")?.unwrap_or_default().to_owned();
    if let Some(format) = fields.object("format")?
        && let Some(definition) = format.text("definition")?
    {
        let syntax = format.name("syntax")?.unwrap_or("lark");
        description.push_str(&format!(
            "\n\nThe input must follow this {syntax} grammar:\n{definition}"
        ));
    }
    Ok(Tool {
        definition: ToolDefinition {
            name: settings::tool_name(fields)?.to_owned(),
            description: Some(description),
            parameters: custom::parameters(),
            strict: None,
            defer_loading: false,
        },
        shape: ToolShape::Custom,
    })
}

fn selection(fields: &Fields<'_>) -> Result<ToolSelection, ProtocolError> {
    match fields.value("tool_choice") {
        None => Ok(ToolSelection::Auto),
        Some(Value::String(choice)) => match choice.as_str() {
            "auto" => Ok(ToolSelection::Auto),
            "none" => Ok(ToolSelection::None),
            "required" => Ok(ToolSelection::Required),
            other => Err(fields.invalid(
                "tool_choice",
                format!("is {other:?}, expected auto, none, required or a tool"),
            )),
        },
        Some(value) => {
            let choice = Fields::of(value, fields.path_of("tool_choice"), fields.limits)?;
            match choice.required_name("type")? {
                "function" | "custom" => Ok(ToolSelection::Among(vec![choice.required_name("name")?.to_owned()])),
                "allowed_tools" => allowed_tools(&choice),
                other => Err(choice.unsupported("type", format!("the tool {other} is not supported"))),
            }
        }
    }
}

fn thinking(fields: &Fields<'_>) -> Result<Option<Thinking>, ProtocolError> {
    match fields.object("reasoning")? {
        Some(reasoning) => settings::effort(&reasoning, "effort"),
        None => Ok(None),
    }
}

fn logprob_count(fields: &Fields<'_>) -> Result<Option<usize>, ProtocolError> {
    let included = fields
        .array("include")?
        .iter()
        .any(|item| item.as_str() == Some("message.output_text.logprobs"));
    let count = fields
        .count("top_logprobs", 0..=fields.limits.top_logprob_count)?
        .unwrap_or(0);
    Ok((included || count > 0).then_some(count))
}

/// The settings that the response repeats.
fn echo(fields: &Fields<'_>, call: &Call) -> Map<String, Value> {
    let or_null = |name: &str| fields.value(name).cloned().unwrap_or(Value::Null);
    let or = |name: &str, default: Value| fields.value(name).cloned().unwrap_or(default);
    let kinds = ["function", "custom"];
    let tools = fields.array("tools").unwrap_or_default().iter();
    let tools = tools.filter(|tool| tool["type"].as_str().is_some_and(|kind| kinds.contains(&kind)));
    let mut echo = Map::new();
    for (name, value) in [
        ("background", json!(false)),
        ("instructions", or_null("instructions")),
        ("max_output_tokens", or_null("max_output_tokens")),
        ("max_tool_calls", or_null("max_tool_calls")),
        ("metadata", or("metadata", json!({}))),
        ("parallel_tool_calls", or("parallel_tool_calls", json!(true))),
        ("previous_response_id", or_null("previous_response_id")),
        ("prompt_cache_key", or_null("prompt_cache_key")),
        ("reasoning", or("reasoning", json!({"effort": null, "summary": null}))),
        ("safety_identifier", or_null("safety_identifier")),
        ("service_tier", json!("default")),
        ("store", json!(call.store)),
        ("temperature", or("temperature", json!(1.0))),
        ("text", or("text", json!({"format": {"type": "text"}}))),
        ("tool_choice", or("tool_choice", json!("auto"))),
        ("tools", tools.cloned().collect()),
        ("top_logprobs", json!(call.logprob_count.unwrap_or(0))),
        ("top_p", or("top_p", json!(1.0))),
        ("truncation", json!("disabled")),
        ("user", or_null("user")),
    ] {
        echo.insert(name.to_owned(), value);
    }
    // Said here because clients look for it: whether the reasoning is carried along.
    let include = fields.array("include").unwrap_or_default();
    if include
        .iter()
        .any(|item| item.as_str() == Some("reasoning.encrypted_content"))
    {
        echo.insert(CARRIES_REASONING.to_owned(), json!(true));
    }
    echo
}

/// Name under which [`echo`] notes that reasoning is to be carried along; never sent.
pub(super) const CARRIES_REASONING: &str = "carries reasoning";
