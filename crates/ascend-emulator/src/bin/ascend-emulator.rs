//! `ascend-emulator DIRECTORY` lays out the emulator under the names of the real libraries, for `LD_LIBRARY_PATH`.

use std::io::{Error, Result};
use std::path::{Path, PathBuf};

const NAMES: [&str; 6] = [
    "libascendcl.so",
    "libnnopbase.so",
    "libhccl.so",
    "libopapi_nn.so",
    "libopapi_transformer.so",
    "libopapi_math.so",
];

/// The newest build beside this program: cargo leaves it there or, for tests, in `deps`.
fn library() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folder = program.parent()?;
    let places = [folder.join(NAMES[0]), folder.join("deps").join(NAMES[0])];
    places
        .into_iter()
        .filter(|place| place.exists())
        .max_by_key(|place| place.metadata().and_then(|data| data.modified()).ok())
}

fn lay_out(directory: &Path) -> Result<()> {
    let library =
        library().ok_or_else(|| Error::other("libascendcl.so is not beside this program: build the package first"))?;
    std::fs::create_dir_all(directory)?;
    for name in NAMES {
        let link = directory.join(name);
        if link.is_symlink() {
            std::fs::remove_file(&link)?;
        }
        std::os::unix::fs::symlink(&library, link)?;
    }
    Ok(())
}

fn main() -> Result<()> {
    match std::env::args_os().nth(1) {
        Some(directory) => lay_out(Path::new(&directory)),
        None => Err(Error::other("name the directory to lay the libraries out in")),
    }
}
