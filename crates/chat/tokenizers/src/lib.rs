//! The `tokenizers` crate built from Rust alone: no C compiler, no downloader, no progress bars.
//!
//! It holds no code. The manifest says why it exists.

pub use pure::*;
