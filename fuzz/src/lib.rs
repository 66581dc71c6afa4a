//! What the fuzz targets call.
//!
//! `cargo +nightly fuzz run TARGET -- -dict=fuzz/json.dict -max_total_time=600` (from the repository's root)
//! runs a target; `cargo run --example seeds` (in this folder) writes the seeds of the corpora again. Findings go into the
//! corpus. The checkpoint crate runs every corpus file through the same functions as a normal test.

pub mod checkpoint_readers;
pub mod protocols;
