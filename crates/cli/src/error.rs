//! Everything that ends a command early.

use std::{error::Error as _, io, path::PathBuf, process::ExitCode};

use crate::{numbers::bytes, terminal};

/// Why a command ended early. Each message says what was wrong and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Checkpoint(#[from] cachalot_checkpoint::Error),
    #[error(transparent)]
    Hub(#[from] cachalot_hub::Error),
    #[error(transparent)]
    Model(#[from] cachalot_model::Error),
    #[error(transparent)]
    Engine(#[from] cachalot_engine::Error),
    #[error(transparent)]
    Server(#[from] cachalot_server::Error),
    #[error(transparent)]
    Planner(#[from] cachalot_planner::Error),
    #[error(transparent)]
    Prompt(#[from] cachalot_chat::PromptError),
    /// tokenizer.json of a model is damaged or belongs to another one.
    #[error("{place}: {source}")]
    Tokenizer {
        place: String,
        source: cachalot_chat::TokenizerError,
    },
    #[error(
        "{place} has no tokenizer.json, so text cannot become tokens; copy it from the model's release, or give token \
         ids to `cachalot score --tokens`"
    )]
    TokenizerMissing { place: String },
    #[error("{place}/generation_config.json: {reason}; correct or remove the file")]
    GenerationConfig { place: String, reason: String },
    /// `--model` names neither a folder nor anything known.
    #[error("there is no folder '{name}' and it is no model name such as organisation/name; {remedy}")]
    ModelUnknown { name: String, remedy: String },
    #[error("{name} is not supported: {reason}")]
    ModelRefused { name: String, reason: &'static str },
    #[error("{name} is not on this machine{size}; get it with `cachalot download {name}`, or repeat with --yes")]
    NotDownloaded { name: String, size: String },
    #[error("nothing was downloaded; `cachalot inspect {name}` tells what the model would need")]
    DownloadDeclined { name: String },
    #[error(
        "{name} is neither on this machine nor among the published models (the nearest are {nearest}); check the \
         spelling, or get it with `cachalot download ORGANISATION/NAME`"
    )]
    NotPublished { name: String, nearest: String },
    #[error("{name} has no weights on this machine that could be verified; name the folder of a downloaded model")]
    NothingToVerify { name: String },
    #[error("cannot read {what}: {source}")]
    Read { what: String, source: io::Error },
    #[error("cannot write {path}: {source}", path = path.display())]
    Write { path: PathBuf, source: io::Error },
    /// Standard output failed; a closed pipe is no failure.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    #[error("{what} is not UTF-8: byte {position} is 0x{byte:02x}; convert it, for example with iconv -t UTF-8")]
    NotUtf8 { what: String, position: usize, byte: u8 },
    #[error("{what} has more than {limit_bytes} bytes; give a shorter text")]
    TooLarge { what: String, limit_bytes: u64 },
    #[error(
        "there is no prompt; try `cachalot run \"Tell me a story about a fox\"`, pipe a text in, or start `cachalot chat`"
    )]
    PromptMissing,
    #[error("--context {} is more than the {} tokens that the model was made for; ask for less", grouped(*.wanted), grouped(*.limit))]
    Context { wanted: usize, limit: usize },
    /// `--memory` is too little.
    #[error(
        "{} of memory are too little: weights that every token uses take {}, the context's state and workspace {}, the \
         program and its buffers {}, {expert_count} experts at once {}; give at least --memory {needed_mebibytes}MiB, or \
         less --context or --chunk",
        bytes(*.limit), bytes(*.weights), bytes(*.states), bytes(*.program), bytes(*.experts)
    )]
    Memory {
        limit: u64,
        weights: u64,
        states: u64,
        program: u64,
        expert_count: usize,
        experts: u64,
        needed_mebibytes: u64,
    },
    /// A line of an input file is not what it should be.
    #[error("{file}:{line}: {reason}; {remedy}")]
    Line {
        file: String,
        line: usize,
        reason: String,
        remedy: &'static str,
    },
    #[error("{file} holds no {what}; {remedy}")]
    Empty {
        file: String,
        what: &'static str,
        remedy: &'static str,
    },
    /// The logits given to `--against` do not belong to the texts.
    #[error("{file}: {reason}; make it with `cachalot score --logits` from the same lines and vocabulary")]
    Against { file: String, reason: String },
    /// A plan that cannot be carried out; what was found has been shown.
    #[error("nothing fits; the smallest change that would: {remedy}")]
    NothingFits { remedy: String },
    /// The file given to `bench --compare`.
    #[error("{file}: {reason}; give a file that `cachalot bench --json FILE` wrote")]
    BenchFile { file: String, reason: String },
    /// The server that `bench-serve` starts ended before it served.
    #[error("the server did not start: {reason}")]
    ServerStart { reason: String },
    /// What `bench-serve` asked for was not answered as it should be; the report has been shown.
    #[error("the server did not keep its promises: {what}")]
    BadServer { what: String },
    #[error("the terminal cannot be read: {0}")]
    LineEditor(#[from] rustyline::error::ReadlineError),
    /// The user pressed Ctrl-C; what was possible until then has been shown.
    #[error("interrupted{remedy}")]
    Interrupted { remedy: String },
}

impl Error {
    /// Ctrl-C where there is nothing to add.
    pub fn interrupted() -> Self {
        Error::Interrupted { remedy: String::new() }
    }

    /// Tells the user and gives the exit code.
    pub fn report(&self) -> ExitCode {
        if let Error::Output(source) = self
            && source.kind() == io::ErrorKind::BrokenPipe
        {
            // The reader, `head` for example, has had enough.
            return ExitCode::SUCCESS;
        }
        eprintln!("{} {}", terminal::error_label(), self.sentence());
        match self {
            Error::Interrupted { .. } => ExitCode::from(130),
            _ => ExitCode::FAILURE,
        }
    }

    /// The message and those causes that it does not tell already.
    pub fn sentence(&self) -> String {
        let mut sentence = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !sentence.contains(&text) {
                sentence.push_str(": ");
                sentence.push_str(&text);
            }
            cause = error.source();
        }
        sentence
    }
}

impl From<cachalot_chip::Error> for Error {
    fn from(error: cachalot_chip::Error) -> Self {
        Error::Model(error.into())
    }
}

fn grouped(count: usize) -> String {
    crate::numbers::grouped(count as u64)
}
