//! The protocols of `/v1/chat/completions`, `/v1/completions`, `/v1/responses` and `/v1/messages`: bytes in, bytes out.
//!
//! | type | does |
//! | --- | --- |
//! | [`parse`] | turns the bytes of a request into a checked [`Call`], or a [`ProtocolError`] in the protocol's own format |
//! | [`Preparer`] | turns a call into token ids, with a [`ConstraintSpec`] where the answer is to be held to a form |
//! | [`AnswerEncoder`] | turns sampled tokens into [`Frame`]s of a stream, or one body |
//! | [`ReplayStore`] | keeps sampled answers, so that the next prompt begins with the same tokens |
//!
//! This crate must not know sockets, async run times, models or chips.
//!
//! ```
//! use cachalot_chat::{PromptEncoder, PromptFormat, Thinking, Tokenizer};
//! use cachalot_protocol::{
//!     AnswerEncoder, AnswerOptions, EndReason, Limits, PrepareOptions, Preparer, Protocol, ReplayStore, parse,
//! };
//!
//! let json = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny/tokenizer.json"))?;
//! let tokenizer = Tokenizer::from_bytes(&json, 2048)?;
//! let encoder = PromptEncoder::new(tokenizer.clone(), PromptFormat::V4)?;
//! let preparer = Preparer::new(encoder, PrepareOptions { context_token_count: 4096, thinking: Thinking::Off });
//! let replay = ReplayStore::new(1 << 20);
//!
//! let body = br#"{"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}"#;
//! let call = parse(Protocol::ChatCompletions, body, &Limits::default())?;
//! let prepared = preparer.prepare(&call, &replay, "nobody")?;
//! let options = AnswerOptions { id_suffix: "1".into(), created: 0, model: call.model.clone() };
//! let mut answer = AnswerEncoder::new(&call, &prepared, &tokenizer, options);
//! answer.start(0);
//! for token in tokenizer.encode_plain("Hello")? {
//!     answer.token(0, token, None, &[]);
//! }
//! answer.finish(0, EndReason::Stop);
//! assert_eq!(answer.body()["choices"][0]["message"]["content"], "Hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answer;
mod call;
mod chat_completions;
mod completions;
mod constraint;
mod error;
mod fields;
mod frame;
mod ids;
mod limits;
mod messages;
mod prepare;
mod replay;
mod responses;
mod settings;
mod tokens;
mod warning;

pub use answer::{AnswerEncoder, AnswerOptions, EndReason, Outcome, Usage};
pub use call::{
    AnswerFormat, Call, Dialogue, History, Input, Protocol, Sampling, Tool, ToolSelection, ToolShape, parse,
};
pub use constraint::{ConstraintSpec, Grammar};
pub use error::{ErrorKind, ProtocolError};
pub use frame::Frame;
pub use ids::unique_suffix;
pub use limits::Limits;
pub use prepare::{PrepareOptions, Prepared, Preparer};
pub use replay::ReplayStore;
pub use tokens::{
    ModelInfo, Tokenize, count_tokens_body, detokenize, model_body, models_body, parse_count_tokens, parse_tokenize,
    tokenize,
};
pub use warning::Warning;
