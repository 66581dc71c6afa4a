//! Downloads from a hub that the tests run themselves, with all its bad days.

mod downloads;
mod fake;
mod interruptions;
mod refusals;
mod server;
mod together;
