//! What answers have to be like, for a constrained sampler.

mod dsml;

use cachalot_chat::{AnswerStart, PromptEncoder};
use serde_json::{Value, json};

use crate::call::{AnswerFormat, Call, Dialogue, ToolSelection};
use crate::error::ProtocolError;

/// Limits what may be sampled.
#[derive(Debug, Clone, PartialEq)]
pub struct ConstraintSpec {
    /// What the answer, or the part of it after [`dormant_until`](Self::dormant_until), has to be like up to the end of
    /// the sentence.
    pub grammar: Grammar,
    /// The constraint sleeps until this token (`</think>`) was sampled; `None`: it holds from the first token on.
    pub dormant_until: Option<u32>,
    /// Tokens that must not be sampled while it sleeps: those that would end the answer, or begin a tool call, before
    /// the constraint wakes.
    pub forbidden_while_dormant: Vec<u32>,
}

/// A grammar in a form that llguidance takes.
#[derive(Debug, Clone, PartialEq)]
pub enum Grammar {
    /// A JSON Schema for the whole text.
    JsonSchema(Value),
    /// A regular expression for the whole text.
    Regex(String),
    /// A grammar in llguidance's dialect of Lark; special tokens are written `<[id]>`.
    Lark(String),
}

/// The constraint of `call`, if it needs one.
///
/// # Errors
/// A strict tool's schema cannot be written as parameters; two constraints contradict each other.
pub(crate) fn build(
    call: &Call,
    dialogue: Option<&Dialogue>,
    encoder: &PromptEncoder,
    start: AnswerStart,
) -> Result<Option<ConstraintSpec>, ProtocolError> {
    let grammar = match dialogue {
        Some(dialogue) if !dialogue.tools.is_empty() && dialogue.selection != ToolSelection::None => {
            with_tools(call, dialogue, encoder)?
        }
        _ => of_format(&call.format),
    };
    let Some(grammar) = grammar else { return Ok(None) };
    if matches!(start, AnswerStart::WithinText | AnswerStart::WithinReasoning) {
        let message = "an answer that the client began cannot be held to a format or to tool calls";
        return Err(ProtocolError::unsupported("messages", message));
    }
    let tokenizer = encoder.tokenizer();
    let sleeps = start == AnswerStart::Reasoning;
    let special = |spelling| tokenizer.special_id(spelling);
    Ok(Some(ConstraintSpec {
        grammar,
        dormant_until: special("</think>").filter(|_| sleeps),
        forbidden_while_dormant: if sleeps {
            [Some(tokenizer.eos_id()), special("｜DSML｜")]
                .into_iter()
                .flatten()
                .collect()
        } else {
            Vec::new()
        },
    }))
}

fn of_format(format: &AnswerFormat) -> Option<Grammar> {
    match format {
        AnswerFormat::Text => None,
        AnswerFormat::JsonObject => Some(Grammar::JsonSchema(json!({"type": "object"}))),
        AnswerFormat::JsonSchema(schema) => Some(Grammar::JsonSchema(schema.clone())),
        AnswerFormat::Regex(regex) => Some(Grammar::Regex(regex.clone())),
        AnswerFormat::Lark(grammar) => Some(Grammar::Lark(grammar.clone())),
    }
}

fn with_tools(call: &Call, dialogue: &Dialogue, encoder: &PromptEncoder) -> Result<Option<Grammar>, ProtocolError> {
    let strict = dialogue.tools.iter().any(|tool| tool.is_strict());
    let text = match (&dialogue.selection, &call.format) {
        (ToolSelection::Required | ToolSelection::Among(_), _) => dsml::Text::Nothing,
        (_, AnswerFormat::Text) if strict || !dialogue.parallel_calls => dsml::Text::Anything,
        (_, AnswerFormat::Text) => return Ok(None),
        (_, AnswerFormat::Lark(_)) => {
            let message = "a grammar cannot be combined with tools that may be called; set tool_choice to none";
            return Err(ProtocolError::unsupported("response_format", message));
        }
        (_, format) => match of_format(format) {
            Some(Grammar::JsonSchema(schema)) => dsml::Text::Json(schema),
            Some(Grammar::Regex(regex)) => dsml::Text::Regex(regex),
            Some(Grammar::Lark(_)) | None => dsml::Text::Anything,
        },
    };
    dsml::grammar(dialogue, &text, encoder).map(|grammar| Some(Grammar::Lark(grammar)))
}
