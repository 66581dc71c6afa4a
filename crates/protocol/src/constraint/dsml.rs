//! Grammars of tool calls, in the markup that the prompts teach.

use std::fmt::Write;

use cachalot_chat::{PromptEncoder, PromptFormat};
use serde_json::{Map, Value};

use crate::call::{Dialogue, Tool, ToolSelection};
use crate::error::ProtocolError;

/// What may stand in the place of tool calls.
pub(super) enum Text {
    /// Nothing: tools must be called.
    Nothing,
    /// Any text, also before the calls.
    Anything,
    /// JSON that follows a schema, or calls.
    Json(Value),
    /// What the expression matches, or calls.
    Regex(String),
}

/// How a release spells the markup.
struct Spelling {
    block: &'static str,
    invoke: &'static str,
    parameter: &'static str,
    /// Between the opening and the closing of a call without parameters, after the line end.
    no_parameters: &'static str,
}

const V4: Spelling = Spelling {
    block: "tool_calls",
    invoke: "invoke",
    parameter: "parameter",
    no_parameters: "",
};

const V41: Spelling = Spelling {
    block: " calls",
    invoke: " invoke",
    parameter: " parameter",
    no_parameters: "\n",
};

/// A Lark grammar for the text or the tool calls of an answer.
///
/// Strict tools take the parameters of their schema in its order, each by its type: strings bare, everything else as
/// JSON. Others take any parameters.
///
/// # Errors
/// A strict tool's schema is no object with properties, or has a property whose name no markup can carry.
pub(super) fn grammar(dialogue: &Dialogue, text: &Text, encoder: &PromptEncoder) -> Result<String, ProtocolError> {
    let spelling = match encoder.format() {
        // Formats without tools are refused before; their text is V4's.
        PromptFormat::V3
        | PromptFormat::R1
        | PromptFormat::V31
        | PromptFormat::V32
        | PromptFormat::V4
        | PromptFormat::V4Dspark => V4,
        PromptFormat::V41 => V41,
    };
    let dsml = encoder.tokenizer().special_id("｜DSML｜").unwrap_or_default();
    let tools = dialogue
        .tools
        .iter()
        .enumerate()
        .filter(|(_, tool)| match &dialogue.selection {
            ToolSelection::Among(names) => names.contains(&tool.definition.name),
            ToolSelection::Auto | ToolSelection::None | ToolSelection::Required => true,
        });
    let tools: Vec<(usize, &Tool)> = tools.collect();
    let calls: Vec<String> = tools.iter().map(|(index, _)| format!("call_{index}")).collect();
    let many = if dialogue.parallel_calls { "+" } else { "" };
    let opening = quoted(&format!("{}>\n", spelling.block));
    let closing = quoted(&format!("{}>", spelling.block));
    let mut grammar = start(text);
    // Bare text goes up to the markup that closes it; special tokens are no part of expressions.
    let _ = write!(
        grammar,
        "block: dsml {opening} call{many} \"</\" dsml {closing}\n\
         call: {}\n\
         dsml: <[{dsml}]>\n\
         BARE: /(?s:.*)<\\//\n\
         any_json: %json {{}}\n",
        calls.join(" | ")
    );
    if tools.iter().any(|(_, tool)| !tool.is_strict()) {
        grammar.push_str(&any_parameter(&spelling));
    }
    for (index, tool) in tools {
        call(&mut grammar, index, tool, &spelling)?;
    }
    Ok(grammar)
}

/// The rules for what may be said instead of, or before, calls.
fn start(text: &Text) -> String {
    const CALLS: &str = r#""\n\n<" block"#;
    match text {
        Text::Nothing => format!("start: {CALLS}\n"),
        Text::Anything => "start: TEXT | PREAMBLE block\nTEXT: /(?s:.*)/\nPREAMBLE: /(?s:.*)</\n".to_owned(),
        Text::Json(schema) => format!("start: {CALLS} | json_text\njson_text: %json {schema}\n"),
        Text::Regex(regex) => format!(
            "start: {CALLS} | REGEX_TEXT\nREGEX_TEXT: /{}/\n",
            slashes_escaped(regex)
        ),
    }
}

/// The rule of a parameter with any name and value.
fn any_parameter(spelling: &Spelling) -> String {
    let name = quoted(&format!("{} name=\"", spelling.parameter));
    let closing = quoted(&format!("{}>\n", spelling.parameter));
    format!(
        "any_parameter: \"<\" dsml {name} NAME any_value dsml {closing}\n\
         NAME: /[^\"<>\\n]+/\n\
         any_value: {} BARE | {} any_json \"</\"\n",
        quoted(BARE_VALUE),
        quoted(JSON_VALUE),
    )
}

/// Between a parameter's name and a bare value.
const BARE_VALUE: &str = "\" string=\"true\">";

/// Between a parameter's name and a JSON value.
const JSON_VALUE: &str = "\" string=\"false\">";

