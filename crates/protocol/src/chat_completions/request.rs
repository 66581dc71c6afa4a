//! Bodies to calls.

use cachalot_chat::{Message, Thinking, ToolCall, ToolDefinition, message};
use serde_json::Value;

use crate::call::{AnswerFormat, Call, Dialogue, Input, Protocol, Tool, ToolSelection, ToolShape};
use crate::error::ProtocolError;
use crate::fields::{Fields, parse_object, wrong_type};
use crate::limits::Limits;
use crate::settings;

/// Fields that would change the answer and cannot be honoured.
const REFUSED: &[(&str, &str)] = &[
    ("audio", "audio answers are not supported"),
    ("functions", "is the old way to offer tools; use tools"),
    ("function_call", "is the old way to choose a tool; use tool_choice"),
    ("best_of", "is not supported; use n"),
    ("web_search_options", "web search is not supported"),
    ("prompt_logprobs", "log-probabilities of the prompt are not supported"),
    (
        "guided_choice",
        "is not supported; use response_format with a JSON Schema that has an enum",
    ),
];

pub(crate) fn parse(body: &[u8], limits: &Limits) -> Result<Call, ProtocolError> {
    let object = parse_object(body, limits)?;
    let fields = Fields::new(&object, "", limits);
    fields.refuse(REFUSED)?;
    if let Some(other) = fields
        .array("modalities")?
        .iter()
        .find(|item| item.as_str() != Some("text"))
    {
        return Err(fields.unsupported("modalities", format!("has {other}, only \"text\" is supported")));
    }
    let mut ignored = Vec::new();
    let dialogue = Dialogue {
        instructions: None,
        messages: messages(&fields)?,
        tools: tools(&fields, &mut ignored)?,
        selection: selection(&fields)?,
        parallel_calls: fields.bool("parallel_tool_calls")?.unwrap_or(true),
        thinking: thinking(&fields)?,
    };
    check_selection(&fields, &dialogue)?;
    let stream = fields.bool("stream")?.unwrap_or(false);
    let mut call = Call::new(
        Protocol::ChatCompletions,
        fields.required_name("model")?,
        Input::Dialogue(Box::new(dialogue)),
    );
    call.sampling = settings::sampling(&fields)?;
    call.token_count_max = settings::token_count_max(&fields, &["max_completion_tokens", "max_tokens"])?;
    call.stops = settings::stops(&fields, "stop")?;
    call.answer_count = fields.count("n", 1..=limits.answer_count)?.unwrap_or(1);
    call.logprob_count = logprob_count(&fields)?;
    call.format = answer_format(&fields)?;
    call.stream = stream;
    call.include_usage = match fields.object("stream_options")? {
        Some(options) => options.bool("include_usage")?.unwrap_or(false),
        None => false,
    };
    call.user = fields.name("user")?.map(str::to_owned);
    call.ignored = ignored;
    Ok(call)
}

fn messages(fields: &Fields<'_>) -> Result<Vec<Message>, ProtocolError> {
    let items = fields.objects("messages", fields.limits.message_count)?;
    if items.is_empty() {
        return Err(fields.invalid("messages", "is missing or empty"));
    }
    items.iter().map(one_message).collect()
}

fn one_message(fields: &Fields<'_>) -> Result<Message, ProtocolError> {
    let role = fields.required_name("role")?;
    match role {
        "system" | "developer" => Ok(message::system(content(fields)?.unwrap_or_default())),
        "user" => {
            let text = content(fields)?.ok_or_else(|| fields.invalid("content", "is missing"))?;
            Ok(message::user(text))
        }
        "assistant" => assistant(fields),
        "tool" => {
            let id = fields.required_name("tool_call_id")?;
            Ok(message::tool_result(id, content(fields)?.unwrap_or_default()))
        }
        "latest_reminder" => Ok(Message::LatestReminder {
            content: content(fields)?.unwrap_or_default(),
        }),
        other => Err(fields.invalid(
            "role",
            format!("is {other:?}, expected system, developer, user, assistant or tool"),
        )),
    }
}

fn assistant(fields: &Fields<'_>) -> Result<Message, ProtocolError> {
    let reasoning = match fields.text("reasoning_content")? {
        Some(reasoning) => Some(reasoning),
        None => fields.value("reasoning").and_then(Value::as_str),
    };
    let text = match content(fields)? {
        Some(text) => text,
        None => fields.text("refusal")?.unwrap_or_default().to_owned(),
    };
    let mut calls = Vec::new();
    for item in fields.objects("tool_calls", fields.limits.tool_count)? {
        let kind = item.name("type")?.unwrap_or("function");
        let Some(function) = item.object(kind)? else {
            return Err(item.invalid(kind, "is missing"));
        };
        let arguments = match (kind, function.value("arguments")) {
            ("function", None) => "{}".to_owned(),
            // Some clients send the parsed object back.
            ("function", Some(object @ Value::Object(_))) => object.to_string(),
            ("function", Some(_)) => function.text("arguments")?.unwrap_or_default().to_owned(),
            ("custom", _) => {
                let input = function.text("input")?.unwrap_or_default();
                serde_json::json!({ "input": input }).to_string()
            }
            (other, _) => return Err(item.invalid("type", format!("is {other:?}, expected function"))),
        };
        calls.push(ToolCall {
            id: item.required_name("id")?.to_owned(),
            name: settings::tool_name(&function)?.to_owned(),
            arguments,
        });
    }
    if fields.bool("prefix")?.unwrap_or(false) {
        if !calls.is_empty() {
            return Err(fields.unsupported("prefix", "a message with tool calls cannot be continued"));
        }
        return Ok(message::answer_prefix(reasoning.map(str::to_owned), text));
    }
    Ok(message::assistant(reasoning.map(str::to_owned), text, calls))
}

