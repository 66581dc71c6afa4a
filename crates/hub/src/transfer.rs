use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use ureq::http::{HeaderMap, header};

use crate::client::{Answer, Client};
use crate::event::{Event, Progress};
use crate::layout::Layout;
use crate::listing::{Listing, file_url};
use crate::lock::BlobLock;
use crate::partial::{Partial, Settled};
use crate::refusal::{Subject, refusal};
use crate::retry::{Backoff, Failure};
use crate::{Content, Error, FilePath, Result, Revision};

const READ_BYTES: usize = 256 << 10;
/// A transfer that moved this much counts as working, so failures before it are forgotten.
const PROGRESS_BYTES: u64 = 1 << 20;

/// One content to fetch and the files that have it.
pub(crate) struct Blob {
    pub(crate) content: Content,
    /// At least one.
    pub(crate) files: Vec<FilePath>,
    /// How many of its bytes the plan found on disk.
    pub(crate) bytes_planned_present: u64,
}

impl Blob {
    pub(crate) fn first_file(&self) -> &FilePath {
        &self.files[0]
    }
}

/// What all transfers of one download share.
pub(crate) struct Transfers<'a> {
    pub(crate) client: &'a Client<'a>,
    pub(crate) layout: &'a Layout,
    pub(crate) listing: &'a Listing,
    pub(crate) revision: &'a Revision,
    pub(crate) progress: &'a Progress<'a>,
    /// Bytes of all wanted blobs on disk.
    pub(crate) bytes_present: &'a AtomicU64,
}

impl Transfers<'_> {
    /// Brings one blob into the cache and its files into the snapshot, whatever is there already.
    ///
    /// # Errors
    /// All of a transfer's: what the hub refuses, what the network does, what the disk does, a wrong hash.
    pub(crate) fn run(&self, blob: &Blob) -> Result<()> {
        let counted = Counted::new(self, blob);
        if !self.layout.has_blob(&blob.content) {
            self.fetch(blob, &counted)?;
        }
        counted.set(blob.content.size_bytes);
        for file in &blob.files {
            self.layout.link(&self.listing.commit, file, &blob.content)?;
            (self.progress)(Event::Finished { file });
        }
        Ok(())
    }

    fn fetch(&self, blob: &Blob, counted: &Counted<'_>) -> Result<()> {
        let (content, file) = (&blob.content, blob.first_file());
        let stop = self.client.stop();
        let report_waiting = || (self.progress)(Event::Waiting { file });
        let lock = BlobLock::acquire(&self.layout.lock(&content.hash), stop, report_waiting)?;
        if self.layout.has_blob(content) {
            return Ok(());
        }
        (self.progress)(Event::Started {
            file,
            bytes_total: content.size_bytes,
        });
        for is_last_try in [false, true] {
            let path = match lock.is_exclusive() {
                true => self.layout.partial_blob(&content.hash),
                false => self.layout.private_partial_blob(&content.hash),
            };
            let mut partial = Partial::open(path, content, !lock.is_exclusive(), stop)?;
            counted.set(partial.length_bytes());
            self.complete(blob, &mut partial, counted)?;
            match partial.settle(&self.layout.blob(&content.hash))? {
                Settled::InPlace => return Ok(()),
                Settled::Corrupt { found } if is_last_try => {
                    counted.set(0);
                    return Err(Error::Hash {
                        file: file.clone(),
                        expected: content.hash.clone(),
                        found,
                    });
                }
                Settled::Corrupt { .. } => counted.set(0),
            }
        }
        unreachable!("the last try returns")
    }

    /// Requests the missing bytes until none is missing.
    fn complete(&self, blob: &Blob, partial: &mut Partial<'_>, counted: &Counted<'_>) -> Result<()> {
        let mut backoff = Backoff::new(&self.client.settings().retry);
        // Only bytes beyond all earlier ones are progress, so that a file that starts again and again ends.
        let mut reached_bytes = partial.length_bytes();
        while !partial.is_whole() {
            let Err(failure) = self.receive(blob, partial, counted) else {
                continue;
            };
            if partial.length_bytes().saturating_sub(reached_bytes) >= PROGRESS_BYTES {
                reached_bytes = partial.length_bytes();
                backoff.reset();
            }
            let (wait, error) = backoff.after(failure)?;
            (self.progress)(Event::Retrying {
                file: Some(blob.first_file()),
                error: &error,
                wait,
            });
            self.client.stop().pause(wait)?;
        }
        Ok(())
    }

    /// One request: appends what arrives. Success means that the file is whole.
    fn receive(&self, blob: &Blob, partial: &mut Partial<'_>, counted: &Counted<'_>) -> Result<(), Failure> {
        let file = blob.first_file();
        let size_bytes = blob.content.size_bytes;
        let url = file_url(self.client, self.listing, file);
        let answer = self.client.get(&url, partial.length_bytes())?;
        match answer.status {
            200 if partial.length_bytes() > 0 => {
                // The server ignores ranges and sends everything again.
                partial.clear()?;
                counted.set(0);
            }
            200 => {}
            206 if range_fits(&answer.headers, partial.length_bytes(), size_bytes) => {}
            206 | 416 => {
                partial.clear()?;
                counted.set(0);
                let range = answer.headers.get(header::CONTENT_RANGE).cloned();
                let reason = format!("Content-Range is {range:?}, expected {size_bytes} bytes in all");
                return Err(Failure::passing(Error::Answer {
                    url: answer.url,
                    reason,
                }));
            }
            _ => {
                let revision = self.revision;
                let subject = Subject {
                    repository: &self.listing.repository,
                    revision,
                    file: Some(file),
                };
                return Err(refusal(self.client, &answer, subject));
            }
        }
        self.check_headers(&answer, blob)?;
        self.append_body(answer, file, size_bytes, partial, counted)
    }

    /// Refuses content that is announced to be another one.
    fn check_headers(&self, answer: &Answer, blob: &Blob) -> Result<(), Failure> {
        let refuse = |reason| {
            Err(Error::Answer {
                url: answer.url.clone(),
                reason,
            }
            .into())
        };
        if let Some(encoding) = answer.headers.get(header::CONTENT_ENCODING)
            && encoding != "identity"
        {
            return refuse(format!("Content-Encoding is {encoding:?}, expected none"));
        }
        if let Some(commit) = answer.hub_headers.get("x-repo-commit")
            && commit != self.listing.commit.as_str()
        {
            return refuse(format!("X-Repo-Commit is {commit:?}, expected {}", self.listing.commit));
        }
        if let Some(hash) = answer
            .hub_headers
            .get("x-linked-etag")
            .and_then(|value| value.to_str().ok())
            && hash.trim_start_matches("W/").trim_matches('"') != blob.content.hash.hexadecimal()
        {
            return refuse(format!(
                "X-Linked-ETag is {hash}, expected {}",
                blob.content.hash.hexadecimal()
            ));
        }
        Ok(())
    }

    fn append_body(
        &self,
        answer: Answer,
        file: &FilePath,
        size_bytes: u64,
        partial: &mut Partial<'_>,
        counted: &Counted<'_>,
    ) -> Result<(), Failure> {
        let wrong_length = |bytes_found| {
            Failure::passing(Error::Length {
                file: file.clone(),
                bytes_expected: size_bytes,
                bytes_found,
            })
        };
        if let Some(bytes) = answer.body.content_length()
            && partial.length_bytes().checked_add(bytes) != Some(size_bytes)
        {
            return Err(wrong_length(partial.length_bytes().saturating_add(bytes)));
        }
        let url = answer.url;
        let mut body = answer.body.into_reader();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            self.client.stop().check()?;
            let count = match body.read(&mut buffer) {
                Ok(0) if partial.is_whole() => return Ok(()),
                Ok(0) => return Err(wrong_length(partial.length_bytes())),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.client.broken(&url, &error)),
            };
            if count as u64 > size_bytes - partial.length_bytes() {
                let bytes_found = partial.length_bytes() + count as u64;
                partial.clear()?;
                counted.set(0);
                return Err(wrong_length(bytes_found));
            }
            partial.append(&buffer[..count])?;
            counted.set(partial.length_bytes());
        }
    }
}

