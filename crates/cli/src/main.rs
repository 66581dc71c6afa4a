//! The `cachalot` command: argument parsing and glue between the crates.
//!
//! | module | holds |
//! | --- | --- |
//! | `arguments` | the command line; options that several commands share are in `model_choice`, `compute`, `sampling` |
//! | `commands` | one file a command |
//! | `location`, `built_in`, `fetch` | from the name of a model to its files |
//! | `memory` | how much of it a model may use |
//! | `loading`, `texts` | from files to an engine, and to a tokenizer with its prompt format |
//! | `answering`, `printer` | one answer, and how it is shown |
//! | `interrupt`, `progress`, `terminal`, `numbers`, `table`, `machine` | Ctrl-C, progress bars, colours, how numbers are read and written, tables, this machine's memory |
//! | `error` | everything that ends a command early, as one sentence with the remedy |
//!
//! Answers go to standard output, everything else to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage,
//! 130 interrupted.

mod answering;
mod arguments;
mod built_in;
mod commands;
mod compute;
mod error;
mod fetch;
mod generation_config;
mod interrupt;
mod loading;
mod location;
mod machine;
mod memory;
mod model_choice;
mod numbers;
mod printer;
mod progress;
mod sampling;
mod table;
mod terminal;
mod texts;

use std::process::ExitCode;

fn main() -> ExitCode {
    match commands::run(arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}
