//! `POST /v1/chat/completions` of OpenAI, with `reasoning_content` as DeepSeek and others have it.

mod request;
pub(crate) mod response;

pub(crate) use request::parse;
