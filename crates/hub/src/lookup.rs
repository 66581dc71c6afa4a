use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::layout::{Layout, has_size};
use crate::listing::Listing;
use crate::{FilePath, HashAlgorithm, Revision};

const DOCUMENT_BYTES_MAX: u64 = 64 << 20;
const LISTING_FORMAT_VERSION: u32 = 1;

/// What a commit lists, as it is kept in the cache; huggingface_hub's `trees/` have the same form.
#[derive(Serialize, Deserialize)]
struct StoredListing {
    format_version: u32,
    files: BTreeMap<String, StoredFile>,
}

#[derive(Serialize, Deserialize)]
struct StoredFile {
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blob_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lfs_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lfs_size: Option<u64>,
}

/// The folder of a snapshot in which every wanted file is complete.
///
/// If a listing of the commit is in the cache, ours or huggingface_hub's, every listed file that passes the
/// filter must be there with its size. Otherwise the files must vouch for each other, see [`is_closed`].
pub(crate) fn find_complete(
    layout: &Layout,
    revision: &Revision,
    filter: &dyn Fn(&FilePath) -> bool,
) -> Option<PathBuf> {
    let commit = layout.commit_of(revision)?;
    let snapshot = layout.snapshot(&commit);
    if !snapshot.is_dir() {
        return None;
    }
    let is_complete = match layout.listings(&commit).iter().find_map(|path| read_listing(path)) {
        Some(listing) => has_listed_files(&snapshot, &listing, filter),
        None => is_closed(&snapshot, filter),
    };
    is_complete.then_some(snapshot)
}

/// Our listing of a commit as it is kept in the cache.
pub(crate) fn stored_form(listing: &Listing) -> Vec<u8> {
    let entry = |file: &crate::RemoteFile| {
        let mut stored = StoredFile {
            size: None,
            blob_id: None,
            lfs_sha256: None,
            lfs_size: None,
        };
        if let Some(content) = &file.content {
            let digits = Some(content.hash.hexadecimal().to_owned());
            stored.size = Some(content.size_bytes);
            match content.hash.algorithm() {
                HashAlgorithm::GitSha1 => stored.blob_id = digits,
                HashAlgorithm::Sha256 => (stored.lfs_sha256, stored.lfs_size) = (digits, stored.size),
            }
        }
        (file.path.as_str().to_owned(), stored)
    };
    let stored = StoredListing {
        format_version: LISTING_FORMAT_VERSION,
        files: listing.files.iter().map(entry).collect(),
    };
    serde_json::to_vec_pretty(&stored).expect("strings and numbers always have a JSON form")
}

fn read_listing(path: &Path) -> Option<StoredListing> {
    let listing: StoredListing = serde_json::from_slice(&read_document(path)?).ok()?;
    (listing.format_version == LISTING_FORMAT_VERSION).then_some(listing)
}

fn has_listed_files(snapshot: &Path, listing: &StoredListing, filter: &dyn Fn(&FilePath) -> bool) -> bool {
    let mut wanted_count = 0;
    for (name, stored) in &listing.files {
        let Ok(file) = FilePath::parse(name) else { return false };
        if !filter(&file) {
            continue;
        }
        wanted_count += 1;
        let path = snapshot.join(file.to_relative_path());
        let is_there = match stored.lfs_size.or(stored.size) {
            Some(size_bytes) => has_size(&path, size_bytes),
            None => path.is_file(),
        };
        if !is_there {
            return false;
        }
    }
    wanted_count > 0
}

