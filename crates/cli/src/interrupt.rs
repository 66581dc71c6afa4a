//! Ctrl-C.
//!
//! By default it ends the process at once. While a [`Cooperation`] lives, the first Ctrl-C only raises its flag, so
//! that the work can stop at a good place; the second one ends the process.

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::terminal;

/// Exit code after Ctrl-C: 128 and the number of the signal, as shells have it.
const EXIT_CODE: i32 = 130;

static COOPERATIVE: AtomicBool = AtomicBool::new(false);
static RAISED: AtomicBool = AtomicBool::new(false);
static UNFINISHED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Begins to listen for Ctrl-C. Once for each process.
pub fn listen() {
    // Fails only where another handler is there already; then that one decides.
    let _ = ctrlc::set_handler(|| {
        if COOPERATIVE.load(Ordering::SeqCst) && !RAISED.swap(true, Ordering::SeqCst) {
            return;
        }
        remove_unfinished();
        if terminal::output_has_colours() {
            let _ = writeln!(std::io::stdout(), "{}", terminal::RESET);
        }
        std::process::exit(EXIT_CODE);
    });
}

/// Lets the work in hand stop at a good place.
pub struct Cooperation(());

impl Cooperation {
    /// Forgets an earlier Ctrl-C and takes the next one.
    pub fn begin() -> Self {
        RAISED.store(false, Ordering::SeqCst);
        COOPERATIVE.store(true, Ordering::SeqCst);
        Cooperation(())
    }

    /// Becomes true with Ctrl-C.
    pub fn flag(&self) -> &'static AtomicBool {
        &RAISED
    }

    /// Whether Ctrl-C was pressed.
    pub fn is_raised(&self) -> bool {
        RAISED.load(Ordering::SeqCst)
    }
}

impl Drop for Cooperation {
    fn drop(&mut self) {
        COOPERATIVE.store(false, Ordering::SeqCst);
    }
}

/// A folder that Ctrl-C removes, as long as this lives.
pub struct Unfinished(());

impl Unfinished {
    pub fn folder(path: &Path) -> Self {
        *UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner) = Some(path.to_owned());
        Unfinished(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

fn remove_unfinished() {
    let unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(folder) = unfinished else { return };
    // Other threads may still be adding files.
    for _ in 0..100 {
        if std::fs::remove_dir_all(&folder).is_ok() || !folder.exists() {
            return;
        }
    }
    eprintln!("{} is left behind; remove it", folder.display());
}
