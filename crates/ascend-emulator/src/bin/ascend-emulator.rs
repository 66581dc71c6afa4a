//! `ascend-emulator DIRECTORY` lays out the emulator under the names of the real libraries, for `LD_LIBRARY_PATH`, and the
//! custom operators (when built) at `vendors/emulated/op_api/lib`.
//!
//! * `--joined`: `libopapi.so` in place of the split operator libraries.
//! * `--without NAME`: leaves out a library or, when NAME does not end in `.so`, a symbol.

use std::io::{Error, Result};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const RUNTIME: [&str; 3] = ["libascendcl.so", "libnnopbase.so", "libhccl.so"];
const SPLIT: [&str; 3] = ["libopapi_nn.so", "libopapi_transformer.so", "libopapi_math.so"];
const JOINED: [&str; 1] = ["libopapi.so"];
const CUSTOM: &str = "libcust_opapi.so";

/// The newest build beside this program: cargo leaves it there or, for tests, in `deps`; the second one in `examples`.
fn library(name: &str) -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folder = program.parent()?;
    ["", "deps", "examples"]
        .map(|place| folder.join(place).join(name))
        .into_iter()
        .filter(|place| place.exists())
        .max_by_key(|place| place.metadata().and_then(|data| data.modified()).ok())
}

fn link(from: &Path, to: &Path) -> Result<()> {
    if to.is_symlink() || to.exists() {
        std::fs::remove_file(to)?;
    }
    symlink(from, to)
}

/// A copy in which the loader does not find the symbols: the first letter of each name is another one.
fn without_symbols(library: &Path, symbols: &[String], copy: &Path) -> Result<()> {
    let mut bytes = std::fs::read(library)?;
    for symbol in symbols {
        let name = [b"\0", symbol.as_bytes(), b"\0"].concat();
        let places: Vec<usize> = bytes
            .windows(name.len())
            .enumerate()
            .filter(|(_, part)| *part == name)
            .map(|(place, _)| place)
            .collect();
        if places.is_empty() {
            return Err(Error::other(format!("{symbol} is no symbol of the emulator")));
        }
        places.into_iter().for_each(|place| bytes[place + 1] = b'-');
    }
    std::fs::write(copy, bytes)
}

struct Layout {
    directory: PathBuf,
    joined: bool,
    without: Vec<String>,
}

fn lay_out(layout: &Layout) -> Result<()> {
    let missing = || Error::other("libascendcl.so is not beside this program: build the package first");
    let mut emulator = library(RUNTIME[0]).ok_or_else(missing)?;
    std::fs::create_dir_all(&layout.directory)?;
    let (left_out, symbols): (Vec<String>, Vec<String>) =
        layout.without.iter().cloned().partition(|name| name.ends_with(".so"));
    if !symbols.is_empty() {
        let copy = layout.directory.join("emulator-without-symbols");
        without_symbols(&emulator, &symbols, &copy)?;
        emulator = std::fs::canonicalize(copy)?;
    }
    let operators = if layout.joined { &JOINED[..] } else { &SPLIT };
    for name in RUNTIME
        .iter()
        .chain(operators)
        .filter(|name| !left_out.iter().any(|other| other == *name))
    {
        link(&emulator, &layout.directory.join(name))?;
    }
    let custom = library(CUSTOM).filter(|_| !left_out.iter().any(|name| name == CUSTOM));
    if let Some(custom) = custom {
        let folder = layout.directory.join("vendors/emulated/op_api/lib");
        std::fs::create_dir_all(&folder)?;
        // A link would be opened by its own place; the copy finds the emulator by its folder.
        std::fs::copy(custom, folder.join(CUSTOM))?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let mut layout = Layout {
        directory: PathBuf::new(),
        joined: false,
        without: Vec::new(),
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--joined" => layout.joined = true,
            "--without" => layout.without.extend(words.next()),
            _ => layout.directory = PathBuf::from(word),
        }
    }
    match layout.directory.as_os_str().is_empty() {
        false => lay_out(&layout),
        true => Err(Error::other("name the directory to lay the libraries out in")),
    }
}