/// Whether the safetensors files at the top of a folder vouch for each other: there is at least one, every
/// file that an index names is there, and of files numbered `x-of-y` all y are there.
///
/// The best that can be said of a snapshot that an older tool has fetched: such a tool leaves no listing, and
/// links files one by one.
fn is_closed(snapshot: &Path, filter: &dyn Fn(&FilePath) -> bool) -> bool {
    let Ok(entries) = fs::read_dir(snapshot) else {
        return false;
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let Ok(entry) = entry else { return false };
        let Some(file) = entry.file_name().to_str().and_then(|name| FilePath::parse(name).ok()) else {
            continue;
        };
        if !filter(&file) {
            continue;
        }
        // Follows links: one whose blob was deleted is no file.
        if !entry.path().is_file() {
            return false;
        }
        names.insert(file.as_str().to_owned());
    }
    let indexes = names.iter().filter(|name| name.ends_with(".safetensors.index.json"));
    let indexes_are_closed = indexes.into_iter().all(|name| {
        indexed_files(&snapshot.join(name)).is_some_and(|files| files.iter().all(|file| names.contains(file)))
    });
    let mut tensor_files = names.iter().filter(|name| name.ends_with(".safetensors")).peekable();
    tensor_files.peek().is_some()
        && indexes_are_closed
        && tensor_files.all(|name| siblings_in_count(name).iter().all(|sibling| names.contains(sibling)))
}

fn indexed_files(index: &Path) -> Option<BTreeSet<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index: Index = serde_json::from_slice(&read_document(index)?).ok()?;
    Some(index.weight_map.into_values().collect())
}

/// The last of the files that `model-00001-of-00046.safetensors` counts, and the one before this; by
/// induction over a folder these imply all of them. Empty for a name without a count.
fn siblings_in_count(name: &str) -> Vec<String> {
    let parse = || {
        let (start, count) = name.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
        let (prefix, number) = start.rsplit_once('-')?;
        let (number_value, count_value): (u32, u32) = (number.parse().ok()?, count.parse().ok()?);
        let width = number.len();
        let sibling = |number: u32| format!("{prefix}-{number:0width$}-of-{count}.safetensors");
        let before = (number_value > 1).then(|| sibling(number_value - 1));
        Some(before.into_iter().chain([sibling(count_value)]).collect())
    };
    parse().unwrap_or_default()
}

fn read_document(path: &Path) -> Option<Vec<u8>> {
    let mut document = Vec::new();
    let file = fs::File::open(path).ok()?;
    file.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut document).ok()?;
    (document.len() as u64 <= DOCUMENT_BYTES_MAX).then_some(document)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::is_model_file;

    const INDEX: &str =
        r#"{"metadata":{},"weight_map":{"a":"m-00001-of-00002.safetensors","b":"m-00002-of-00002.safetensors"}}"#;

    #[test]
    fn a_folder_without_listing_is_complete_when_its_files_vouch_for_each_other() {
        let cases: &[(bool, &[(&str, &str)])] = &[
            (false, &[]),
            (false, &[("config.json", "{}")]),
            (true, &[("config.json", "{}"), ("model.safetensors", "")]),
            (false, &[("model.safetensors.index.json", INDEX)]),
            (
                false,
                &[
                    ("model.safetensors.index.json", INDEX),
                    ("m-00001-of-00002.safetensors", ""),
                ],
            ),
            (
                false,
                &[("model.safetensors.index.json", "{"), ("model.safetensors", "")],
            ),
            (
                true,
                &[
                    ("model.safetensors.index.json", INDEX),
                    ("m-00001-of-00002.safetensors", ""),
                    ("m-00002-of-00002.safetensors", ""),
                ],
            ),
            // The index has not arrived yet: the numbers tell.
            (
                false,
                &[
                    ("m-00001-of-00003.safetensors", ""),
                    ("m-00003-of-00003.safetensors", ""),
                ],
            ),
            (false, &[("m-00001-of-00002.safetensors", "")]),
            (false, &[("m-00002-of-00002.safetensors", "")]),
            (
                true,
                &[
                    ("m-00001-of-00002.safetensors", ""),
                    ("m-00002-of-00002.safetensors", ""),
                ],
            ),
        ];
        for (expected, files) in cases {
            let folder = tempfile::tempdir().unwrap();
            for (name, text) in *files {
                fs::write(folder.path().join(name), text).unwrap();
            }
            assert_eq!(is_closed(folder.path(), &is_model_file), *expected, "{files:?}");
        }
    }

    #[test]
    fn a_link_without_its_blob_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model.safetensors"), "").unwrap();
        assert!(is_closed(folder.path(), &is_model_file));
        std::os::unix::fs::symlink("../../blobs/gone", folder.path().join("config.json")).unwrap();
        assert!(!is_closed(folder.path(), &is_model_file));
    }
}
