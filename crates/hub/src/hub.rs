use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use crate::client::Client;
use crate::download::{self, Request};
use crate::event::Progress;
use crate::layout::Layout;
use crate::stop::run_until_cancelled;
use crate::{Error, FilePath, Listing, Repository, Result, Revision, Settings, address, listing, lookup};

/// A Hugging Face compatible hub and the cache on this machine.
///
/// Holds no connection and no lock between calls; calls from several threads are independent.
#[derive(Clone, Debug)]
pub struct Hub {
    settings: Settings,
}

impl Hub {
    /// # Errors
    /// [`Error::Setting`] for a setting out of its range.
    pub fn new(settings: Settings) -> Result<Self> {
        settings.check()?;
        address::parse_endpoint(&settings.endpoint)?;
        Ok(Hub { settings })
    }

    /// The settings as given.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The snapshot folder of a revision, if every file that passes the filter is complete in the cache.
    ///
    /// Uses no network: a branch stands for the commit that it stood for at the last download, by whatever
    /// tool. A listing in the cache (ours or huggingface_hub's) says which files there are; without one, the
    /// safetensors files must vouch for each other: those of the index, and all of a numbered row.
    /// A cache that cannot be read counts as empty.
    pub fn find_cached(
        &self,
        repository: &Repository,
        revision: &Revision,
        filter: &dyn Fn(&FilePath) -> bool,
    ) -> Option<PathBuf> {
        lookup::find_complete(&self.layout(repository), revision, filter)
    }

    /// Asks which commit a revision is and which files it has.
    ///
    /// # Errors
    /// [`Error::Offline`] in offline mode, [`Error::RepositoryNotFound`], [`Error::Gated`],
    /// [`Error::RevisionNotFound`], [`Error::FileName`] and [`Error::Answer`] for what the server says,
    /// [`Error::Transport`], [`Error::Status`], [`Error::Redirect`] and [`Error::RateLimited`] after retries.
    pub fn resolve(&self, repository: &Repository, revision: &Revision) -> Result<Listing> {
        self.check_online(repository, revision)?;
        listing::fetch(&Client::new(&self.settings)?, repository, revision, |_, _| {})
    }

    /// Brings the files that pass the filter into the cache, and gives the snapshot folder.
    ///
    /// Continues what an earlier download left, fetches nothing that is there, and checks the hash of all
    /// that it fetches. Safe beside other downloads into the same cache, also of other processes. In offline
    /// mode, and for a revision that is a commit, a complete snapshot is taken without asking the hub.
    /// Raising `cancel` ends it within about a tenth of a second, unless it is connecting.
    ///
    /// # Errors
    /// Those of [`Hub::resolve`]; [`Error::NothingSelected`]; [`Error::FileNotFound`], [`Error::Length`] and
    /// [`Error::Hash`] for a file; [`Error::DiskFull`] and [`Error::Io`]; [`Error::Cancelled`].
    pub fn download(
        &self,
        repository: &Repository,
        revision: &Revision,
        filter: &(dyn Fn(&FilePath) -> bool + Sync),
        progress: &Progress<'_>,
        cancel: &AtomicBool,
    ) -> Result<PathBuf> {
        if (self.settings.offline || revision.commit().is_some())
            && let Some(snapshot) = self.find_cached(repository, revision, filter)
        {
            return Ok(snapshot);
        }
        self.check_online(repository, revision)?;
        let client = Client::new(&self.settings)?;
        let layout = self.layout(repository);
        let request = Request {
            repository,
            revision,
            filter,
            progress,
        };
        run_until_cancelled(
            cancel,
            || client.interrupt(),
            || download::run(&client, &layout, &request),
        )
    }

    fn layout(&self, repository: &Repository) -> Layout {
        Layout::new(&self.settings.cache, repository)
    }

    fn check_online(&self, repository: &Repository, revision: &Revision) -> Result<()> {
        if !self.settings.offline {
            return Ok(());
        }
        Err(Error::Offline {
            repository: repository.clone(),
            revision: revision.clone(),
            cache: self.settings.cache.clone(),
        })
    }
}
