use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;

use crate::address::encode;
use crate::client::Client;
use crate::refusal::{Subject, refusal};
use crate::{Commit, ContentHash, Error, FilePath, Repository, Result, Revision};

const DOCUMENT_BYTES_MAX: u64 = 64 << 20;
const DOCUMENT_TIME_MAX: Duration = Duration::from_secs(120);
const FILE_COUNT_MAX: usize = 100_000;
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 40;

/// The files of a repository at one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The repository that was listed.
    pub repository: Repository,
    /// The commit that the revision stands for now.
    pub commit: Commit,
    /// Every file, in the server's order; names are distinct.
    pub files: Vec<RemoteFile>,
}

/// One file of a [`Listing`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// The name.
    pub path: FilePath,
    /// Size and hash; `None` if the hub does not list them (a download then asks for each file).
    pub content: Option<Content>,
}

/// What a file holds: its size and its hash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Content {
    /// Size, at most 1 TiB.
    pub size_bytes: u64,
    /// Hash, which is also the name of the blob.
    pub hash: ContentHash,
}

/// Asks the hub for the files of a repository.
pub(crate) fn fetch(
    client: &Client<'_>,
    repository: &Repository,
    revision: &Revision,
    on_retry: impl Fn(&Error, Duration),
) -> Result<Listing> {
    let revision_part = encode(revision.as_str(), false);
    let url = client.url(&format!("/api/models/{repository}/revision/{revision_part}?blobs=true"));
    let subject = Subject {
        repository,
        revision,
        file: None,
    };
    let document = client.get_document(&url, subject, DOCUMENT_BYTES_MAX, DOCUMENT_TIME_MAX, on_retry)?;
    let listing = parse(repository, &url, &document)?;
    if revision.commit().is_some_and(|commit| commit != listing.commit) {
        let reason = format!("sha is {}, expected {revision}", listing.commit);
        return Err(Error::Answer { url, reason });
    }
    Ok(listing)
}

/// Asks for size and hash of a file that is listed without them.
pub(crate) fn fetch_content(
    client: &Client<'_>,
    listing: &Listing,
    file: &FilePath,
    on_retry: impl Fn(&Error, Duration),
) -> Result<Content> {
    let url = file_url(client, listing, file);
    let revision = listing.commit.as_str().parse()?;
    let subject = Subject {
        repository: &listing.repository,
        revision: &revision,
        file: Some(file),
    };
    client.retrying(on_retry, || {
        let answer = client.head(&url)?;
        if answer.status >= 400 {
            return Err(refusal(client, &answer, subject));
        }
        let header = |names: [&str; 2]| {
            let value = names.iter().find_map(|name| answer.hub_headers.get(*name));
            value.and_then(|value| value.to_str().ok()).unwrap_or_default()
        };
        let missing = |reason: String| Error::Answer {
            url: url.clone(),
            reason,
        };
        let hash = header(["x-linked-etag", "etag"]);
        let hash = ContentHash::parse(hash.trim_start_matches("W/").trim_matches('"'))
            .ok_or_else(|| missing(format!("X-Linked-ETag or ETag is '{hash}', expected a hash")))?;
        let size_bytes = header(["x-linked-size", "content-length"]);
        let size_bytes = size_bytes.parse().map_err(|_| {
            missing(format!(
                "X-Linked-Size or Content-Length is '{size_bytes}', expected a number"
            ))
        })?;
        check_size(&url, file.as_str(), size_bytes)?;
        Ok(Content { size_bytes, hash })
    })
}

/// Where the hub serves a file.
pub(crate) fn file_url(client: &Client<'_>, listing: &Listing, file: &FilePath) -> String {
    let (repository, commit) = (&listing.repository, &listing.commit);
    client.url(&format!(
        "/{repository}/resolve/{commit}/{}",
        encode(file.as_str(), true)
    ))
}

#[derive(Deserialize)]
struct Document {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<LargeFile>,
}

#[derive(Deserialize)]
struct LargeFile {
    sha256: Option<String>,
    size: Option<u64>,
}

