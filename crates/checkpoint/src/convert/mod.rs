//! Storing a checkpoint with a low-bit dense part.
//!
//! The new folder has the same shards with the same names of tensors. Shards without a matrix that changes are linked
//! (copied where the disk is another one), all other tensors are copied bit for bit, matrices of the dense part become
//! what [`Checkpoint::requantise_dense`] makes of them. config.json gets the key [`LOW_BIT_KEY`]; everything else in
//! the folder (tokenizer, licence) is copied.
//!
//! Everything is written into `OUT.partial` and gets its name when it is complete and has been opened once. What was
//! interrupted goes on with the next shard if source and format are the same, and starts over if not.
//!
//! [`LOW_BIT_KEY`]: crate::LOW_BIT_KEY

mod partial;
mod plan;
mod write;

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use cachalot_numerics::{IntegerWidth, integer};
use serde_json::{Value, json};

use crate::{
    Checkpoint, Error, LOW_BIT_KEY, LowBit, Progress, disk,
    index::INDEX_FILE,
    source::{Source, io_error},
};
use partial::Partial;
use plan::ShardPlan;

/// What [`Checkpoint::convert`] has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Converted {
    /// What became of the dense part.
    pub low_bit: LowBit,
    /// Safetensors files.
    pub shards: usize,
    /// Those that are links to the source's files and take no space.
    pub linked: usize,
    /// Bytes of all safetensors files.
    pub bytes: u64,
}

impl Checkpoint {
    /// Writes this checkpoint with its dense part in `width` into the new or empty folder `out`.
    ///
    /// Memory: some megabytes of a matrix at a time, beside the mapped files. `progress` counts bytes of the new
    /// files; setting `cancel` stops after the piece in hand.
    ///
    /// # Errors
    /// Those of [`Checkpoint::requantise_dense`], [`Error::FolderNotEmpty`], [`Error::DiskFull`] before any shard is
    /// written, [`Error::Busy`] while another process writes the same folder, [`Error::Stopped`], [`Error::Io`].
    pub fn convert(
        &self,
        width: IntegerWidth,
        out: &Path,
        cancel: &AtomicBool,
        progress: impl Fn(Progress) + Sync,
    ) -> Result<Converted, Error> {
        disk::refuse_content(out)?;
        let low_bit = self.low_bit_plan(width)?;
        let shards = plan::shards(self, &low_bit.matrices, width)?;
        let bytes_total = shards.iter().map(ShardPlan::file_byte_count).sum();
        let partial = Partial::open(out, &manifest(self, width))?;

        let bytes_done = AtomicU64::new(0);
        let advance = |bytes: u64| {
            let done = bytes_done.fetch_add(bytes, Ordering::Relaxed) + bytes;
            progress(Progress {
                bytes_done: done,
                bytes_total,
            });
        };
        let mut linked = 0;
        let mut wanted = Vec::new();
        for shard in &shards {
            let path = partial.path.join(&shard.name);
            let is_there = fs::metadata(&path).is_ok_and(|found| found.len() == shard.file_byte_count());
            let is_linked = !is_there && !shard.is_changed && link(&self.source, &shard.name, &path);
            linked += usize::from(is_linked);
            match is_there || is_linked {
                true => advance(shard.file_byte_count()),
                false => wanted.push(shard),
            }
        }
        disk::require(&partial.path, wanted.iter().map(|shard| shard.file_byte_count()).sum())?;
        let writer = write::Writer {
            checkpoint: self,
            matrices: &low_bit.matrices,
            width,
            cancel,
            advance: &advance,
        };
        for shard in wanted {
            writer.shard(shard, &partial.path)?;
        }
        self.write_texts(&shards, width, &partial.path)?;
        Checkpoint::open(&partial.path)?;
        partial.rename(out)?;
        Ok(Converted {
            low_bit: low_bit.sums,
            shards: shards.len(),
            linked,
            bytes: bytes_total,
        })
    }

    /// config.json, the index if the source has one, and copies of the small files beside the weights.
    fn write_texts(&self, shards: &[ShardPlan], width: IntegerWidth, folder: &Path) -> Result<(), Error> {
        for name in self.source.companion_names()? {
            if let Some(content) = self.source.read(&name)? {
                disk::write(&folder.join(name), &content)?;
            }
        }
        if self.source.read(INDEX_FILE)?.is_some() {
            disk::write(&folder.join(INDEX_FILE), plan::index_text(shards).as_bytes())?;
        }
        let name = "config.json";
        let content = self.source.read(name)?.unwrap_or_default();
        let mut config: Value = serde_json::from_slice(&content).map_err(|source| Error::Json {
            origin: self.source.display(name),
            source,
        })?;
        config[LOW_BIT_KEY] = json!({ "format": width.to_string(), "group_size": integer::GROUP });
        disk::write(&folder.join(name), format!("{config:#}\n").as_bytes())
    }
}

/// What a half-finished folder must have been made from to go on with it.
fn manifest(checkpoint: &Checkpoint, width: IntegerWidth) -> String {
    let shards: Vec<Value> = checkpoint
        .catalogue
        .shards
        .iter()
        .map(|shard| {
            let metadata = fs::metadata(checkpoint.source.display(&shard.name)).ok();
            let modified = metadata.and_then(|metadata| metadata.modified().ok());
            let since = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
            let nanoseconds = since.map(|since| since.as_nanos().to_string());
            json!({ "name": shard.name, "bytes": shard.data.len(), "modified": nanoseconds })
        })
        .collect();
    let source = fs::canonicalize(checkpoint.source.place()).ok();
    let source = source.map(|path| path.display().to_string());
    json!({ "source": source, "format": width.to_string(), "shards": shards }).to_string()
}

/// Whether `path` now is another name of the source's file.
fn link(source: &Source, name: &str, path: &Path) -> bool {
    let Source::Folder(folder) = source else { return false };
    // A link to a link would break with the cache that it points into.
    let original = fs::canonicalize(folder.join(name));
    let _ = fs::remove_file(path);
    original.is_ok_and(|original| fs::hard_link(original, path).is_ok())
}

/// For errors of this module's files.
fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |error| io_error(action, path.to_owned(), error)
}
