//! Calls to prompts.

use cachalot_chat::{
    AnswerStart, Conversation, Message, PromptEncoder, ResponseFormat, Thinking, ToolChoice, conversation, message,
};

use crate::call::{AnswerFormat, Call, Dialogue, Input, ToolSelection};
use crate::constraint::{self, ConstraintSpec};
use crate::error::{ErrorKind, ProtocolError};
use crate::replay::{Lookup, ReplayStore, TurnStart};

/// Turns calls into what the engine takes.
#[derive(Debug, Clone)]
pub struct Preparer {
    encoder: PromptEncoder,
    options: PrepareOptions,
}

/// What prompts depend on besides the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrepareOptions {
    /// Most tokens of prompt and answer together.
    pub context_token_count: usize,
    /// How to think when the client says nothing. DeepSeek's own service thinks; Anthropic's protocol never thinks
    /// unasked, whatever stands here.
    pub thinking: Thinking,
}

/// What goes into the engine.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The prompt.
    pub ids: Vec<u32>,
    /// The prompt as people read it, for logs; of replayed answers the rendered text.
    pub text: String,
    /// Most tokens of each answer; what the client asked for, or what the context leaves. At least 1.
    pub token_count_max: usize,
    /// Tokens that end an answer.
    pub stop_tokens: Vec<u32>,
    /// What each answer has to be like.
    pub constraint: Option<ConstraintSpec>,
    /// How many earlier answers went in as they were sampled.
    pub replayed_count: usize,
    /// Where other prompts are likely to go on differently: after the system prompt and its tools, and before the last
    /// message. Numbers of tokens, ascending.
    pub borders: Vec<usize>,
    pub(crate) answer_start: AnswerStart,
    pub(crate) turn: Option<TurnStart>,
}

impl Preparer {
    /// A preparer of prompts by `encoder`.
    pub fn new(encoder: PromptEncoder, options: PrepareOptions) -> Self {
        Self { encoder, options }
    }

    /// The encoder of prompts.
    pub fn encoder(&self) -> &PromptEncoder {
        &self.encoder
    }

    /// The prompt of `call`, with earlier answers as `store` has them. `scope` keeps the answers of different users
    /// apart, for example the name of the API key.
    ///
    /// # Errors
    /// The prompt fills the context, has a token that the model has not, or cannot be cut into tokens; a tool's
    /// schema cannot be enforced.
    pub fn prepare(&self, call: &Call, store: &ReplayStore, scope: &str) -> Result<Prepared, ProtocolError> {
        let (prompt, replayed_count) = self.prompt(call, store, scope)?;
        let context = self.options.context_token_count;
        let left = context.saturating_sub(prompt.ids.len());
        if left == 0 {
            let message = format!(
                "the prompt has {} tokens, but the context holds {context} with the answer; shorten the conversation",
                prompt.ids.len()
            );
            return Err(ProtocolError::new(ErrorKind::ContextTooLong, message));
        }
        let constraint = constraint::build(call, call.dialogue(), &self.encoder, prompt.answer_start)?;
        Ok(Prepared {
            token_count_max: call.token_count_max.unwrap_or(left).min(left),
            stop_tokens: vec![self.encoder.tokenizer().eos_id()],
            constraint,
            replayed_count,
            borders: self.borders(&prompt.ids),
            turn: TurnStart::new(scope, &prompt, self.encoder.tokenizer()),
            answer_start: prompt.answer_start,
            ids: prompt.ids,
            text: prompt.text,
        })
    }

    /// The tokens of the prompt alone, of any number: for `count_tokens` and `/tokenize`.
    ///
    /// # Errors
    /// The prompt cannot be cut into tokens, or has one that the model has not.
    pub fn prompt_tokens(&self, call: &Call, store: &ReplayStore, scope: &str) -> Result<Vec<u32>, ProtocolError> {
        Ok(self.prompt(call, store, scope)?.0.ids)
    }

    /// The prompt, and how many earlier answers went in as they were sampled.
    fn prompt(
        &self,
        call: &Call,
        store: &ReplayStore,
        scope: &str,
    ) -> Result<(cachalot_chat::Prompt, usize), ProtocolError> {
        let dialogue = match &call.input {
            Input::Dialogue(dialogue) => dialogue,
            Input::Text(text) => return Ok((self.encoder.completion(text)?, 0)),
            Input::Tokens(ids) => return Ok((self.tokens(ids)?, 0)),
        };
        let conversation = self.conversation(call, dialogue);
        let mut lookup = Lookup::new(store, scope, &conversation);
        let tokenizer = self.encoder.tokenizer();
        let mut turn = |index: usize, ids: &[u32]| lookup.turn(index, ids, tokenizer);
        let prompt = self.encoder.conversation_with_turns(&conversation, &mut turn)?;
        Ok((prompt, lookup.found_count()))
    }

    /// Two, because each costs a copy of the sequence's tails in the prefix cache.
    fn borders(&self, ids: &[u32]) -> Vec<usize> {
        let user = self.encoder.tokenizer().special_id("<｜User｜>");
        let is_user = |id: &u32| Some(*id) == user;
        let first = ids.iter().position(is_user);
        let last = ids.iter().rposition(is_user);
        let mut borders: Vec<usize> = first.into_iter().chain(last).filter(|border| *border > 0).collect();
        borders.dedup();
        borders
    }

    fn tokens(&self, ids: &[u32]) -> Result<cachalot_chat::Prompt, ProtocolError> {
        let tokenizer = self.encoder.tokenizer();
        let size = tokenizer.vocabulary_size();
        if let Some(id) = ids.iter().find(|id| **id as usize >= size) {
            let message = format!("has the token {id}, but the vocabulary has {size}");
            return Err(ProtocolError::invalid("prompt", message));
        }
        if ids.is_empty() {
            return Err(ProtocolError::invalid("prompt", "is empty"));
        }
        Ok(cachalot_chat::Prompt {
            text: tokenizer.decode(ids),
            ids: ids.to_vec(),
            answer_start: AnswerStart::Completion,
        })
    }

    fn conversation(&self, call: &Call, dialogue: &Dialogue) -> Conversation {
        let mut messages: Vec<Message> = dialogue.instructions.iter().map(message::system).collect();
        messages.extend(dialogue.messages.iter().cloned());
        let thinking = dialogue.thinking.unwrap_or(match call.protocol {
            crate::Protocol::Messages => Thinking::Off,
            _ => self.options.thinking,
        });
        let mut conversation = conversation(messages, thinking);
        conversation.tools = dialogue.tools.iter().map(|tool| tool.definition.clone()).collect();
        // Required calls are the constraint's business, which also waits for the reasoning to end.
        conversation.tool_choice = match dialogue.selection {
            ToolSelection::None => ToolChoice::None,
            ToolSelection::Auto | ToolSelection::Required | ToolSelection::Among(_) => ToolChoice::Auto,
        };
        conversation.response_format = match &call.format {
            AnswerFormat::JsonObject => ResponseFormat::JsonObject,
            AnswerFormat::JsonSchema(schema) => ResponseFormat::JsonSchema(schema.clone()),
            AnswerFormat::Regex(regex) => ResponseFormat::Regex(regex.clone()),
            AnswerFormat::Text | AnswerFormat::Lark(_) => ResponseFormat::Text,
        };
        conversation
    }
}
