//! `cachalot inspect`: what a model is and what it costs.

mod report;

use std::path::Path;

use cachalot_checkpoint::{Checkpoint, ModelConfig, published};
use clap::Args;

use crate::{
    error::Error,
    location::{self, Known, Location},
    progress::LateBar,
};
use report::{Files, Report};

/// Tell a model's size and costs, from its headers or its name alone.
///
/// Works on a folder, on one with nothing but config.json, and on the names of the published models without any
/// network.
#[derive(Args, Debug)]
pub struct InspectArguments {
    /// Folder of a model, or its name, such as deepseek-ai/DeepSeek-V4-Flash [default: the built-in model]
    #[arg(value_name = "MODEL")]
    positional: Option<String>,

    /// The same as the argument MODEL
    #[arg(short = 'm', long = "model", value_name = "MODEL", conflicts_with = "positional")]
    named: Option<String>,

    /// Read all weights and look for values that no calculation can use
    #[arg(long)]
    verify: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &InspectArguments) -> Result<(), Error> {
    let name = arguments.positional.as_deref().or(arguments.named.as_deref());
    let mut report = match find(name)? {
        Subject::Here(location) => describe(&location)?,
        Subject::Published { name, text } => Report {
            config: ModelConfig::from_json(text, Path::new("config.json"))?,
            name,
            source: "the published configuration; the weights are not on this machine".to_owned(),
            files: None,
            verified: false,
        },
    };
    if arguments.verify {
        let Subject::Here(location) = find(name)? else {
            return Err(Error::NothingToVerify { name: report.name });
        };
        if report.files.is_none() {
            return Err(Error::NothingToVerify { name: report.name });
        }
        verify(&location.open()?)?;
        report.verified = true;
    }
    match arguments.json {
        true => super::print_json(&report.to_json()),
        false => super::print(&report.to_text()),
    }
}

enum Subject {
    Here(Location),
    Published { name: String, text: &'static str },
}

fn find(name: Option<&str>) -> Result<Subject, Error> {
    let published = |error: Error| {
        let name = name.unwrap_or_default();
        match published::config(name) {
            Some(text) => Ok(Subject::Published {
                name: name.to_owned(),
                text,
            }),
            None => Err(error),
        }
    };
    match location::look_up(name) {
        Ok(Known::Here(location)) => Ok(Subject::Here(location)),
        Ok(Known::Absent(repository)) => published(location::not_published(repository.as_str())),
        Err(error @ Error::ModelUnknown { .. }) => published(error),
        Err(error) => Err(error),
    }
}

fn describe(location: &Location) -> Result<Report, Error> {
    if let Location::Folder { path, name } = location
        && holds_only_a_configuration(path)
    {
        let file = path.join("config.json");
        let text = super::read_text(&file)?;
        return Ok(Report {
            config: ModelConfig::from_json(&text, &file)?,
            name: name.clone(),
            source: format!("{}; the folder holds no weights", file.display()),
            files: None,
            verified: false,
        });
    }
    let checkpoint = location.open()?;
    Ok(Report {
        config: checkpoint.config().clone(),
        name: location.name().to_owned(),
        source: format!("the headers of {}", location.display()),
        files: Some(Files {
            weight_bytes: checkpoint.byte_count(),
            weight_files: weight_file_count(location),
            tensor_count: checkpoint.tensor_count(),
            stage_count: checkpoint.nextn_stage_count(),
            extra_tensors: checkpoint.extra_tensors().to_vec(),
            has_tokenizer: checkpoint.file("tokenizer.json").is_some(),
        }),
        verified: false,
    })
}

fn holds_only_a_configuration(folder: &Path) -> bool {
    folder.join("config.json").is_file()
        && !folder.join("model.safetensors.index.json").exists()
        && safetensors_count(folder) == 0
}

fn weight_file_count(location: &Location) -> usize {
    match location {
        Location::BuiltIn => 1,
        Location::Folder { path, .. } => safetensors_count(path),
    }
}

fn safetensors_count(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    names
        .filter(|name| name.to_string_lossy().ends_with(".safetensors"))
        .count()
}

fn verify(checkpoint: &Checkpoint) -> Result<(), Error> {
    let bar = LateBar::of_bytes("verifying");
    Ok(checkpoint.verify(|progress| bar.set(progress.bytes_done, progress.bytes_total))?)
}
