//! HTTP in front of a model: the protocols of OpenAI and Anthropic, metrics, health, a console page, and a load
//! generator.
//!
//! | item | role |
//! | --- | --- |
//! | [`Server`] | listens, serves, drains |
//! | [`ServerOptions`], [`Limits`], [`ApiKeys`] | who may ask for how much |
//! | [`Backend`](backend::Backend) | what answers; the HTTP side knows nothing else of models |
//! | [`ModelBackend`](model::ModelBackend) | the backend with a model of this process |
//! | [`Refusal`] | an error in each protocol's format |
//! | [`load::run`] | requests sent to a server, and what became of them |
//!
//! The life of a request: `connection` accepts, `routes` finds the handler, `gate` checks host, key and room, `body`
//! reads within bounds, the backend begins an answer on a thread for parsing, and `answering` turns the answer's parts
//! into one JSON body or into server-sent events, computed only as fast as the client reads.
//!
//! Only `model` knows prompts and tokens. This crate must not know chips.

mod answering;
pub mod backend;
mod body;
mod connection;
mod console;
mod error;
mod gate;
mod health;
mod keys;
pub mod load;
mod metrics;
pub mod model;
mod models;
mod openapi;
mod options;
mod outer;
mod refusal;
mod routes;
mod server;

pub use cachalot_protocol::Protocol;
pub use error::Error;
pub use keys::ApiKeys;
pub use models::is_served;
pub use options::{Limits, ServerOptions};
pub use refusal::Refusal;
pub use server::{Server, termination};
