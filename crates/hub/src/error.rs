use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{ContentHash, FilePath, Repository, Revision};

/// What can go wrong between a model's name and its folder.
///
/// Addresses inside messages carry no query: signed download links are credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is no repository name.
    #[error("'{name}' is no model name: {reason}; expected organisation/name, such as deepseek-ai/DeepSeek-V4-Flash")]
    RepositoryName {
        /// The text as given.
        name: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// The text is no revision name.
    #[error("'{revision}' is no revision: {reason}; expected a branch, a tag or a commit")]
    RevisionName {
        /// The text as given.
        revision: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// A setting or an environment variable has a value that cannot be used.
    #[error("{setting} cannot be used: {reason}")]
    Setting {
        /// The name of the setting or of the variable.
        setting: &'static str,
        /// Why, and what is expected.
        reason: String,
    },
    /// The server lists a file whose name could lead out of the snapshot folder.
    #[error("{repository} lists a file named {name:?}, which is refused: {reason}")]
    FileName {
        /// The repository that lists the file.
        repository: Repository,
        /// The name as the server spells it.
        name: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// The hub has no such repository, or hides it (it answers both alike).
    #[error(
        "{repository} was not found at {endpoint} (HTTP {status}, {}): check the spelling{}",
        sent(*.token_sent),
        if *.token_sent { " and that the token may read it" } else { "; for a private or gated model set HF_TOKEN" }
    )]
    RepositoryNotFound {
        /// The repository asked for.
        repository: Repository,
        /// The hub that was asked.
        endpoint: String,
        /// 401 or 404.
        status: u16,
        /// Whether the request carried a token.
        token_sent: bool,
    },
    /// The repository is there, but its owner has not let this account in.
    #[error(
        "access to {repository} is restricted ({}): accept its conditions at {endpoint}/{repository}{}",
        sent(*.token_sent),
        if *.token_sent { " with the account of the token" } else { ", then set HF_TOKEN" }
    )]
    Gated {
        /// The repository asked for.
        repository: Repository,
        /// The hub that was asked.
        endpoint: String,
        /// Whether the request carried a token.
        token_sent: bool,
    },
    /// The repository has no such branch, tag or commit.
    #[error("{repository} has no revision '{revision}'; the default revision is 'main'")]
    RevisionNotFound {
        /// The repository asked for.
        repository: Repository,
        /// The revision asked for.
        revision: Revision,
    },
    /// A listed file is not served.
    #[error("{repository} lists {file} but the server does not have it")]
    FileNotFound {
        /// The repository that lists the file.
        repository: Repository,
        /// The file asked for.
        file: FilePath,
    },
    /// The filter leaves no file of the repository.
    #[error("{repository} holds {file_count} files but none that is needed; is it a model in safetensors files?")]
    NothingSelected {
        /// The repository that was listed.
        repository: Repository,
        /// How many files it lists.
        file_count: usize,
    },
    /// Offline mode is on and the cache has no complete snapshot.
    #[error(
        "{repository} at revision '{revision}' is not complete in {cache} and offline mode is on; unset HF_HUB_OFFLINE to download it",
        cache = .cache.display()
    )]
    Offline {
        /// The repository asked for.
        repository: Repository,
        /// The revision asked for.
        revision: Revision,
        /// The cache that was searched.
        cache: PathBuf,
    },
    /// The files do not fit.
    #[error("{} has {bytes_free} bytes free and the download needs {bytes_needed}; free space or set HF_HUB_CACHE to another disk", .folder.display())]
    DiskFull {
        /// The cache folder.
        folder: PathBuf,
        /// Bytes still to be written.
        bytes_needed: u64,
        /// Bytes free for this user.
        bytes_free: u64,
    },
    /// The server answered, but not as a Hugging Face compatible hub answers.
    #[error("unusable answer from {url}: {reason}; is this a Hugging Face compatible hub?")]
    Answer {
        /// The address, without query.
        url: String,
        /// The field and what was expected of it.
        reason: String,
    },
    /// The server answered with a status that says no.
    #[error("{url} answered HTTP {status}{}", .message.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Status {
        /// The address, without query.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The server's own words, if it has any.
        message: Option<String>,
    },
    /// The server asks for a longer pause than the settings allow.
    #[error("{url} asks to wait {} s before the next request; try again later{}", .wait.as_secs(),
        if *.token_sent { "" } else { " or set HF_TOKEN for higher limits" })]
    RateLimited {
        /// The address, without query.
        url: String,
        /// The pause asked for.
        wait: Duration,
        /// Whether the request carried a token.
        token_sent: bool,
    },
    /// No connection, a connection that was cut, or one that stalled, also after all retries.
    #[error(
        "cannot reach {url}: {reason}; check the network, HF_ENDPOINT and proxy settings, then start again: finished parts are kept"
    )]
    Transport {
        /// The address, without query.
        url: String,
        /// What the network layer says.
        reason: String,
    },
    /// The server redirects in circles, to a scheme that is not HTTP, or from HTTPS to HTTP.
    #[error("{url} redirects {reason}")]
    Redirect {
        /// The address at which it was refused, without query.
        url: String,
        /// Why it was refused.
        reason: String,
    },
    /// The server sends another number of bytes than it listed.
    #[error(
        "{file} has {bytes_expected} bytes in the listing but the server sends {bytes_found}; a proxy may be altering downloads"
    )]
    Length {
        /// The file.
        file: FilePath,
        /// Bytes in the listing.
        bytes_expected: u64,
        /// Bytes of the file according to the transfer.
        bytes_found: u64,
    },
    /// The content does not have its listed hash, also after a second download from nothing.
    #[error("{file} is corrupt after two downloads: {} {found}, expected {}; the file was deleted; a proxy may be altering downloads", .expected.algorithm(), .expected.hexadecimal())]
    Hash {
        /// The file.
        file: FilePath,
        /// The hash in the listing.
        expected: ContentHash,
        /// The hash of what arrived, hexadecimal.
        found: String,
    },
    /// The caller's cancellation flag was raised. Finished parts stay for the next start.
    #[error("the download was cancelled; finished parts are kept")]
    Cancelled,
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
}

impl Error {
    /// Names the action and the path of a failed file operation; for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn sent(token_sent: bool) -> &'static str {
    if token_sent {
        "a token was sent"
    } else {
        "no token was sent"
    }
}