/// The share of one file in the count of all bytes present.
struct Counted<'a> {
    transfers: &'a Transfers<'a>,
    file: &'a FilePath,
    bytes: AtomicU64,
}

impl<'a> Counted<'a> {
    fn new(transfers: &'a Transfers<'a>, blob: &'a Blob) -> Self {
        Counted {
            transfers,
            file: blob.first_file(),
            bytes: AtomicU64::new(blob.bytes_planned_present),
        }
    }

    fn set(&self, bytes: u64) {
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        if before == bytes {
            return;
        }
        // Wraps when bytes are thrown away; the sum of all shares stays right.
        let change = bytes.wrapping_sub(before);
        let total = self.transfers.bytes_present.fetch_add(change, Ordering::Relaxed);
        (self.transfers.progress)(Event::Advanced {
            file: self.file,
            bytes_of_file: bytes,
            bytes_present: total.wrapping_add(change),
        });
    }
}

/// Whether `Content-Range: bytes <start>-<end>/<size>` continues at `offset_bytes` in a file of this size.
fn range_fits(headers: &HeaderMap, offset_bytes: u64, size_bytes: u64) -> bool {
    let fits = || {
        let range = headers
            .get(header::CONTENT_RANGE)?
            .to_str()
            .ok()?
            .strip_prefix("bytes ")?;
        let (range, size) = range.split_once('/')?;
        let (start, end) = range.split_once('-')?;
        let is_last = end.parse::<u64>().ok()?.checked_add(1)? == size_bytes;
        let size_agrees = size == "*" || size.parse::<u64>().ok()? == size_bytes;
        Some(start.parse::<u64>().ok()? == offset_bytes && is_last && size_agrees)
    };
    fits() == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        for (value, expected) in [
            ("bytes 4-9/10", true),
            ("bytes 4-9/*", true),
            ("bytes 0-9/10", false),
            ("bytes 4-8/10", false),
            ("bytes 4-9/11", false),
            ("bytes */10", false),
            ("bytes 4-18446744073709551615/10", false),
            ("4-9/10", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_RANGE, value.parse().unwrap())]);
            assert_eq!(range_fits(&headers, 4, 10), expected, "{value}");
        }
        assert!(!range_fits(&HeaderMap::new(), 0, 10));
    }
}
