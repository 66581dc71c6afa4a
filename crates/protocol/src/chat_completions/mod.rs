//! `POST /v1/chat/completions` of OpenAI, with `reasoning_content` as DeepSeek and others have it.

mod request;
pub(crate) mod response;

pub(crate) use request::{NO_VISION, allowed_tools, check_selection, function_tool, openai_text_format, parse};
