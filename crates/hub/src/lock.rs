use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use crate::stop::Stop;
use crate::{Error, Result};

const POLL: Duration = Duration::from_millis(100);

/// The right to write one blob, against other processes and other downloads of this one.
///
/// An advisory `flock` on a file that huggingface_hub locks too; it ends with the process.
#[must_use]
pub(crate) struct BlobLock {
    file: Option<File>,
}

impl BlobLock {
    /// Waits until nobody else holds the lock; calls `on_wait` once if it has to.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when stopped while waiting, [`Error::Io`] if the lock file cannot be made.
    pub(crate) fn acquire(path: &Path, stop: &Stop, on_wait: impl FnOnce()) -> Result<Self> {
        // Group-writable, so that users who share a cache can wait for each other.
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o664);
        let file = options.open(path).map_err(Error::io("open the lock file", path))?;
        let mut on_wait = Some(on_wait);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(BlobLock { file: Some(file) }),
                Err(TryLockError::WouldBlock) => {
                    if let Some(on_wait) = on_wait.take() {
                        on_wait();
                    }
                    stop.pause(POLL)?;
                }
                // Some network file systems have no locks: work without, in a file of one's own.
                Err(TryLockError::Error(_)) => return Ok(BlobLock { file: None }),
            }
        }
    }

    /// Whether nobody else can be writing the shared partial blob.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.file.is_some()
    }
}
