use std::time::Duration;

use crate::{Error, FilePath};

/// What a download tells while it runs. Events come from several threads, those of one file in order.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The listing is known; comes once, before all file events.
    Planned {
        /// How many files are wanted.
        file_count: usize,
        /// Bytes of the distinct contents of the wanted files.
        bytes_total: u64,
        /// How many of those bytes are in the cache already, parts of files included.
        bytes_present: u64,
    },
    /// A file is about to be fetched.
    Started {
        /// The file; one of them, if several have the same content.
        file: &'a FilePath,
        /// Its size.
        bytes_total: u64,
    },
    /// Another process, or another download of this one, is fetching the file; this one waits for it.
    Waiting {
        /// The file.
        file: &'a FilePath,
    },
    /// Bytes arrived, or were thrown away: both numbers may fall when a file has to start again.
    Advanced {
        /// The file.
        file: &'a FilePath,
        /// Bytes of the file on disk.
        bytes_of_file: u64,
        /// Bytes of all wanted files on disk.
        bytes_present: u64,
    },
    /// Something failed in passing and is tried again after a pause.
    Retrying {
        /// The file, or `None` for the listing.
        file: Option<&'a FilePath>,
        /// What failed.
        error: &'a Error,
        /// The pause.
        wait: Duration,
    },
    /// A file is complete, its hash is right, and it is in the snapshot folder.
    Finished {
        /// The file.
        file: &'a FilePath,
    },
}

/// Who hears the events of a download: `&|_| {}` for nobody. Must return soon.
pub type Progress<'a> = dyn Fn(Event<'_>) + Sync + 'a;
