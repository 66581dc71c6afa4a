//! Bodies to calls.

use cachalot_chat::{Message, Thinking, ToolCall, message};
use serde_json::Value;

use crate::call::{AnswerFormat, Call, Dialogue, Input, Protocol, Tool, ToolSelection};
use crate::chat_completions::{NO_VISION, check_selection, function_tool, openai_text_format};
use crate::error::ProtocolError;
use crate::fields::{Fields, parse_object, wrong_type};
use crate::limits::Limits;
use crate::settings;

const REFUSED: &[(&str, &str)] = &[
    (
        "mcp_servers",
        "MCP servers are not called from here; run them in the client",
    ),
    ("container", "containers are not supported"),
];

pub(crate) fn parse(body: &[u8], limits: &Limits) -> Result<Call, ProtocolError> {
    let object = parse_object(body, limits)?;
    let fields = Fields::new(&object, "", limits);
    fields.refuse(REFUSED)?;
    let mut ignored = Vec::new();
    let (selection, parallel_calls) = selection(&fields)?;
    let output = fields.object("output_config")?;
    let mut dialogue = Dialogue {
        instructions: content_text(&fields, "system")?,
        messages: messages(&fields)?,
        tools: tools(&fields, &mut ignored)?,
        selection,
        parallel_calls,
        thinking: thinking(&fields, output.as_ref())?,
    };
    let asks_nothing = dialogue.tools.is_empty() && !ignored.is_empty();
    if asks_nothing {
        // Only tools of Anthropic's servers: nothing is left to choose from.
        dialogue.selection = ToolSelection::Auto;
    }
    check_selection(&fields, &dialogue)?;
    let mut call = Call::new(
        Protocol::Messages,
        fields.required_name("model")?,
        Input::Dialogue(Box::new(dialogue)),
    );
    call.sampling = settings::sampling(&fields)?;
    call.token_count_max = settings::token_count_max(&fields, &["max_tokens"])?;
    call.stops = settings::stops(&fields, "stop_sequences")?;
    call.format = answer_format(&fields, output.as_ref())?;
    call.stream = fields.bool("stream")?.unwrap_or(false);
    call.user = match fields.object("metadata")? {
        Some(metadata) => metadata.name("user_id")?.map(str::to_owned),
        None => None,
    };
    call.ignored = ignored;
    Ok(call)
}

fn messages(fields: &Fields<'_>) -> Result<Vec<Message>, ProtocolError> {
    let items = fields.objects("messages", fields.limits.message_count)?;
    if items.is_empty() {
        return Err(fields.invalid("messages", "is missing or empty"));
    }
    let mut messages = Vec::new();
    for (place, item) in items.iter().enumerate() {
        match item.required_name("role")? {
            "user" => user(item, &mut messages)?,
            "assistant" => messages.push(assistant(item, place + 1 == items.len())?),
            "system" => messages.push(message::system(content_text(item, "content")?.unwrap_or_default())),
            other => return Err(item.invalid("role", format!("is {other:?}, expected user or assistant"))),
        }
        if messages.len() > fields.limits.message_count {
            let message = format!("has more than {} messages and blocks", fields.limits.message_count);
            return Err(fields.invalid("messages", message));
        }
    }
    Ok(messages)
}

/// A user's turn: results of tools first, then what was said.
fn user(fields: &Fields<'_>, messages: &mut Vec<Message>) -> Result<(), ProtocolError> {
    if !matches!(fields.value("content"), Some(Value::Array(_))) {
        let text = fields
            .text("content")?
            .ok_or_else(|| fields.invalid("content", "is missing"))?;
        messages.push(message::user(text));
        return Ok(());
    }
    let mut texts = Vec::new();
    for block in fields.objects("content", fields.limits.message_count)? {
        if block.required_name("type")? == "tool_result" {
            let id = block.required_name("tool_use_id")?;
            messages.push(message::tool_result(
                id,
                content_text(&block, "content")?.unwrap_or_default(),
            ));
        } else if let Some(text) = text_block(&block)? {
            texts.push(text);
        }
    }
    if !texts.is_empty() {
        messages.push(message::user(texts.join("\n\n")));
    }
    Ok(())
}

