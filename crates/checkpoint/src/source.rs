//! Where the files of a checkpoint come from: a folder, or memory.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;
use memmap2::Mmap;

use crate::Error;

/// Largest JSON file that is read whole.
const TEXT_BYTES_MAX: u64 = 1 << 30;

/// A file as it was found when the checkpoint was opened, to be recognised later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub byte_count: u64,
    /// When it was last written, where the system tells.
    pub modified: Option<SystemTime>,
}

/// A shard's bytes and the file that they map; none for files in memory.
pub(crate) struct MappedFile {
    pub(crate) data: Bytes,
    pub(crate) file: Option<Arc<StoredFile>>,
}

/// The files of a checkpoint.
#[derive(Debug)]
pub(crate) enum Source {
    Folder(PathBuf),
    Memory { name: String, files: Vec<(String, Bytes)> },
}

impl Source {
    /// A shard, memory-mapped if it comes from a folder, and that file; `None` if there is no such file.
    pub(crate) fn map(&self, name: &str) -> Result<Option<MappedFile>, Error> {
        let Some(path) = self.path_in_folder(name) else {
            return Ok(self.in_memory(name).map(|data| MappedFile { data, file: None }));
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(source) if source.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io_error("open", path, source)),
        };
        let metadata = file
            .metadata()
            .map_err(|source| io_error("read", path.clone(), source))?;
        let stored = Arc::new(StoredFile {
            path: path.clone(),
            byte_count: metadata.len(),
            modified: metadata.modified().ok(),
        });
        if metadata.len() == 0 {
            // An empty range cannot be mapped.
            return Ok(Some(MappedFile {
                data: Bytes::new(),
                file: Some(stored),
            }));
        }
        // SAFETY: the mapping is read-only and private. That nobody truncates the file while it is mapped
        // is the caller's part of the contract of `Checkpoint::open`; writers in this crate never change
        // a file under its final name.
        let map = unsafe { Mmap::map(&file) };
        let map = map.map_err(|source| io_error("map", path, source))?;
        Ok(Some(MappedFile {
            data: Bytes::from_owner(map),
            file: Some(stored),
        }))
    }

    /// A small file, read whole; `None` if there is no such file.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Bytes>, Error> {
        let Some(path) = self.path_in_folder(name) else {
            return Ok(self.in_memory(name));
        };
        match fs::metadata(&path) {
            // A pipe would be waited for, and a device may never end.
            Ok(metadata) if !metadata.is_file() => {
                return Err(io_error("read", path, std::io::Error::other("it is no ordinary file")));
            }
            Ok(metadata) if metadata.len() > TEXT_BYTES_MAX => {
                let reason = format!("it has {} bytes, the limit is {TEXT_BYTES_MAX}", metadata.len());
                return Err(io_error("read", path, std::io::Error::other(reason)));
            }
            Err(source) if source.kind() == ErrorKind::NotFound => return Ok(None),
            _ => {}
        }
        match fs::read(&path) {
            Ok(content) => Ok(Some(content.into())),
            Err(source) => Err(io_error("read", path, source)),
        }
    }

    /// Names of all safetensors files, sorted.
    pub(crate) fn shard_names(&self) -> Result<Vec<String>, Error> {
        let mut names = match self {
            Source::Folder(folder) => {
                let listing = fs::read_dir(folder).map_err(|source| io_error("list", folder.clone(), source))?;
                let mut names = Vec::new();
                for item in listing {
                    let item = item.map_err(|source| io_error("list", folder.clone(), source))?;
                    names.extend(item.file_name().into_string());
                }
                names
            }
            Source::Memory { files, .. } => files.iter().map(|(name, _)| name.clone()).collect(),
        };
        names.retain(|name| name.ends_with(".safetensors"));
        names.sort();
        Ok(names)
    }

    /// Names of the small files that belong to a checkpoint beside weights, index and configuration, sorted: the
    /// tokenizer, the licence. Folders and hidden files do not belong to it.
    pub(crate) fn companion_names(&self) -> Result<Vec<String>, Error> {
        let mut names = match self {
            Source::Folder(folder) => {
                let listing = fs::read_dir(folder).map_err(|source| io_error("list", folder.clone(), source))?;
                let mut names = Vec::new();
                for item in listing {
                    let item = item.map_err(|source| io_error("list", folder.clone(), source))?;
                    // Follows links, as caches have them.
                    if fs::metadata(item.path()).is_ok_and(|found| found.is_file()) {
                        names.extend(item.file_name().into_string());
                    }
                }
                names
            }
            Source::Memory { files, .. } => files.iter().map(|(name, _)| name.clone()).collect(),
        };
        names.retain(|name| {
            let is_weights = [".safetensors", ".safetensors.index.json"]
                .iter()
                .any(|end| name.ends_with(end));
            !is_weights && name != "config.json" && !name.starts_with('.')
        });
        names.sort();
        Ok(names)
    }

    /// How a file is named in errors.
    pub(crate) fn display(&self, file: &str) -> PathBuf {
        match self {
            Source::Folder(folder) => folder.join(file),
            Source::Memory { name, .. } => Path::new(name).join(file),
        }
    }

    /// The folder, or the name of the files in memory.
    pub(crate) fn place(&self) -> String {
        match self {
            Source::Folder(folder) => folder.display().to_string(),
            Source::Memory { name, .. } => name.clone(),
        }
    }

    fn path_in_folder(&self, name: &str) -> Option<PathBuf> {
        match self {
            Source::Folder(folder) if is_plain_name(name) => Some(folder.join(name)),
            _ => None,
        }
    }

    fn in_memory(&self, name: &str) -> Option<Bytes> {
        match self {
            Source::Folder(_) => None,
            Source::Memory { files, .. } => files
                .iter()
                .find(|(other, _)| other == name)
                .map(|(_, content)| content.clone()),
        }
    }
}

/// Whether `name` is a file name without any way out of its folder.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let plain = matches!(components.next(), Some(Component::Normal(part)) if part == name);
    plain && components.next().is_none() && !name.contains(['/', '\\', '\0', ':'])
}

pub(crate) fn io_error(action: &'static str, path: PathBuf, source: std::io::Error) -> Error {
    Error::Io { action, path, source }
}