/// The text of a message: a string, or parts that are joined by blank lines.
fn content(fields: &Fields<'_>) -> Result<Option<String>, ProtocolError> {
    match fields.value("content") {
        Some(Value::Array(_)) => {
            let parts = fields.objects("content", fields.limits.message_count)?;
            let texts = parts.iter().map(part).collect::<Result<Vec<_>, _>>()?;
            Ok(Some(texts.join("\n\n")))
        }
        Some(Value::String(_)) | None => Ok(fields.text("content")?.map(str::to_owned)),
        Some(other) => Err(wrong_type(
            fields.path_of("content"),
            "a string or an array of parts",
            other,
        )),
    }
}

fn part<'b>(fields: &Fields<'b>) -> Result<&'b str, ProtocolError> {
    match fields.required_name("type")? {
        "text" => fields.text("text")?.ok_or_else(|| fields.invalid("text", "is missing")),
        "refusal" => Ok(fields.text("refusal")?.unwrap_or_default()),
        "image_url" | "image" => Err(fields.unsupported("type", NO_VISION)),
        "input_audio" => Err(fields.unsupported("type", "audio input is not supported by this model")),
        "file" => Err(fields.unsupported("type", "files are not supported; send their text")),
        other => Err(fields.invalid("type", format!("is {other:?}, expected text"))),
    }
}

/// What is said of images.
pub(crate) const NO_VISION: &str =
    "images are not supported: only text is read, of models with vision too; send a description instead";

fn tools(fields: &Fields<'_>, ignored: &mut Vec<String>) -> Result<Vec<Tool>, ProtocolError> {
    let mut tools = Vec::new();
    for item in fields.objects("tools", fields.limits.tool_count)? {
        match item.name("type")?.unwrap_or("function") {
            "function" => {
                let function = item
                    .object("function")?
                    .ok_or_else(|| item.invalid("function", "is missing"))?;
                tools.push(function_tool(&function, "parameters")?);
            }
            "custom" => {
                return Err(item.unsupported("type", "custom tools are only supported by /v1/responses; use function"));
            }
            other => ignored.push(format!("{} of type {other}", item.path())),
        }
    }
    settings::check_tools("tools", &tools)?;
    Ok(tools)
}

/// A function tool whose name, description and schema are fields of `fields`.
pub(crate) fn function_tool(fields: &Fields<'_>, schema: &str) -> Result<Tool, ProtocolError> {
    Ok(Tool {
        definition: ToolDefinition {
            name: settings::tool_name(fields)?.to_owned(),
            description: fields.text("description")?.map(str::to_owned),
            parameters: settings::schema(fields, schema)?.unwrap_or_else(settings::no_parameters),
            strict: fields.bool("strict")?,
            defer_loading: false,
        },
        shape: ToolShape::Function,
    })
}

fn selection(fields: &Fields<'_>) -> Result<ToolSelection, ProtocolError> {
    let Some(value) = fields.value("tool_choice") else {
        return Ok(ToolSelection::Auto);
    };
    if let Value::String(choice) = value {
        return match choice.as_str() {
            "auto" => Ok(ToolSelection::Auto),
            "none" => Ok(ToolSelection::None),
            "required" | "any" => Ok(ToolSelection::Required),
            other => Err(fields.invalid(
                "tool_choice",
                format!("is {other:?}, expected auto, none, required or a tool"),
            )),
        };
    }
    let choice = Fields::of(value, fields.path_of("tool_choice"), fields.limits)?;
    match choice.required_name("type")? {
        "function" => {
            let named = choice.object("function")?.unwrap_or(choice);
            Ok(ToolSelection::Among(vec![named.required_name("name")?.to_owned()]))
        }
        "allowed_tools" => allowed_tools(&choice.object("allowed_tools")?.unwrap_or(choice)),
        other => Err(choice.invalid("type", format!("is {other:?}, expected function or allowed_tools"))),
    }
}

