//! Conversations: DeepSeek's own types, and short ways to make them.

use deepseek_recipe_core::conversation::{Conversation, ReasoningEffort};
use deepseek_recipe_core::messages::{InputMessage as Message, ToolCall};
use deepseek_recipe_core::prompt::Prompt as Content;
use deepseek_recipe_core::tools::ToolChoice;

/// Whether the model thinks before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Thinking {
    /// It answers at once.
    #[default]
    Off,
    /// It thinks, as hard as the release does when nothing is asked for (V4: no effort paragraph, V4.1: 75 of 100).
    On,
    /// It thinks with the stated effort.
    Effort(ReasoningEffort),
}

/// A conversation of `messages` without tools that expects text.
///
/// ```
/// use cachalot_chat::{Thinking, conversation, message};
/// let asked = conversation(vec![message::system("Be brief."), message::user("Hi")], Thinking::On);
/// assert!(asked.thinking_mode && asked.tools.is_empty());
/// ```
pub fn conversation(messages: Vec<Message>, thinking: Thinking) -> Conversation {
    Conversation {
        messages,
        thinking_mode: thinking != Thinking::Off,
        reasoning_effort: match thinking {
            Thinking::Effort(effort) => Some(effort),
            Thinking::Off | Thinking::On => None,
        },
        ..Conversation::default()
    }
}

/// Messages of plain text. Special tokens that the text spells stay text.
pub mod message {
    use super::{Content, Message, ToolCall};

    /// Instructions to the model.
    pub fn system(text: impl Into<String>) -> Message {
        Message::System {
            content: Content::plain(text),
            image_sources: Vec::new(),
            tools: None,
        }
    }

    /// What the user says.
    pub fn user(text: impl Into<String>) -> Message {
        Message::User {
            content: Content::plain(text),
            image_sources: Vec::new(),
        }
    }

    /// An earlier answer: what was thought (if anything), said, and called.
    pub fn assistant(reasoning: Option<String>, text: impl Into<String>, tool_calls: Vec<ToolCall>) -> Message {
        Message::Assistant {
            content: text.into(),
            reasoning_content: reasoning,
            tool_calls: (!tool_calls.is_empty()).then_some(tool_calls),
            prefix: false,
        }
    }

    /// The beginning of an answer that the model is to go on with; always the last message.
    pub fn answer_prefix(reasoning: Option<String>, text: impl Into<String>) -> Message {
        Message::Assistant {
            content: text.into(),
            reasoning_content: reasoning,
            tool_calls: None,
            prefix: true,
        }
    }

    /// What the tool call `tool_call_id` gave.
    pub fn tool_result(tool_call_id: impl Into<String>, text: impl Into<String>) -> Message {
        Message::Tool {
            content: Content::plain(text),
            image_sources: Vec::new(),
            tool_call_id: Some(tool_call_id.into()),
        }
    }
}

/// Renames the ids of tool calls and of their results so that sorting by id is sorting by the order of the calls.
///
/// The V4 renderer sorts both by id, which is the order of the calls only for ids like its own. Ids never reach the
/// prompt, so clients may use any. A result whose id fits no call keeps its place.
pub(crate) fn number_tool_calls(messages: &mut [Message]) {
    let mut rest = messages;
    while let Some((first, following)) = rest.split_first_mut() {
        rest = following;
        let Message::Assistant {
            tool_calls: Some(calls),
            ..
        } = first
        else {
            continue;
        };
        let results = rest.iter_mut().map_while(|message| match message {
            Message::Tool { tool_call_id, .. } => Some(tool_call_id),
            _ => None,
        });
        for (place, id) in results.enumerate() {
            let order = id.as_ref().and_then(|id| calls.iter().position(|call| call.id == *id));
            *id = Some(sortable(order.unwrap_or(place)));
        }
        for (order, call) in calls.iter_mut().enumerate() {
            call.id = sortable(order);
        }
    }
}

/// Makes the reasoning of earlier answers what the releases' own encoders make of it.
///
/// They write none when thinking is off, and an empty one for an answer without any when it is on and tools are
/// offered. The renderer would write the first, and leave the second out. Without tools it drops all by itself.
pub(crate) fn settle_reasoning(conversation: &mut Conversation) {
    let offers_tools = conversation.tool_choice != ToolChoice::None && !conversation.tools.is_empty();
    for message in &mut conversation.messages {
        if let Message::Assistant {
            reasoning_content,
            prefix: false,
            ..
        } = message
        {
            if !conversation.thinking_mode {
                *reasoning_content = None;
            } else if offers_tools {
                reasoning_content.get_or_insert_default();
            }
        }
    }
}

fn sortable(order: usize) -> String {
    format!("{order:020}")
}
