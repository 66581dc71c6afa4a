//! Text in and out of the model.
//!
//! | type | does |
//! | --- | --- |
//! | [`Tokenizer`] | loads `tokenizer.json`, turns text into token ids and back; [`StreamDecoder`] does so id by id |
//! | [`PromptEncoder`] | turns a [`Conversation`] into the [`Prompt`] of a release's [`PromptFormat`] |
//! | [`AnswerParser`] | turns the answer's token ids into [`Event`]s: reasoning, text, tool calls; [`Answer`] collects them |
//!
//! Conversations, messages and tools are DeepSeek's own types, and DeepSeek's own renderer writes the prompt text.
//! This crate must not know chips, models, HTTP or terminals.
//!
//! ```
//! use cachalot_chat::{PromptEncoder, PromptFormat, Thinking, Tokenizer, conversation, message};
//!
//! let json = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny/tokenizer.json"))?;
//! let encoder = PromptEncoder::new(Tokenizer::from_bytes(&json, 2048)?, PromptFormat::V4)?;
//! let prompt = encoder.conversation(&conversation(vec![message::user("Hi")], Thinking::Off))?;
//! assert_eq!(prompt.text, "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜></think>");
//! assert_eq!(encoder.tokenizer().decode(&prompt.ids), prompt.text);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answer;
mod before_v31;
mod byte_level;
mod conversation;
mod format;
mod prompt;
mod tokenizer;
mod utf8_stream;

pub use answer::{Answer, AnswerParser, Ending, Event, FinishReason, Irregularity, Section};
pub use conversation::{Thinking, conversation, message};
pub use deepseek_recipe_core::conversation::{Conversation, ReasoningEffort, ResponseFormat};
pub use deepseek_recipe_core::messages::{InputMessage as Message, ToolCall};
pub use deepseek_recipe_core::tools::{ToolChoice, ToolDefinition};
pub use format::PromptFormat;
pub use prompt::{AnswerStart, Prompt, PromptEncoder, PromptError, SampledTurn};
pub use tokenizer::{StreamDecoder, Tokenizer, TokenizerError};
pub use utf8_stream::Utf8Stream;
