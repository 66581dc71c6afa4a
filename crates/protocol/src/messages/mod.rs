//! `POST /v1/messages` of Anthropic.

mod request;
pub(crate) mod response;

pub(crate) use request::parse;
