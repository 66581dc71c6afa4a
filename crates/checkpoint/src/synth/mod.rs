//! Random checkpoints of true shapes, in the official format.
//!
//! For trying machines and kernels without downloading a model: names, types, shapes, shards and index are
//! those of the releases; the text that comes out is noise. Weights are drawn as codes ("born quantised")
//! with the magnitudes of trained layers, so that activations stay in range through all layers. The same
//! seed gives the same bytes on every machine.
//!
//! | module | holds |
//! | --- | --- |
//! | `cut`, `cut_v41` | a configuration with fewer layers from a published one |
//! | `random` | the counter-based generator and its tables |
//! | `recipe` | which numbers which tensor gets |
//! | `shard` | one safetensors file: header, then bytes in bounded memory |

mod cut;
mod cut_v41;
mod random;
mod recipe;
mod shard;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

pub use cut::{Stages, with_layers};
use serde_json::json;
use shard::ShardPlan;

use crate::{
    Error, Progress,
    config::{Architecture, ModelConfig},
    disk,
    index::INDEX_FILE,
    inventory::{self, Formats, Place},
    parallel,
    source::io_error,
};

/// What [`write`] has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Safetensors files.
    pub shards: usize,
    /// Tensors in them.
    pub tensors: usize,
    /// Bytes of these files, headers included.
    pub bytes: u64,
}

/// Bytes of the safetensors files that [`write`] would write.
pub fn size_bytes(config: &dyn Architecture) -> u64 {
    plan(config).iter().map(ShardPlan::file_byte_count).sum()
}

/// Safetensors files that [`write`] would write.
pub fn shard_count(config: &dyn Architecture) -> usize {
    plan(config).len()
}

/// Writes a random checkpoint of the configuration `json` into the new or empty folder `out`.
///
/// Shards are as in the releases: the embedding, each layer, what belongs to the head, each MTP layer or
/// DSpark stage. They are written into `OUT.partial-PID` beside `out`, on one thread for each core and with a
/// few megabytes of memory each, and the folder gets its name when everything is there. `progress` is
/// called from several threads.
///
/// # Errors
/// Those of [`ModelConfig::from_json`]; [`Error::FolderNotEmpty`]; [`Error::DiskFull`] before anything
/// is written; [`Error::Io`].
pub fn write(json: &str, seed: u64, out: &Path, progress: impl Fn(Progress) + Sync) -> Result<Written, Error> {
    let config = ModelConfig::from_json(json, Path::new("config.json"))?;
    disk::refuse_content(out)?;
    let shards = plan(&config);
    let bytes_total = shards.iter().map(ShardPlan::file_byte_count).sum();
    let partial = PartialFolder::create(out)?;
    disk::require(&partial.path, bytes_total)?;

    let bytes_done = AtomicU64::new(0);
    let advance = |bytes: u64| {
        let done = bytes_done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        progress(Progress {
            bytes_done: done,
            bytes_total,
        });
    };
    let numbered: Vec<(usize, &ShardPlan)> = shards.iter().enumerate().collect();
    let results = parallel::map(&numbered, |(position, shard)| {
        let path = partial.path.join(shard_name(*position, shards.len()));
        shard.write(&path, seed, &advance)
    });
    results.into_iter().collect::<Result<(), Error>>()?;
    disk::write(&partial.path.join(INDEX_FILE), index_text(&shards).as_bytes())?;
    disk::write(&partial.path.join("config.json"), json.as_bytes())?;
    partial.rename(out)?;
    Ok(Written {
        shards: shards.len(),
        tensors: shards.iter().map(|shard| shard.tensors.len()).sum(),
        bytes: bytes_total,
    })
}

/// The shards in order, with their tensors.
fn plan(config: &dyn Architecture) -> Vec<ShardPlan> {
    // Drawn in the released formats; a conversion makes the others.
    let formats = Formats::released(config);
    let mut shards = vec![ShardPlan::default()];
    let mut last = ShardPlan::default();
    for place in inventory::places(config) {
        if matches!(place, Place::Stage(0)) {
            shards.push(std::mem::take(&mut last));
        }
        if !matches!(place, Place::Global) {
            shards.push(ShardPlan::default());
        }
        for slot in inventory::slots_at(config, place) {
            let shard = match place {
                Place::Global if slot.name != "embed" => &mut last,
                _ => shards.last_mut().expect("there is a first shard"),
            };
            shard.tensors.extend(recipe::tensors(config, &slot, formats));
        }
    }
    if !last.tensors.is_empty() {
        shards.push(last);
    }
    shards.iter_mut().for_each(ShardPlan::align);
    shards
}

fn shard_name(position: usize, count: usize) -> String {
    format!("model-{:05}-of-{count:05}.safetensors", position + 1)
}

fn index_text(shards: &[ShardPlan]) -> String {
    let mut weight_map = BTreeMap::new();
    for (position, shard) in shards.iter().enumerate() {
        let file = shard_name(position, shards.len());
        for tensor in &shard.tensors {
            weight_map.insert(&tensor.name, file.clone());
        }
    }
    let total_size: u64 = shards.iter().map(ShardPlan::tensor_byte_count).sum();
    json!({ "metadata": { "total_size": total_size }, "weight_map": weight_map }).to_string()
}

/// A folder that is removed again unless it gets its final name.
struct PartialFolder {
    path: PathBuf,
}

impl PartialFolder {
    fn create(out: &Path) -> Result<PartialFolder, Error> {
        // The full path, so that `models/`, `.` and links become plain names.
        let full = fs::canonicalize(out)
            .or_else(|_| std::path::absolute(out))
            .map_err(|error| io_error("find", out.to_owned(), error))?;
        let mut name = full.file_name().unwrap_or_default().to_owned();
        name.push(format!(".partial-{}", std::process::id()));
        let path = full.with_file_name(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| io_error("create", parent.to_owned(), error))?;
        }
        fs::create_dir(&path).map_err(|error| io_error("create", path.clone(), error))?;
        Ok(PartialFolder { path })
    }

    fn rename(self, out: &Path) -> Result<(), Error> {
        // An empty folder of that name is in the way on some systems.
        let _ = fs::remove_dir(out);
        fs::rename(&self.path, out).map_err(|error| io_error("rename to", out.to_owned(), error))
    }
}

impl Drop for PartialFolder {
    fn drop(&mut self) {
        // Gone already after a rename; otherwise there is nobody left to tell of a failure.
        let _ = fs::remove_dir_all(&self.path);
    }
}