/// The rules of the calls of one tool.
fn call(grammar: &mut String, index: usize, tool: &Tool, spelling: &Spelling) -> Result<(), ProtocolError> {
    let name = &tool.definition.name;
    let opening = quoted(&format!("{} name=\"{name}\">\n", spelling.invoke));
    let closing = quoted(&format!("{}>\n", spelling.invoke));
    let parameters = if tool.is_strict() {
        strict_parameters(grammar, index, tool, spelling)?
    } else {
        "any_parameter*".to_owned()
    };
    let empty = match spelling.no_parameters {
        "" => String::new(),
        line => format!(" | {}", quoted(line)),
    };
    let _ = writeln!(
        grammar,
        "call_{index}: \"<\" dsml {opening} ({parameters}{empty}) \"</\" dsml {closing}"
    );
    Ok(())
}

/// Writes the rules of a strict tool's parameters and returns their sequence.
fn strict_parameters(
    grammar: &mut String,
    index: usize,
    tool: &Tool,
    spelling: &Spelling,
) -> Result<String, ProtocolError> {
    let field = format!("tools[{index}]");
    let schema = &tool.definition.parameters;
    let composed = ["anyOf", "oneOf", "allOf", "$ref"]
        .iter()
        .any(|key| schema.get(key).is_some());
    let properties = match schema.get("properties") {
        Some(Value::Object(properties)) if !composed => properties,
        None if !composed => &Map::new(),
        _ => {
            let message =
                "a strict tool needs a schema that is an object with properties, without anyOf or $ref on top";
            return Err(ProtocolError::unsupported(field, message));
        }
    };
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .map_or_else(Vec::new, |names| names.iter().filter_map(Value::as_str).collect());
    let mut sequence = Vec::new();
    for (place, (name, property)) in properties.iter().enumerate() {
        if name.is_empty() || name.contains(['"', '<', '>', '\n']) {
            let message = format!("the parameter {name:?} of a strict tool has a name that no call can carry");
            return Err(ProtocolError::unsupported(field, message));
        }
        let rule = format!("parameter_{index}_{place}");
        let opening = quoted(&format!("{} name=\"{name}", spelling.parameter));
        let closing = quoted(&format!("{}>\n", spelling.parameter));
        let value = value_rule(schema, property);
        let _ = writeln!(grammar, "{rule}: \"<\" dsml {opening} ({value}) dsml {closing}");
        let optional = if required.contains(&name.as_str()) { "" } else { "?" };
        sequence.push(format!("{rule}{optional}"));
    }
    Ok(sequence.join(" "))
}

/// What may stand from behind a parameter's name to before the closing marker.
///
/// Strings that the schema does not limit, or only to a list, are bare; everything else is JSON, strings with a
/// pattern or a length too, which the parser takes as well.
fn value_rule(root: &Value, property: &Value) -> String {
    let kinds: Vec<&str> = match property.get("type") {
        Some(Value::String(kind)) => vec![kind],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if let Some(values) = property.get("enum").and_then(Value::as_array)
        && let Some(texts) = values.iter().map(Value::as_str).collect::<Option<Vec<&str>>>()
        && !texts.is_empty()
    {
        let ends: Vec<String> = texts
            .iter()
            .map(|text| quoted(&format!("{BARE_VALUE}{text}</")))
            .collect();
        return ends.join(" | ");
    }
    const LIMITS: &[&str] = &[
        "enum",
        "const",
        "pattern",
        "format",
        "minLength",
        "maxLength",
        "anyOf",
        "oneOf",
        "allOf",
        "not",
        "$ref",
    ];
    let limited = LIMITS.iter().any(|key| property.get(key).is_some());
    if kinds.contains(&"string") && !limited {
        let bare = format!("{} BARE", quoted(BARE_VALUE));
        let others: Vec<&str> = kinds.into_iter().filter(|kind| *kind != "string").collect();
        if others.is_empty() {
            return bare;
        }
        let mut rest = property.clone();
        rest["type"] = others.into();
        return format!("{bare} | {}", json_rule(root, &rest));
    }
    json_rule(root, property)
}

/// A JSON value; definitions of the whole schema go along.
fn json_rule(root: &Value, property: &Value) -> String {
    let mut schema = match property {
        Value::Object(schema) => schema.clone(),
        _ => Map::new(),
    };
    for key in ["$defs", "definitions"] {
        if let (Some(definitions), false) = (root.get(key), schema.contains_key(key)) {
            schema.insert(key.to_owned(), definitions.clone());
        }
    }
    format!("{} %json {} \"</\"", quoted(JSON_VALUE), Value::Object(schema))
}

/// A string of the grammar.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The regular expression `regex` between slashes.
fn slashes_escaped(regex: &str) -> String {
    let (mut escaped, mut after_backslash) = (String::new(), false);
    for character in regex.chars() {
        if character == '/' && !after_backslash {
            escaped.push('\\');
        }
        after_backslash = character == '\\' && !after_backslash;
        match character {
            '\n' => escaped.push_str("\\n"),
            other => escaped.push(other),
        }
    }
    escaped
}
