use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::{Error, Result};

/// Checks that `bytes_needed` more bytes fit on the file system of a folder, which need not exist yet.
///
/// A file system that does not say how full it is counts as roomy.
///
/// # Errors
/// [`Error::DiskFull`] with both numbers.
pub(crate) fn check_space(folder: &Path, bytes_needed: u64) -> Result<()> {
    match folder.ancestors().find_map(bytes_free) {
        Some(bytes_free) if bytes_free < bytes_needed => Err(Error::DiskFull {
            folder: folder.to_path_buf(),
            bytes_needed,
            bytes_free,
        }),
        _ => Ok(()),
    }
}

/// Bytes that this user may still write where an existing path lies.
pub(crate) fn bytes_free(path: &Path) -> Option<u64> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut status = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends with a zero byte and `status` has room for one `statvfs`; both outlive the call.
    if unsafe { libc::statvfs(path.as_ptr(), status.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: `statvfs` returned 0, so it has filled `status`.
    let status = unsafe { status.assume_init() };
    // The field types differ between systems, hence the casts.
    #[allow(clippy::unnecessary_cast)]
    (status.f_bavail as u64).checked_mul(status.f_frsize as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_asked_of_the_nearest_folder_that_exists() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("not/there/yet");
        check_space(&missing, 1).unwrap();
        let error = check_space(&missing, u64::MAX).unwrap_err();
        assert!(
            matches!(error, Error::DiskFull { bytes_free, .. } if bytes_free > 0),
            "{error}"
        );
    }
}
