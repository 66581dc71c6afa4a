//! The HTTP side over a scripted backend, seen as raw bytes.

mod life;
mod load;
mod refusals;
mod streams;
mod support;
