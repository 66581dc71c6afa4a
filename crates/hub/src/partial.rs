use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::disk;
use crate::hash::ContentHasher;
use crate::layout;
use crate::stop::Stop;
use crate::{Content, Error, Result};

const READ_BYTES: usize = 256 << 10;

/// What became of a whole partial blob.
pub(crate) enum Settled {
    /// It is the blob now.
    InPlace,
    /// It was deleted.
    Corrupt {
        /// Its hash, hexadecimal.
        found: String,
    },
}

/// The first part of a blob on disk, hashed as far as it goes.
pub(crate) struct Partial<'a> {
    path: PathBuf,
    content: &'a Content,
    file: File,
    hasher: ContentHasher,
    length_bytes: u64,
    is_private: bool,
}

impl<'a> Partial<'a> {
    /// Opens what an earlier download left, or nothing, and hashes it. A private one goes when dropped.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when stopped while hashing, [`Error::Io`].
    pub(crate) fn open(path: PathBuf, content: &'a Content, is_private: bool, stop: &Stop) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(Error::io("open", &path))?;
        let hasher = ContentHasher::new(content.hash.algorithm(), content.size_bytes);
        let mut partial = Partial {
            path,
            content,
            file,
            hasher,
            length_bytes: 0,
            is_private,
        };
        partial.hash_what_is_there(stop)?;
        Ok(partial)
    }

    /// Bytes on disk, at most the size of the content.
    pub(crate) fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.length_bytes == self.content.size_bytes
    }

    /// Adds bytes at the end.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::Io`].
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| self.write_error(error))?;
        self.hasher.update(bytes);
        self.length_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Throws the bytes away.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn clear(&mut self) -> Result<()> {
        self.file.set_len(0).map_err(|error| self.write_error(error))?;
        self.file.rewind().map_err(|error| self.write_error(error))?;
        self.hasher = ContentHasher::new(self.content.hash.algorithm(), self.content.size_bytes);
        self.length_bytes = 0;
        Ok(())
    }

    /// Puts a whole file in place if its hash is right, and deletes it if not.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn settle(self, blob: &Path) -> Result<Settled> {
        let found = self.hasher.digits();
        if found != self.content.hash.hexadecimal() {
            layout::remove(&self.path)?;
            return Ok(Settled::Corrupt { found });
        }
        // A blob's name promises its content, also after a power cut.
        self.file.sync_all().map_err(|error| self.write_error(error))?;
        layout::rename(&self.path, blob)?;
        Ok(Settled::InPlace)
    }

    fn hash_what_is_there(&mut self, stop: &Stop) -> Result<()> {
        let metadata = self.file.metadata().map_err(Error::io("read", &self.path))?;
        if metadata.len() > self.content.size_bytes {
            return self.clear();
        }
        let mut buffer = vec![0; READ_BYTES];
        let mut stored = (&self.file).take(self.content.size_bytes);
        loop {
            stop.check()?;
            match stored.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    self.hasher.update(&buffer[..count]);
                    self.length_bytes += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", &self.path)(error)),
            }
        }
    }

    fn write_error(&self, error: io::Error) -> Error {
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Error::DiskFull {
                folder: self.path.parent().unwrap_or(Path::new("")).to_path_buf(),
                bytes_needed: self.content.size_bytes - self.length_bytes,
                bytes_free: disk::bytes_free(&self.path).unwrap_or(0),
            };
        }
        Error::io("write", &self.path)(error)
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        if self.is_private {
            // Nobody could continue it. After `settle` there is nothing to remove.
            let _ = layout::remove(&self.path);
        }
    }
}
