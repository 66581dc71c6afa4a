//! The commands, one file each.

pub mod bench;
pub mod bench_serve;
pub mod chat;
pub mod chips;
pub mod convert;
pub mod distance;
pub mod download;
pub mod eval;
pub mod inspect;
pub mod plan;
pub mod run;
pub mod score;
pub mod serve;
pub mod synth;

use std::{
    io::{Write, stdout},
    path::Path,
};

use crate::{
    arguments::{Arguments, Command, WELCOME},
    error::Error,
    interrupt,
};

pub fn run(arguments: Arguments) -> Result<(), Error> {
    interrupt::listen();
    match arguments.command {
        None => print(WELCOME),
        Some(Command::Run(arguments)) => run::run(&arguments),
        Some(Command::Chat(arguments)) => chat::run(&arguments),
        Some(Command::Serve(arguments)) => serve::run(&arguments),
        Some(Command::Inspect(arguments)) => inspect::run(&arguments),
        Some(Command::Download(arguments)) => download::run(&arguments),
        Some(Command::Score(arguments)) => score::run(&arguments),
        Some(Command::Distance(arguments)) => distance::run(&arguments),
        Some(Command::Eval(arguments)) => eval::run(&arguments),
        Some(Command::Bench(arguments)) => bench::run(&arguments),
        Some(Command::BenchServe(arguments)) => bench_serve::run(&arguments),
        Some(Command::Synth(arguments)) => synth::run(&arguments),
        Some(Command::Convert(arguments)) => convert::run(&arguments),
        Some(Command::Chips(arguments)) => chips::run(&arguments),
        Some(Command::Plan(arguments)) => plan::run(&arguments),
    }
}

/// Writes a line to standard output.
fn print(line: &str) -> Result<(), Error> {
    writeln!(stdout(), "{line}").map_err(Error::Output)
}

/// Writes JSON to standard output, for scripts.
fn print_json(value: &serde_json::Value) -> Result<(), Error> {
    print(&format!("{value:#}"))
}

/// Bytes from outside as text.
fn utf8(bytes: Vec<u8>, what: &str) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|error| {
        let position = error.utf8_error().valid_up_to();
        Error::NotUtf8 {
            what: what.to_owned(),
            position,
            byte: error.as_bytes()[position],
        }
    })
}

/// A text file, whole.
fn read_text(path: &Path) -> Result<String, Error> {
    let what = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| Error::Read {
        what: what.clone(),
        source,
    })?;
    utf8(bytes, &what)
}
