//! `POST /v1/completions` of OpenAI: plain text goes on.

mod request;
pub(crate) mod response;

pub(crate) use request::parse;
