use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Commit, Content, ContentHash, Error, FilePath, Repository, Result, Revision};

const CACHE_TAG_FILE: &str = "CACHEDIR.TAG";
/// The signature of the Cache Directory Tagging Specification, which backup programs look for.
const CACHE_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# Models that can be downloaded again.\n";

/// Where things lie in a cache, for one repository.
///
/// ```text
/// <cache>/.locks/models--org--name/<hash>.lock        held while a blob is fetched
/// <cache>/models--org--name/blobs/<hash>              content, complete
///                           blobs/<hash>.incomplete   content, the first part
///                           refs/<revision>           the commit that a branch or tag stood for
///                           snapshots/<commit>/<file> -> ../../blobs/<hash>
///                           .cachalot/<commit>.json   what the commit lists, ours
///                           trees/<commit>.json       the same, written by huggingface_hub
/// ```
pub(crate) struct Layout {
    cache: PathBuf,
    folder_name: String,
}

impl Layout {
    pub(crate) fn new(cache: &Path, repository: &Repository) -> Self {
        Layout {
            cache: cache.to_path_buf(),
            folder_name: repository.folder_name(),
        }
    }

    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    fn folder(&self) -> PathBuf {
        self.cache.join(&self.folder_name)
    }

    pub(crate) fn blob(&self, hash: &ContentHash) -> PathBuf {
        self.folder().join("blobs").join(hash.hexadecimal())
    }

    pub(crate) fn partial_blob(&self, hash: &ContentHash) -> PathBuf {
        self.folder()
            .join("blobs")
            .join(format!("{}.incomplete", hash.hexadecimal()))
    }

    /// A partial blob that no other process knows, for file systems without locks.
    pub(crate) fn private_partial_blob(&self, hash: &ContentHash) -> PathBuf {
        self.folder()
            .join("blobs")
            .join(format!("{}.{}.incomplete", hash.hexadecimal(), unique()))
    }

    pub(crate) fn lock(&self, hash: &ContentHash) -> PathBuf {
        let folder = self.cache.join(".locks").join(&self.folder_name);
        folder.join(format!("{}.lock", hash.hexadecimal()))
    }

    pub(crate) fn snapshot(&self, commit: &Commit) -> PathBuf {
        self.folder().join("snapshots").join(commit.as_str())
    }

    /// The listings of a commit that may be on disk, ours first.
    pub(crate) fn listings(&self, commit: &Commit) -> [PathBuf; 2] {
        [".cachalot", "trees"].map(|name| self.folder().join(name).join(format!("{commit}.json")))
    }

    fn reference(&self, revision: &Revision) -> PathBuf {
        self.folder().join("refs").join(revision.as_str())
    }

    /// The commit of a revision as far as the cache knows.
    pub(crate) fn commit_of(&self, revision: &Revision) -> Option<Commit> {
        revision.commit().or_else(|| {
            let mut text = String::new();
            let file = fs::File::open(self.reference(revision)).ok()?;
            file.take(64).read_to_string(&mut text).ok()?;
            Commit::parse(text.trim())
        })
    }

    /// Remembers the commit of a branch or tag.
    pub(crate) fn write_reference(&self, revision: &Revision, commit: &Commit) -> Result<()> {
        if self.commit_of(revision).as_ref() == Some(commit) {
            return Ok(());
        }
        write_whole(&self.reference(revision), commit.as_str().as_bytes())
    }

    /// Creates the folders that a download writes into.
    pub(crate) fn create_folders(&self) -> Result<()> {
        let locks = self.cache.join(".locks").join(&self.folder_name);
        for folder in [self.folder().join("blobs"), locks] {
            fs::create_dir_all(&folder).map_err(Error::io("create the folder", &folder))?;
        }
        let tag = self.cache.join(CACHE_TAG_FILE);
        if tag.exists() {
            Ok(())
        } else {
            write_whole(&tag, CACHE_TAG.as_bytes())
        }
    }

    /// Whether the blob is complete. A blob gets its name only after its hash was checked, so its size tells.
    pub(crate) fn has_blob(&self, content: &Content) -> bool {
        has_size(&self.blob(&content.hash), content.size_bytes)
    }

    /// Makes a blob appear as a file of a snapshot.
    pub(crate) fn link(&self, commit: &Commit, file: &FilePath, content: &Content) -> Result<()> {
        let link = self.snapshot(commit).join(file.to_relative_path());
        let up = "../".repeat(file.depth() + 2);
        let target = PathBuf::from(format!("{up}blobs/{}", content.hash.hexadecimal()));
        match fs::read_link(&link) {
            Ok(found) if found == target => return Ok(()),
            // Tools that run without symbolic links keep the file itself here.
            Err(_) if has_size(&link, content.size_bytes) => return Ok(()),
            _ => {}
        }
        create_parent(&link)?;
        let temporary = beside(&link);
        symlink(&target, &temporary).map_err(Error::io("create the symbolic link", &temporary))?;
        place(&temporary, &link)
    }

    /// Writes our listing of a commit.
    pub(crate) fn write_listing(&self, commit: &Commit, document: &[u8]) -> Result<()> {
        let [ours, _] = self.listings(commit);
        write_whole(&ours, document)
    }
}

/// Whether a path leads to a file of this size.
pub(crate) fn has_size(path: &Path, size_bytes: u64) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size_bytes)
}

pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Error::io("put in place", to))
}

/// Puts a temporary file in place, or deletes it.
fn place(temporary: &Path, path: &Path) -> Result<()> {
    rename(temporary, path).inspect_err(|_| {
        // The first error is the one to tell; the temporary file is only litter.
        let _ = remove(temporary);
    })
}

/// Removes a file that may be missing.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("delete", path)(error)),
        _ => Ok(()),
    }
}

/// Writes a small file so that readers see all of it or nothing.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    create_parent(path)?;
    let temporary = beside(path);
    let written = fs::File::create_new(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(Error::io("write", &temporary))?;
    place(&temporary, path)
}

fn create_parent(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::create_dir_all(parent).map_err(Error::io("create the folder", parent))
}

/// A name for a temporary file in the same folder, different for every call.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", unique()));
    path.with_file_name(name)
}

fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let time_ns = std::time::UNIX_EPOCH
        .elapsed()
        .map_or(0, |elapsed| elapsed.subsec_nanos());
    // Containers that share a cache can have equal process numbers, hence the time.
    format!(
        "{:x}-{:x}-{time_ns:x}",
        process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}
