//! From a name to a model.

use std::path::Path;

use cachalot_checkpoint::{ModelConfig, published};

use super::Model;
use crate::{Error, units};

/// Names of all models that need no files.
pub fn names() -> impl Iterator<Item = &'static str> {
    published::names()
}

/// A model by the name of its repository, with or without the owner, or by a folder with a config.json.
///
/// # Errors
/// [`Error::ModelUnknown`] with the nearest names, [`Error::Read`] and [`Error::Checkpoint`] for folders.
pub fn find(name: &str) -> Result<Model, Error> {
    if let Some(text) = published::config(name) {
        return from_config(name, text, Path::new("config.json"));
    }
    let folder = Path::new(name);
    if folder.is_dir() {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Read {
            path: path.clone(),
            source,
        })?;
        return from_config(name, &text, &path);
    }
    Err(Error::ModelUnknown {
        name: name.chars().take(100).collect(),
        nearest: units::nearest(name, names(), 3),
    })
}

fn from_config(name: &str, text: &str, origin: &Path) -> Result<Model, Error> {
    let config = ModelConfig::from_json(text, origin)?;
    super::from_config(name, &config)
}
