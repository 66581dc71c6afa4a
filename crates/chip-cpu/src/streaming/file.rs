//! Files that are read past the system's page cache.

use std::{
    fs::File,
    io::{self, ErrorKind},
    sync::Arc,
};

use cachalot_chip::{Error, StoredFile};

use crate::memory;

/// Offsets, lengths and addresses of direct reads are multiples of this: no disk or file system in use asks for more.
pub(crate) const BLOCK: usize = 4096;

const REMEDY: &str = "check the disk and the file, then download it again if it is damaged";

/// An open file of a checkpoint.
#[derive(Debug)]
pub(crate) struct DirectFile {
    file: File,
    stored: Arc<StoredFile>,
    is_direct: bool,
}

impl DirectFile {
    /// Opens a file for direct reads, or for ordinary ones where the file system has no direct ones.
    ///
    /// # Errors
    /// [`Error::Read`] if the file cannot be opened or is not the one that was found before.
    pub fn open(stored: Arc<StoredFile>, tensor: &str) -> Result<Self, Error> {
        let (file, is_direct) = match open_direct(&stored) {
            Some(file) => (file, true),
            None => {
                let file = File::open(&stored.path);
                (file.map_err(|error| fault(&stored, tensor, &error.to_string()))?, false)
            }
        };
        let file = DirectFile {
            file,
            stored,
            is_direct,
        };
        file.check_unchanged(tensor)?;
        Ok(file)
    }

    /// The file as it was found when the checkpoint was opened.
    pub fn stored(&self) -> &Arc<StoredFile> {
        &self.stored
    }

    /// Whether reads bypass the page cache.
    pub fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// Fills `buffer` from byte `start` on; only its first `needed` bytes have to be in the file. Address, start and
    /// length are multiples of [`BLOCK`].
    ///
    /// # Errors
    /// [`Error::Read`], naming `tensor`.
    pub fn read(&self, tensor: &str, start: u64, buffer: &mut [u8], needed: usize) -> Result<(), Error> {
        let mut done = 0;
        while done < needed {
            match read_at(&self.file, &mut buffer[done..], start + done as u64) {
                Ok(0) => return Err(self.cut(tensor, start + done as u64)),
                // A direct read that ends inside a block ended with the file.
                Ok(count) if self.is_direct && count % BLOCK != 0 && done + count < needed => {
                    return Err(self.cut(tensor, start + (done + count) as u64));
                }
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(fault(&self.stored, tensor, &error.to_string())),
            }
        }
        if !self.is_direct {
            forget_pages(&self.file, start, buffer.len());
        }
        Ok(())
    }

    /// # Errors
    /// [`Error::Read`] if the file was written to, cut or replaced since the checkpoint was opened.
    pub fn check_unchanged(&self, tensor: &str) -> Result<(), Error> {
        let metadata = self.file.metadata();
        let metadata = metadata.map_err(|error| fault(&self.stored, tensor, &error.to_string()))?;
        if metadata.len() != self.stored.byte_count {
            let (found, expected) = (metadata.len(), self.stored.byte_count);
            let reason = format!("the file has {found} bytes, it had {expected} when the model was opened");
            return Err(fault(&self.stored, tensor, &reason));
        }
        if self.stored.modified.is_some() && metadata.modified().ok() != self.stored.modified {
            return Err(fault(
                &self.stored,
                tensor,
                "the file was changed since the model was opened",
            ));
        }
        Ok(())
    }

    fn cut(&self, tensor: &str, end: u64) -> Error {
        let expected = self.stored.byte_count;
        fault(
            &self.stored,
            tensor,
            &format!("the file ends at byte {end}, it had {expected} when the model was opened"),
        )
    }
}

fn fault(stored: &StoredFile, tensor: &str, reason: &str) -> Error {
    Error::Read {
        file: stored.path.clone(),
        tensor: tensor.to_owned(),
        reason: reason.to_owned(),
        remedy: REMEDY,
    }
}

/// The file opened for direct reads, if its file system does them: some refuse to open, others to read.
#[cfg(target_os = "linux")]
fn open_direct(stored: &StoredFile) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = File::options();
    let file = options
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(&stored.path)
        .ok()?;
    let page = memory::allocate_pages(BLOCK).ok()?;
    // SAFETY: the mapping is as long as that, and nobody else knows it.
    let buffer = unsafe { std::slice::from_raw_parts_mut(page.as_mut_ptr(), BLOCK) };
    read_at(&file, buffer, 0).ok()?;
    Some(file)
}

/// The file opened for reads that are not cached.
#[cfg(target_os = "macos")]
fn open_direct(stored: &StoredFile) -> Option<File> {
    use std::os::fd::AsRawFd;
    let file = File::open(&stored.path).ok()?;
    // SAFETY: the descriptor is open; this command takes an integer.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_NOCACHE, 1) };
    (result != -1).then_some(file)
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn open_direct(_stored: &StoredFile) -> Option<File> {
    None
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
}

/// Tells the system that pages just read will not be needed again: the cache above keeps what is.
#[cfg(target_os = "linux")]
fn forget_pages(file: &File, start: u64, byte_count: usize) {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open; the call touches no memory of this process. A refusal changes nothing.
    unsafe {
        libc::posix_fadvise(
            file.as_raw_fd(),
            start as libc::off_t,
            byte_count as libc::off_t,
            libc::POSIX_FADV_DONTNEED,
        )
    };
}

#[cfg(not(target_os = "linux"))]
fn forget_pages(_file: &File, _start: u64, _byte_count: usize) {}