/// An earlier answer, or, as the last message without tool calls, the beginning of the next one.
fn assistant(fields: &Fields<'_>, is_last: bool) -> Result<Message, ProtocolError> {
    let (mut reasoning, mut text, mut calls) = (None::<String>, String::new(), Vec::new());
    if let Some(Value::Array(_)) = fields.value("content") {
        for block in fields.objects("content", fields.limits.message_count)? {
            match block.required_name("type")? {
                "thinking" => reasoning
                    .get_or_insert_default()
                    .push_str(block.text("thinking")?.unwrap_or_default()),
                "redacted_thinking" | "server_tool_use" | "web_search_tool_result" => {}
                "tool_use" => calls.push(ToolCall {
                    id: block.required_name("id")?.to_owned(),
                    name: settings::tool_name(&block)?.to_owned(),
                    arguments: match block.value("input") {
                        None => "{}".to_owned(),
                        Some(input @ Value::Object(_)) => input.to_string(),
                        Some(other) => return Err(wrong_type(block.path_of("input"), "an object", other)),
                    },
                }),
                _ => text.push_str(text_block(&block)?.unwrap_or_default()),
            }
        }
    } else {
        text.push_str(
            fields
                .text("content")?
                .ok_or_else(|| fields.invalid("content", "is missing"))?,
        );
    }
    if is_last && calls.is_empty() {
        return Ok(message::answer_prefix(reasoning, text));
    }
    Ok(message::assistant(reasoning, text, calls))
}

/// The text of a string or of text blocks, `None` if absent.
fn content_text(fields: &Fields<'_>, name: &str) -> Result<Option<String>, ProtocolError> {
    let Some(Value::Array(_)) = fields.value(name) else {
        return Ok(fields.text(name)?.map(str::to_owned));
    };
    let mut texts = Vec::new();
    for block in fields.objects(name, fields.limits.message_count)? {
        texts.extend(text_block(&block)?);
    }
    Ok(Some(texts.join("\n\n")))
}

/// The text of a block; `None` of those that mean nothing here.
fn text_block<'b>(block: &Fields<'b>) -> Result<Option<&'b str>, ProtocolError> {
    match block.required_name("type")? {
        "text" => block
            .text("text")?
            .map(Some)
            .ok_or_else(|| block.invalid("text", "is missing")),
        "image" => Err(block.unsupported("type", NO_VISION)),
        "document" => match block.object("source")? {
            Some(source) if source.name("type")? == Some("text") => source.text("data"),
            _ => Err(block.unsupported(
                "type",
                "documents are not supported, but for plain text; send their text",
            )),
        },
        "search_result" => Err(block.unsupported("type", "search results are not supported; send their text")),
        "tool_reference" | "container_upload" => Ok(None),
        other => Err(block.invalid(
            "type",
            format!("is {other:?}, expected text, tool_use, tool_result or thinking"),
        )),
    }
}

fn tools(fields: &Fields<'_>, ignored: &mut Vec<String>) -> Result<Vec<Tool>, ProtocolError> {
    const BY_SCHEMA: &str = "has its schema at Anthropic; offer it as a custom tool with an input_schema";
    let mut tools = Vec::new();
    for item in fields.objects("tools", fields.limits.tool_count)? {
        match item.name("type")? {
            None | Some("custom") => {
                if item.value("input_schema").is_none() {
                    return Err(item.invalid("input_schema", "is missing"));
                }
                tools.push(function_tool(&item, "input_schema")?);
            }
            Some(kind)
                if ["bash_", "text_editor_", "computer_", "memory_"]
                    .iter()
                    .any(|of| kind.starts_with(of)) =>
            {
                return Err(item.unsupported("type", format!("the tool type {kind} {BY_SCHEMA}")));
            }
            Some(kind) => ignored.push(format!("{} of type {kind}", item.path())),
        }
    }
    settings::check_tools("tools", &tools)?;
    Ok(tools)
}

/// Which tools are to be called, and whether several may be.
fn selection(fields: &Fields<'_>) -> Result<(ToolSelection, bool), ProtocolError> {
    let Some(choice) = fields.object("tool_choice")? else {
        return Ok((ToolSelection::Auto, true));
    };
    let selection = match choice.required_name("type")? {
        "auto" => ToolSelection::Auto,
        "any" => ToolSelection::Required,
        "none" => ToolSelection::None,
        "tool" => ToolSelection::Among(vec![choice.required_name("name")?.to_owned()]),
        other => return Err(choice.invalid("type", format!("is {other:?}, expected auto, any, tool or none"))),
    };
    Ok((selection, !choice.bool("disable_parallel_tool_use")?.unwrap_or(false)))
}

/// `thinking` decides whether, `output_config.effort` how hard.
fn thinking(fields: &Fields<'_>, output: Option<&Fields<'_>>) -> Result<Option<Thinking>, ProtocolError> {
    let switch = settings::thinking_switch(fields)?;
    let effort = match output {
        Some(output) => settings::effort(output, "effort")?,
        None => None,
    };
    // Effort alone also governs answers without thinking.
    Ok(match switch {
        None => None,
        switch => settings::thinking(switch, effort),
    })
}

fn answer_format(fields: &Fields<'_>, output: Option<&Fields<'_>>) -> Result<AnswerFormat, ProtocolError> {
    let newer = match output {
        Some(output) => output.object("format")?,
        None => None,
    };
    match newer.or(fields.object("output_format")?) {
        Some(format) => openai_text_format(&format, false),
        None => Ok(AnswerFormat::Text),
    }
}
