use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::client::Client;
use crate::event::{Event, Progress};
use crate::layout::Layout;
use crate::transfer::{Blob, Transfers};
use crate::{Content, Error, FilePath, Listing, Repository, Result, Revision, disk, listing, lookup};

const TOTAL_BYTES_MAX: u64 = 1 << 46;

/// What to download and who hears of it.
pub(crate) struct Request<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) revision: &'a Revision,
    pub(crate) filter: &'a (dyn Fn(&FilePath) -> bool + Sync),
    pub(crate) progress: &'a Progress<'a>,
}

/// Brings the wanted files of a revision into the cache and gives the snapshot's folder.
pub(crate) fn run(client: &Client<'_>, layout: &Layout, request: &Request<'_>) -> Result<PathBuf> {
    let Request {
        repository,
        revision,
        filter,
        progress,
    } = *request;
    let report = |error: &Error, wait| {
        progress(Event::Retrying {
            file: None,
            error,
            wait,
        })
    };
    let mut listing = listing::fetch(client, repository, revision, report)?;
    if !listing.files.iter().any(|file| filter(&file.path)) {
        let file_count = listing.files.len();
        return Err(Error::NothingSelected {
            repository: repository.clone(),
            file_count,
        });
    }
    ask_for_missing_content(client, &mut listing, request)?;
    let blobs = plan(layout, &listing, filter)?;

    let bytes_total: u64 = blobs.iter().map(|blob| blob.content.size_bytes).sum();
    let bytes_present = blobs.iter().map(|blob| blob.bytes_planned_present).sum();
    let file_count = blobs.iter().map(|blob| blob.files.len()).sum();
    progress(Event::Planned {
        file_count,
        bytes_total,
        bytes_present,
    });
    disk::check_space(layout.cache(), bytes_total - bytes_present)?;

    layout.create_folders()?;
    // Before the first file, so that a snapshot that stays incomplete is known to be.
    layout.write_listing(&listing.commit, &lookup::stored_form(&listing))?;
    let bytes_present = AtomicU64::new(bytes_present);
    let listing = &listing;
    let transfers = Transfers {
        client,
        layout,
        listing,
        revision,
        progress,
        bytes_present: &bytes_present,
    };
    run_all(&transfers, &blobs)?;
    // Last, so that a branch keeps standing for its old, complete snapshot until the new one is complete.
    layout.write_reference(revision, &listing.commit)?;
    Ok(layout.snapshot(&listing.commit))
}

fn ask_for_missing_content(client: &Client<'_>, listing: &mut Listing, request: &Request<'_>) -> Result<()> {
    for index in 0..listing.files.len() {
        let path = &listing.files[index].path;
        if listing.files[index].content.is_none() && (request.filter)(path) {
            let report = |error: &Error, wait| {
                (request.progress)(Event::Retrying {
                    file: Some(path),
                    error,
                    wait,
                });
            };
            let content = listing::fetch_content(client, listing, path, report)?;
            listing.files[index].content = Some(content);
        }
    }
    Ok(())
}

/// The distinct contents of the wanted files: small ones first, then the largest first, so that the few
/// documents that say what the rest is arrive early and no connection is left with a large file at the end.
fn plan(layout: &Layout, listing: &Listing, filter: &dyn Fn(&FilePath) -> bool) -> Result<Vec<Blob>> {
    const SMALL_BYTES_MAX: u64 = 64 << 20;
    let mut blobs: Vec<Blob> = Vec::new();
    let mut indexes = HashMap::new();
    let mut bytes_total: u64 = 0;
    for file in listing.files.iter().filter(|file| filter(&file.path)) {
        let Some(content) = &file.content else { continue };
        let index = *indexes.entry(content).or_insert_with(|| {
            bytes_total = bytes_total.saturating_add(content.size_bytes);
            blobs.push(Blob {
                content: content.clone(),
                files: Vec::new(),
                bytes_planned_present: bytes_on_disk(layout, content),
            });
            blobs.len() - 1
        });
        blobs[index].files.push(file.path.clone());
    }
    if bytes_total > TOTAL_BYTES_MAX {
        let reason = format!("the files have {bytes_total} bytes, expected at most {TOTAL_BYTES_MAX}");
        return Err(Error::Answer {
            url: listing.repository.to_string(),
            reason,
        });
    }
    blobs.sort_by_key(|blob| {
        let size_bytes = blob.content.size_bytes;
        let is_large = size_bytes > SMALL_BYTES_MAX;
        (is_large, if is_large { u64::MAX - size_bytes } else { size_bytes })
    });
    Ok(blobs)
}

/// Bytes of a content that earlier downloads left, in a blob or a part of one.
fn bytes_on_disk(layout: &Layout, content: &Content) -> u64 {
    if layout.has_blob(content) {
        return content.size_bytes;
    }
    let metadata = layout.partial_blob(&content.hash).metadata();
    metadata.map_or(0, |metadata| metadata.len()).min(content.size_bytes)
}

/// Fetches the blobs over as many connections as the settings allow; the first error ends all.
fn run_all(transfers: &Transfers<'_>, blobs: &[Blob]) -> Result<()> {
    let client = transfers.client;
    let next = AtomicUsize::new(0);
    let first_error = Mutex::new(None);
    let work = || {
        while let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = client.stop().check().and_then(|()| transfers.run(blob));
            if let Err(error) = result {
                first_error
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert(error);
                client.interrupt();
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..client.settings().connection_count.min(blobs.len()) {
            scope.spawn(work);
        }
    });
    first_error
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .map_or(Ok(()), Err)
}