/// OpenAI's list of allowed tools; only its mode `required` restricts the answer.
pub(crate) fn allowed_tools(fields: &Fields<'_>) -> Result<ToolSelection, ProtocolError> {
    match fields.name("mode")?.unwrap_or("auto") {
        "required" => {
            let mut names = Vec::new();
            for tool in fields.objects("tools", fields.limits.tool_count)? {
                let named = tool.object("function")?.unwrap_or(tool);
                names.push(named.required_name("name")?.to_owned());
            }
            Ok(ToolSelection::Among(names))
        }
        "auto" => Err(fields.unsupported("mode", "auto is not supported for allowed_tools; send only those tools")),
        other => Err(fields.invalid("mode", format!("is {other:?}, expected auto or required"))),
    }
}

/// Refuses to require tools that are not on offer.
pub(crate) fn check_selection(fields: &Fields<'_>, dialogue: &Dialogue) -> Result<(), ProtocolError> {
    let offered = |name: &String| dialogue.tools.iter().any(|tool| tool.definition.name == *name);
    match &dialogue.selection {
        ToolSelection::Required if dialogue.tools.is_empty() => Err(fields.invalid(
            "tool_choice",
            "requires a tool, but no tool that can be called is in tools",
        )),
        ToolSelection::Among(names) if names.is_empty() => Err(fields.invalid("tool_choice", "names no tool")),
        ToolSelection::Among(names) => match names.iter().find(|name| !offered(name)) {
            Some(name) => Err(fields.invalid("tool_choice", format!("names the tool {name:?}, which is not in tools"))),
            None => Ok(()),
        },
        ToolSelection::Auto | ToolSelection::None | ToolSelection::Required => Ok(()),
    }
}

/// `reasoning_effort`, `thinking`, and the template switches that other engines' clients send.
fn thinking(fields: &Fields<'_>) -> Result<Option<Thinking>, ProtocolError> {
    let mut switch = settings::thinking_switch(fields)?;
    let mut effort = settings::effort(fields, "reasoning_effort")?;
    if let Some(reasoning) = fields.object("reasoning")? {
        effort = effort.or(settings::effort(&reasoning, "effort")?);
    }
    if let Some(template) = fields.object("chat_template_kwargs")? {
        for name in ["thinking", "enable_thinking"] {
            switch = switch.or(template.bool(name)?);
        }
        effort = effort.or(settings::effort(&template, "reasoning_effort")?);
    }
    Ok(settings::thinking(switch, effort))
}

fn logprob_count(fields: &Fields<'_>) -> Result<Option<usize>, ProtocolError> {
    let wanted = fields.bool("logprobs")?.unwrap_or(false);
    let count = fields.count("top_logprobs", 0..=fields.limits.top_logprob_count)?;
    if !wanted && count.is_some_and(|count| count > 0) {
        return Err(fields.invalid("top_logprobs", "needs logprobs to be true"));
    }
    Ok(wanted.then(|| count.unwrap_or(0)))
}

fn answer_format(fields: &Fields<'_>) -> Result<AnswerFormat, ProtocolError> {
    let format = match fields.object("response_format")? {
        Some(format) => openai_text_format(&format, true)?,
        None => AnswerFormat::Text,
    };
    let extensions = [
        settings::schema(fields, "guided_json")?.map(AnswerFormat::JsonSchema),
        fields
            .text("guided_regex")?
            .map(|regex| AnswerFormat::Regex(regex.to_owned())),
        fields
            .text("guided_grammar")?
            .map(|grammar| AnswerFormat::Lark(grammar.to_owned())),
    ];
    match extensions.into_iter().flatten().next() {
        Some(_) if format != AnswerFormat::Text => {
            Err(fields.invalid("response_format", "cannot be combined with a guided_ field"))
        }
        Some(extension) => Ok(extension),
        None => Ok(format),
    }
}

/// `{"type": "text" | "json_object" | "json_schema", ...}`; the schema is `nested` under `json_schema` or beside the
/// type.
pub(crate) fn openai_text_format(format: &Fields<'_>, nested: bool) -> Result<AnswerFormat, ProtocolError> {
    match format.required_name("type")? {
        "text" => Ok(AnswerFormat::Text),
        "json_object" => Ok(AnswerFormat::JsonObject),
        "json_schema" => {
            let holder = if nested {
                format.object("json_schema")?
            } else {
                Some(format.clone())
            };
            let holder = holder.ok_or_else(|| format.invalid("json_schema", "is missing"))?;
            let schema = settings::schema(&holder, "schema")?;
            schema
                .map(AnswerFormat::JsonSchema)
                .ok_or_else(|| holder.invalid("schema", "is missing"))
        }
        "regex" => {
            let regex = format
                .text("regex")?
                .ok_or_else(|| format.invalid("regex", "is missing"))?;
            Ok(AnswerFormat::Regex(regex.to_owned()))
        }
        "grammar" | "lark_grammar" => {
            let grammar = format
                .text("grammar")?
                .ok_or_else(|| format.invalid("grammar", "is missing"))?;
            Ok(AnswerFormat::Lark(grammar.to_owned()))
        }
        other => Err(format.invalid(
            "type",
            format!("is {other:?}, expected text, json_object or json_schema"),
        )),
    }
}