fn parse(repository: &Repository, url: &str, document: &[u8]) -> Result<Listing> {
    let refuse = |reason: String| Error::Answer {
        url: url.to_owned(),
        reason,
    };
    let document: Document =
        serde_json::from_slice(document).map_err(|error| refuse(format!("not the expected JSON: {error}")))?;
    let commit = Commit::parse(&document.sha)
        .ok_or_else(|| refuse("sha is not a commit of 40 hexadecimal digits".to_owned()))?;
    if document.siblings.len() > FILE_COUNT_MAX {
        return Err(refuse(format!("expected at most {FILE_COUNT_MAX} siblings")));
    }
    let mut names = BTreeSet::new();
    let mut files = Vec::with_capacity(document.siblings.len());
    for sibling in document.siblings {
        let path = FilePath::parse(&sibling.rfilename).map_err(|reason| Error::FileName {
            repository: repository.clone(),
            name: sibling.rfilename.clone(),
            reason,
        })?;
        if !names.insert(path.clone()) {
            return Err(refuse(format!("'{path}' is listed twice")));
        }
        let content = sibling.content(url)?;
        files.push(RemoteFile { path, content });
    }
    Ok(Listing {
        repository: repository.clone(),
        commit,
        files,
    })
}

impl Sibling {
    fn content(&self, url: &str) -> Result<Option<Content>> {
        let name = &self.rfilename;
        let (hash, size_bytes) = match &self.lfs {
            Some(large) => (&large.sha256, large.size.or(self.size)),
            None => (&self.blob_id, self.size),
        };
        let (Some(hash), Some(size_bytes)) = (hash, size_bytes) else {
            return Ok(None);
        };
        let hash = ContentHash::parse(hash).ok_or_else(|| Error::Answer {
            url: url.to_owned(),
            reason: format!("the hash of '{name}' is '{hash}'"),
        })?;
        check_size(url, name, size_bytes)?;
        Ok(Some(Content { size_bytes, hash }))
    }
}

fn check_size(url: &str, name: &str, size_bytes: u64) -> Result<()> {
    if size_bytes <= FILE_BYTES_MAX {
        return Ok(());
    }
    let reason = format!("'{name}' has {size_bytes} bytes, expected at most {FILE_BYTES_MAX}");
    Err(Error::Answer {
        url: url.to_owned(),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    const SHA1: &str = "ce013625030ba8dba906f756967f9e9ca394464a";

    fn parse_siblings(siblings: &str) -> Result<Listing> {
        let document = format!(r#"{{"sha":"{COMMIT}","private":false,"siblings":{siblings}}}"#);
        parse(&"a/b".parse().unwrap(), "http://hub/api", document.as_bytes())
    }

    #[test]
    fn large_files_have_sha256_and_small_ones_the_git_hash() {
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        let listing = parse_siblings(&format!(
            r#"[{{"rfilename":"a.json","size":6,"blobId":"{SHA1}"}},
                {{"rfilename":"b.safetensors","size":6,"blobId":"{SHA1}",
                  "lfs":{{"sha256":"{sha256}","size":6,"pointerSize":135}}}},
                {{"rfilename":"c"}}]"#
        ))
        .unwrap();
        let hashes: Vec<_> = listing
            .files
            .iter()
            .map(|file| file.content.as_ref().map(|content| content.hash.hexadecimal()))
            .collect();
        assert_eq!(hashes, [Some(SHA1), Some(sha256), None]);
    }

    #[test]
    fn what_a_hub_would_not_say_is_refused() {
        for bad in [
            r#"[{"rfilename":"../x"}]"#,
            r#"[{"rfilename":"/etc/passwd"}]"#,
            r#"[{"rfilename":"a\\b"}]"#,
            r#"[{"rfilename":"a"},{"rfilename":"a"}]"#,
            r#"[{"rfilename":"a","size":6,"blobId":"../../x"}]"#,
            r#"[{"rfilename":"a","size":-1}]"#,
            r#"[{"rfilename":"a","size":99999999999999999999999}]"#,
            r#"[{"rfilename":"a","size":1099511627777,"blobId":"ce013625030ba8dba906f756967f9e9ca394464a"}]"#,
            r#"[{"size":1}]"#,
            r#"{"a":1}"#,
            "[",
        ] {
            assert!(parse_siblings(bad).is_err(), "{bad}");
        }
        let parse = |document: &str| parse(&"a/b".parse().unwrap(), "http://hub/api", document.as_bytes());
        assert!(parse(r#"{"sha":"main","siblings":[]}"#).is_err());
        assert!(parse("<html>captive portal</html>").is_err());
        assert!(parse(r#"{"siblings":[]}"#).is_err());
    }
}
