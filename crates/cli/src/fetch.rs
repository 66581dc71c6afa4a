//! Downloads: the question before, the bars during.

use std::{
    collections::HashMap,
    io::{IsTerminal, Write, stderr, stdin},
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use cachalot_hub::{Event, FilePath, Hub, Repository, Revision, is_model_file};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::{error::Error, interrupt::Cooperation, location::published_size, numbers, terminal};

/// Whether a missing model may be downloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// The user said `--yes`.
    Given,
    /// The user is asked, on a terminal.
    Ask,
}

impl From<bool> for Consent {
    fn from(yes: bool) -> Self {
        if yes { Consent::Given } else { Consent::Ask }
    }
}

/// Downloads a model that is not on this machine, if the user wants it.
pub fn with_consent(hub: &Hub, repository: &Repository, consent: Consent) -> Result<PathBuf, Error> {
    let revision = Revision::default();
    if consent == Consent::Ask {
        if !terminal::can_ask() {
            return Err(Error::NotDownloaded {
                name: repository.to_string(),
                size: published_size(repository),
            });
        }
        let listing = hub.resolve(repository, &revision)?;
        let wanted = listing.files.iter().filter(|file| is_model_file(&file.path));
        let size: u64 = wanted
            .flat_map(|file| &file.content)
            .map(|content| content.size_bytes)
            .sum();
        eprint!(
            "{repository} is not on this machine. Download {} into {}? [y/N] ",
            numbers::bytes(size),
            hub.settings().cache.display()
        );
        if !is_yes_answered()? {
            return Err(Error::DownloadDeclined {
                name: repository.to_string(),
            });
        }
    }
    download(hub, repository, &revision)
}

/// Downloads what is missing and gives the folder. Ctrl-C ends it so that the next start continues.
pub fn download(hub: &Hub, repository: &Repository, revision: &Revision) -> Result<PathBuf, Error> {
    let bars = Bars::new();
    let cooperation = Cooperation::begin();
    let result = hub.download(
        repository,
        revision,
        &is_model_file,
        &|event| bars.show(&event),
        cooperation.flag(),
    );
    bars.clear();
    result.map_err(|error| match error {
        cachalot_hub::Error::Cancelled => Error::Interrupted {
            remedy: "; finished parts are kept, the same command continues".to_owned(),
        },
        error => error.into(),
    })
}

fn is_yes_answered() -> Result<bool, Error> {
    let _ = stderr().flush();
    let mut line = String::new();
    stdin().read_line(&mut line).map_err(|source| Error::Read {
        what: "the answer".to_owned(),
        source,
    })?;
    Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// A bar for everything and one for each file under way; plain lines where standard error is no terminal.
struct Bars {
    screen: MultiProgress,
    total: ProgressBar,
    files: Mutex<HashMap<FilePath, ProgressBar>>,
    is_terminal: bool,
}

impl Bars {
    fn new() -> Self {
        let screen = MultiProgress::new();
        let total = screen.add(ProgressBar::no_length());
        total.set_style(style(
            "{msg:40!} {wide_bar} {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left",
        ));
        Bars {
            screen,
            total,
            files: Mutex::default(),
            is_terminal: stderr().is_terminal(),
        }
    }

    fn show(&self, event: &Event<'_>) {
        match event {
            Event::Planned {
                file_count,
                bytes_total,
                bytes_present,
            } => {
                self.total.set_length(*bytes_total);
                self.total.set_position(*bytes_present);
                self.total.reset_eta();
                self.total.set_message("total");
                self.line(&format!(
                    "{file_count} files, {}, {} of them here already",
                    numbers::bytes(*bytes_total),
                    numbers::bytes(*bytes_present)
                ));
            }
            Event::Started { file, bytes_total } => {
                let bar = self.screen.insert_before(&self.total, ProgressBar::new(*bytes_total));
                bar.set_style(style("{msg:40!} {wide_bar} {decimal_bytes} of {decimal_total_bytes}"));
                bar.set_message(file.to_string());
                self.files().insert((*file).clone(), bar);
            }
            Event::Waiting { file } => self.line(&format!("{file}: another process is fetching it, waiting")),
            Event::Advanced {
                file,
                bytes_of_file,
                bytes_present,
            } => {
                if let Some(bar) = self.files().get(*file) {
                    bar.set_position(*bytes_of_file);
                }
                self.total.set_position(*bytes_present);
            }
            Event::Retrying { file, error, wait } => {
                let what = file.map_or_else(|| "the list of files".to_owned(), FilePath::to_string);
                self.line(&format!("{what}: {error}; trying again in {:.1} s", wait.as_secs_f64()));
            }
            Event::Finished { file } => {
                if let Some(bar) = self.files().remove(*file) {
                    bar.finish_and_clear();
                }
                if !self.is_terminal {
                    self.line(&format!("{file} is complete"));
                }
            }
            _ => {}
        }
    }

    fn line(&self, text: &str) {
        if !self.is_terminal {
            eprintln!("{text}");
        } else {
            // A line less on a screen that cannot be written to is no loss.
            let _ = self.screen.println(text);
        }
    }

    fn files(&self) -> std::sync::MutexGuard<'_, HashMap<FilePath, ProgressBar>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clear(&self) {
        let _ = self.screen.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
