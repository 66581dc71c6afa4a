//! Conversations to prompts: the text and the token ids that go into the model.

use std::ops::Range;

use deepseek_recipe_core::conversation::Conversation;
use deepseek_recipe_core::messages::InputMessage as Message;
use deepseek_recipe_core::special_tokens::SpecialToken;
use deepseek_recipe_core::tools::ToolChoice;

use crate::conversation::{number_tool_calls, settle_reasoning};
use crate::format::PromptFormat;
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Why no prompt could be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PromptError {
    /// The tokenizer failed.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A message carries an image.
    #[error(
        "message {message_index} of the conversation has an image; only text is supported, send a description instead"
    )]
    Image {
        /// Place of the message, from 0.
        message_index: usize,
    },
    /// A message that the model is to go on with is not the last one.
    #[error("message {message_index} of the conversation is the beginning of an answer, but other messages follow it")]
    PrefixNotLast {
        /// Place of the message, from 0.
        message_index: usize,
    },
    /// The release's format has no words for something in the conversation, or this version does not know them.
    #[error("prompts of this model cannot have {what}; leave them out")]
    NotInFormat {
        /// What it is.
        what: &'static str,
    },
    /// A tool call is required and thinking is on, which the format cannot express: the call would begin inside the
    /// reasoning.
    #[error("a required tool call cannot be combined with thinking; turn thinking off or let the model choose")]
    RequiredToolWithThinking,
}

/// Where in an answer the model's first token is: what [`AnswerParser`](crate::AnswerParser) has to know of the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AnswerStart {
    /// At the beginning of the reasoning, after `<think>`.
    Reasoning,
    /// At the beginning of the text, after `</think>`.
    Text,
    /// Inside a block of tool calls that the prompt opened.
    ToolCalls,
    /// Within reasoning that the prompt began.
    WithinReasoning,
    /// Within text that the prompt began.
    WithinText,
    /// Anywhere: the prompt is no conversation, and everything is text.
    Completion,
}

/// What goes into the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The prompt with special tokens spelled out, for people to read; encoding it again need not give `ids`.
    pub text: String,
    /// The token ids.
    pub ids: Vec<u32>,
    /// Where the answer begins.
    pub answer_start: AnswerStart,
}

/// Gives the token ids of the earlier answer that is the message at a place, after the ids before it; see
/// [`PromptEncoder::conversation_with_turns`].
pub type SampledTurn<'a> = dyn FnMut(usize, &[u32]) -> Option<Vec<u32>> + 'a;

/// Builds the prompts of one release.
#[derive(Debug, Clone)]
pub struct PromptEncoder {
    tokenizer: Tokenizer,
    format: PromptFormat,
}

impl PromptEncoder {
    /// An encoder of prompts in `format` with the ids of `tokenizer`.
    ///
    /// # Errors
    /// [`TokenizerError::MissingSpecialTokens`] names the tokens of the format that the tokenizer lacks.
    pub fn new(tokenizer: Tokenizer, format: PromptFormat) -> Result<Self, TokenizerError> {
        let spellings = format.special_tokens().iter().map(|token| token.default_str());
        let names: Vec<String> = spellings
            .filter(|spelling| tokenizer.special_id(spelling).is_none())
            .map(str::to_owned)
            .collect();
        if names.is_empty() {
            Ok(Self { tokenizer, format })
        } else {
            Err(TokenizerError::MissingSpecialTokens { names })
        }
    }

    /// The prompt that asks for the next answer of `conversation`.
    ///
    /// * `thinking_mode` decides between `<think>` and `</think>` at the end; `reasoning_effort: None` means the
    ///   release's own default.
    /// * Only text of the format becomes special tokens; `<｜User｜>` in a message stays text.
    /// * The reasoning of earlier answers is left out, unless tools are offered.
    /// * Results of tools come in the order of the calls.
    ///
    /// # Errors
    /// See [`PromptError`].
    pub fn conversation(&self, conversation: &Conversation) -> Result<Prompt, PromptError> {
        self.conversation_with_turns(conversation, &mut |_, _| None)
    }

    /// As [`conversation`](Self::conversation), with the token ids of earlier answers as they were sampled.
    ///
    /// `turn` is asked once for each earlier answer, oldest first, with the place of its message and the ids before
    /// it, `<｜Assistant｜>` included. It gives the ids of the whole answer from `<think>` or `</think>` to the end of
    /// the sentence, or `None` to have the message rendered. Texts have many spellings in tokens, and tool calls many
    /// in markup; only the sampled ones are in the model's memory. `text` is of the rendered messages always.
    ///
    /// # Errors
    /// See [`PromptError`].
    pub fn conversation_with_turns(
        &self,
        conversation: &Conversation,
        turn: &mut SampledTurn<'_>,
    ) -> Result<Prompt, PromptError> {
        check(conversation)?;
        if !self.format.has_tools() {
            check_plain(conversation)?;
        }
        let mut conversation = conversation.clone();
        // Places of messages as the caller counts them, before any move.
        let answers: Vec<(usize, bool)> = places_of_answers(&conversation);
        self.format.settle(&mut conversation);
        conversation.reasoning_effort = self.format.rendered_effort(conversation.reasoning_effort);
        number_tool_calls(&mut conversation.messages);
        settle_reasoning(&mut conversation);
        let rendered = self.format.render(&conversation);
        let mut answers = answers.into_iter();
        let mut next_turn = |ids: &[u32]| match answers.next()? {
            // What was sampled holds reasoning, which these formats leave out, or has no marker of it to begin with.
            _ if matches!(self.format, PromptFormat::V3 | PromptFormat::R1) => None,
            (_, true) => None,
            (message_index, false) => turn(message_index, ids),
        };
        Ok(Prompt {
            ids: self.encode(&rendered.prompt, &rendered.special_ranges, &mut next_turn)?,
            text: rendered.prompt,
            answer_start: answer_start(&conversation),
        })
    }

