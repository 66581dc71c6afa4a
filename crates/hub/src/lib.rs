//! Download of a model by name from a Hugging Face compatible hub, into the cache that the Hugging Face
//! tools share.
//!
//! | type | holds |
//! | --- | --- |
//! | [`Settings`] | where the hub and the cache are, the token, limits; [`Settings::from_environment`] reads `HF_*` |
//! | [`Repository`], [`Revision`] | checked names of what to fetch |
//! | [`Hub`] | the three operations: [`Hub::find_cached`], [`Hub::resolve`], [`Hub::download`] |
//! | [`Event`] | what a download tells while it runs |
//! | [`Error`] | everything that can go wrong, with the remedy in its text |
//!
//! A download asks the hub for the listing of one commit (`listing`), plans which contents are missing
//! (`download`), and fetches each on one of a few connections (`transfer`) into a partial blob that is hashed
//! as it grows (`partial`); a blob gets its name when its hash is right, and a snapshot folder is links to
//! blobs (`layout`). `client` speaks HTTP and decides at every redirect whether the token may go along.
//! A file is fetched over one connection, so that a partial blob is always a first part, which this and older
//! versions of huggingface_hub can continue. A transfer that is continued is judged by size and final hash, not
//! by `If-Range`: the hosts behind a hub do not agree on entity tags. Unix only (symbolic links, `flock`).
//!
//! This crate must not know what a checkpoint means: it sees names, sizes and hashes. The one exception is the
//! file list of a safetensors index, by which a snapshot without listing is judged complete.
//!
//! ```
//! use cachalot_hub::{Hub, Repository, Revision, Settings, is_model_file};
//!
//! # let folder = tempfile::tempdir()?;
//! # let cache = folder.path();
//! let mut settings = Settings::new(cache);
//! settings.offline = true;
//! let hub = Hub::new(settings)?;
//! let repository: Repository = "deepseek-ai/DeepSeek-V4-Flash".parse()?;
//! let revision = Revision::default();
//! assert_eq!(hub.find_cached(&repository, &revision, &is_model_file), None);
//!
//! let cancel = std::sync::atomic::AtomicBool::new(false);
//! let error = hub.download(&repository, &revision, &is_model_file, &|_| {}, &cancel).unwrap_err();
//! assert!(error.to_string().contains("HF_HUB_OFFLINE"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod address;
mod client;
mod disk;
mod download;
mod error;
mod event;
mod file_path;
mod hash;
mod hub;
mod layout;
mod listing;
mod lock;
mod lookup;
mod partial;
mod refusal;
mod repository;
mod retry;
mod settings;
mod stop;
mod transfer;

pub use error::{Error, Result};
pub use event::{Event, Progress};
pub use file_path::{FilePath, is_model_file};
pub use hash::{ContentHash, HashAlgorithm};
pub use hub::Hub;
pub use listing::{Content, Listing, RemoteFile};
pub use repository::{Commit, Repository, Revision};
pub use settings::{Certificates, RetrySettings, Settings, Token};
