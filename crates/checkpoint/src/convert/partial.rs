//! The folder in which a conversion grows.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use super::failed;
use crate::Error;

/// Says what the folder is made from; its presence says that the folder is ours.
const MANIFEST: &str = "conversion.json";
/// Locked by the process that writes.
const LOCK: &str = "conversion.lock";

/// A folder that keeps what is finished when a conversion stops, and gets its final name when all is there.
pub(super) struct Partial {
    pub(super) path: PathBuf,
    /// Held until the end.
    _lock: File,
}

impl Partial {
    /// `OUT.partial`, with what a conversion of the same manifest has left there, else empty.
    pub(super) fn open(out: &Path, manifest: &str) -> Result<Partial, Error> {
        let full = std::path::absolute(out).map_err(failed("find", out))?;
        let mut name = full.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let path = full.with_file_name(name);
        fs::create_dir_all(&path).map_err(failed("create", &path))?;
        let lock_path = path.join(LOCK);
        let is_ours = lock_path.exists() || is_empty(&path);
        if !is_ours {
            return Err(Error::FolderNotEmpty { path });
        }
        let lock = File::create(&lock_path).map_err(failed("create", &lock_path))?;
        match lock.try_lock() {
            // Where files cannot be locked, two conversions at once are the user's to avoid.
            Ok(()) | Err(TryLockError::Error(_)) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Busy { path }),
        }
        let manifest_path = path.join(MANIFEST);
        if fs::read_to_string(&manifest_path).is_ok_and(|found| found == manifest) {
            return Ok(Partial { path, _lock: lock });
        }
        remove_files(&path)?;
        fs::write(&manifest_path, manifest).map_err(failed("write", &manifest_path))?;
        Ok(Partial { path, _lock: lock })
    }

    /// Gives the folder its name.
    pub(super) fn rename(self, out: &Path) -> Result<(), Error> {
        for name in [MANIFEST, LOCK] {
            let path = self.path.join(name);
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        // An empty folder of that name is in the way on some systems.
        let _ = fs::remove_dir(out);
        fs::rename(&self.path, out).map_err(failed("rename to", out))
    }
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut listing| listing.next().is_none())
}

/// Removes the files of a conversion that cannot go on. Conversions make no folders.
fn remove_files(folder: &Path) -> Result<(), Error> {
    for item in fs::read_dir(folder).map_err(failed("list", folder))? {
        let path = item.map_err(failed("list", folder))?.path();
        if path.file_name().is_some_and(|name| name != LOCK) {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
    }
    Ok(())
}