    /// The prompt for going on with a plain text: the begin-of-sentence token and the text.
    ///
    /// # Errors
    /// [`TokenizerError::PieceTooLong`] and [`TokenizerError::Encode`] when the text cannot be cut into tokens.
    pub fn completion(&self, text: &str) -> Result<Prompt, TokenizerError> {
        let mut ids = vec![self.tokenizer.bos_id()];
        ids.extend(self.tokenizer.encode_plain(text)?);
        Ok(Prompt {
            text: format!("{}{text}", SpecialToken::Bos.default_str()),
            ids,
            answer_start: AnswerStart::Completion,
        })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Encodes the special ranges as special tokens and the text between them as plain text.
    ///
    /// The renderer marks grounding tokens (`<｜ref｜>`, ...) in earlier answers as special; a vocabulary without
    /// them, as V4's, takes them as the text that they are there. All others are known to exist.
    fn encode(
        &self,
        text: &str,
        special_ranges: &[Range<usize>],
        next_turn: &mut dyn FnMut(&[u32]) -> Option<Vec<u32>>,
    ) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        let mut plain_start = 0;
        let mut ranges = special_ranges.iter();
        while let Some(range) = ranges.next() {
            let spelling = &text[range.clone()];
            if let Some(id) = self.tokenizer.special_id(spelling) {
                ids.extend(self.tokenizer.encode_plain(&text[plain_start..range.start])?);
                ids.push(id);
                plain_start = range.end;
                // Only the template writes these two, one pair for each answer.
                if spelling == SpecialToken::Assistant.default_str()
                    && let Some(turn) = next_turn(&ids)
                {
                    ids.extend(turn);
                    let end = ranges.find(|range| text[(*range).clone()] == *SpecialToken::Eos.default_str());
                    plain_start = end.map_or(text.len(), |range| range.end);
                }
            } else if spelling == SpecialToken::LatestReminder.default_str() {
                return Err(TokenizerError::MissingSpecialTokens {
                    names: vec![spelling.to_owned()],
                });
            }
        }
        ids.extend(self.tokenizer.encode_plain(&text[plain_start..])?);
        Ok(ids)
    }

    /// The format of the prompts.
    pub fn format(&self) -> PromptFormat {
        self.format
    }
}

fn check(conversation: &Conversation) -> Result<(), PromptError> {
    for (message_index, message) in conversation.messages.iter().enumerate() {
        match message {
            Message::System { image_sources, .. }
            | Message::User { image_sources, .. }
            | Message::Tool { image_sources, .. }
                if !image_sources.is_empty() =>
            {
                return Err(PromptError::Image { message_index });
            }
            Message::Assistant { prefix: true, .. } if message_index + 1 < conversation.messages.len() => {
                return Err(PromptError::PrefixNotLast { message_index });
            }
            _ => {}
        }
    }
    if requires_tool(conversation) && conversation.thinking_mode {
        return Err(PromptError::RequiredToolWithThinking);
    }
    Ok(())
}

/// Refuses what formats without tools cannot express.
fn check_plain(conversation: &Conversation) -> Result<(), PromptError> {
    let offers_tools = conversation.tool_choice != ToolChoice::None && !conversation.tools.is_empty();
    let has_calls = conversation.messages.iter().any(|message| match message {
        Message::Assistant { tool_calls, .. } => tool_calls.as_ref().is_some_and(|calls| !calls.is_empty()),
        Message::Tool { .. } => true,
        _ => false,
    });
    if offers_tools || has_calls {
        return Err(PromptError::NotInFormat { what: "tools" });
    }
    let is_reminder = |message: &Message| matches!(message, Message::LatestReminder { .. });
    match conversation.messages.iter().any(is_reminder) {
        true => Err(PromptError::NotInFormat { what: "reminders" }),
        false => Ok(()),
    }
}

/// The places of answers, and whether the model is to go on with them.
fn places_of_answers(conversation: &Conversation) -> Vec<(usize, bool)> {
    let messages = conversation.messages.iter().enumerate();
    messages
        .filter_map(|(place, message)| match message {
            Message::Assistant { prefix, .. } => Some((place, *prefix)),
            _ => None,
        })
        .collect()
}

/// Whether the prompt ends with the opening of a block of tool calls.
fn requires_tool(conversation: &Conversation) -> bool {
    conversation.tool_choice == ToolChoice::Required && !conversation.tools.is_empty()
}

fn answer_start(conversation: &Conversation) -> AnswerStart {
    if requires_tool(conversation) {
        return AnswerStart::ToolCalls;
    }
    match conversation.messages.last() {
        Some(Message::Assistant {
            prefix: true, content, ..
        }) => {
            if conversation.thinking_mode && content.is_empty() {
                AnswerStart::WithinReasoning
            } else {
                AnswerStart::WithinText
            }
        }
        _ if conversation.thinking_mode => AnswerStart::Reasoning,
        _ => AnswerStart::Text,
    }
}
