//! From the name of a model to its files.

use std::path::{Path, PathBuf};

use cachalot_checkpoint::{Checkpoint, ModelConfig, accounting, published};
use cachalot_hub::{Hub, Repository, Revision, Settings, is_model_file};

use crate::{
    built_in,
    error::Error,
    fetch::{self, Consent},
    numbers,
};

/// Where a model's files are.
#[derive(Debug)]
pub enum Location {
    BuiltIn,
    Folder {
        path: PathBuf,
        /// What reports call the model: the name as the user gave it.
        name: String,
    },
}

/// What a name stands for on this machine.
pub enum Known {
    Here(Location),
    /// A name of the hub whose files are not all in the cache.
    Absent(Repository),
}

impl Location {
    /// Finds a model, and downloads it if the user agrees.
    pub fn find(model: Option<&str>, consent: Consent) -> Result<Location, Error> {
        match look_up(model)? {
            Known::Here(location) => Ok(location),
            Known::Absent(repository) => {
                let path = fetch::with_consent(&open_hub()?, &repository, consent)?;
                let name = repository.to_string();
                Ok(Location::Folder { path, name })
            }
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Location::BuiltIn => built_in::NAME,
            Location::Folder { name, .. } => name,
        }
    }

    /// How errors name the place of its files.
    pub fn display(&self) -> String {
        match self {
            Location::BuiltIn => built_in::NAME.to_owned(),
            Location::Folder { path, .. } => path.display().to_string(),
        }
    }

    pub fn open(&self) -> Result<Checkpoint, Error> {
        Ok(match self {
            Location::BuiltIn => built_in::open()?,
            Location::Folder { path, .. } => Checkpoint::open(path)?,
        })
    }
}

/// What a name stands for, without any network: nothing is the built-in model, then folders, then names of the hub.
pub fn look_up(model: Option<&str>) -> Result<Known, Error> {
    let Some(name) = model.filter(|name| *name != built_in::NAME) else {
        return Ok(Known::Here(Location::BuiltIn));
    };
    let path = Path::new(name);
    if path.is_dir() {
        return Ok(Known::Here(Location::Folder {
            path: path.to_owned(),
            name: name.to_owned(),
        }));
    }
    let unknown = |remedy: String| Error::ModelUnknown {
        name: name.to_owned(),
        remedy,
    };
    if path.is_file() {
        return Err(unknown("it is a file; name the folder that holds it".to_owned()));
    }
    if name.starts_with(['.', '/', '~']) {
        return Err(unknown("check the path".to_owned()));
    }
    if let Some(reason) = published::refusal(name) {
        return Err(Error::ModelRefused {
            name: name.to_owned(),
            reason,
        });
    }
    let Ok(repository) = name.parse::<Repository>() else {
        return Err(unknown(format!("did you mean {}?", published::nearest(name)[0])));
    };
    let cached = open_hub()?.find_cached(&repository, &Revision::default(), &is_model_file);
    Ok(match cached {
        Some(path) => Known::Here(Location::Folder {
            path,
            name: name.to_owned(),
        }),
        None => Known::Absent(repository),
    })
}

/// The hub and the cache that the environment names.
pub fn open_hub() -> Result<Hub, Error> {
    Ok(Hub::new(Settings::from_environment()?)?)
}

/// For a name that is neither here nor built in.
pub fn not_published(name: &str) -> Error {
    if let Some(reason) = published::refusal(name) {
        return Error::ModelRefused {
            name: name.to_owned(),
            reason,
        };
    }
    let nearest: Vec<&str> = published::nearest(name).into_iter().take(3).collect();
    Error::NotPublished {
        name: name.to_owned(),
        nearest: nearest.join(", "),
    }
}

/// ` (160 GB)` for a published model, whose size is known without the network.
pub fn published_size(repository: &Repository) -> String {
    let Some(text) = published::config(repository.as_str()) else {
        return String::new();
    };
    match ModelConfig::from_json(text, Path::new("config.json")) {
        Ok(config) => format!(" ({})", numbers::bytes(accounting::total(&config).bytes)),
        Err(_) => String::new(),
    }
}
