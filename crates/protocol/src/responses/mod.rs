//! `POST /v1/responses` of OpenAI.

mod custom;
mod items;
mod request;
pub(crate) mod response;

pub(crate) use request::parse;
