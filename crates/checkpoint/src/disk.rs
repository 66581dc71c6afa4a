//! Free space, and writing into a new folder.

use std::{fs, io::ErrorKind, path::Path};

use crate::{Error, source::io_error};

/// Refuses a folder that holds something.
pub(crate) fn refuse_content(out: &Path) -> Result<(), Error> {
    match fs::read_dir(out) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("list", out.to_owned(), error)),
        Ok(mut listing) => match listing.next() {
            None => Ok(()),
            Some(_) => Err(Error::FolderNotEmpty { path: out.to_owned() }),
        },
    }
}

/// Writes a small file.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), Error> {
    fs::write(path, content).map_err(|error| io_error("write", path.to_owned(), error))
}

/// Refuses to begin what the disk cannot hold. Where free space cannot be told, nothing is refused.
pub(crate) fn require(folder: &Path, needed_bytes: u64) -> Result<(), Error> {
    match available_bytes(folder) {
        Some(available_bytes) if available_bytes < needed_bytes => Err(Error::DiskFull {
            path: folder.to_owned(),
            needed_bytes,
            available_bytes,
        }),
        _ => Ok(()),
    }
}

/// Bytes that this user may still write to the disk of an existing folder; `None` where that cannot be told.
#[cfg(unix)]
pub fn available_bytes(folder: &Path) -> Option<u64> {
    use std::{ffi::CString, mem::MaybeUninit, os::unix::ffi::OsStrExt};
    let path = CString::new(folder.as_os_str().as_bytes()).ok()?;
    let mut status = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends with a zero byte and `status` is writable memory of the right type.
    if unsafe { libc::statvfs(path.as_ptr(), status.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call succeeded, so it has filled the structure.
    let status = unsafe { status.assume_init() };
    // The fields are narrower on some systems.
    #[allow(clippy::unnecessary_cast)]
    (status.f_bavail as u64).checked_mul(status.f_frsize as u64)
}

/// Bytes that this user may still write to the disk of an existing folder; `None` where that cannot be told.
#[cfg(not(unix))]
pub fn available_bytes(_folder: &Path) -> Option<u64> {
    None
}
