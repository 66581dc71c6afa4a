//! The folder of the prefix cache: a folder inside for each identity, a file for each page and snapshot.
//!
//! A thread writes: into a temporary file, synchronised, then renamed, so a file with its final name is whole or, after a
//! crash of the machine, refused by its hashes. One process owns a folder at a time.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use super::file::{HEADER_BYTE_COUNT_MAX, Header, Kind};

/// Files that may wait for the writing thread.
const QUEUE_LENGTH: usize = 16;

/// How long nothing is written after a failure.
const PAUSE_AFTER_FAULT: Duration = Duration::from_secs(30);

/// Pages of other identities that are remembered, to tell why a text was not found.
const FOREIGN_KEY_COUNT_MAX: usize = 100_000;

/// An open folder.
pub(super) struct Disk {
    folder: PathBuf,
    identity: u128,
    /// Keys of pages in the folders of other identities.
    pub foreign_pages: HashSet<u128>,
    /// Bytes of those folders.
    pub foreign_byte_count: u64,
    fault: Option<(String, Instant)>,
    orders: Option<SyncSender<Order>>,
    written: Receiver<Written>,
    thread: Option<JoinHandle<()>>,
    /// Holds the lock on the folder.
    _owner: File,
}

enum Order {
    Write {
        written: Written,
        path: PathBuf,
        parts: [Vec<u8>; 2],
    },
    Touch(PathBuf),
}

/// What became of a file.
pub(super) struct Written {
    /// The node or snapshot.
    pub id: u64,
    pub kind: Kind,
    pub key: u128,
    pub byte_count: u64,
    pub outcome: Result<(), String>,
}

impl Disk {
    /// Opens or makes the folder of an identity and reads the headers of its files, the least recently used first. Files
    /// that are no cache files or damaged are removed.
    pub fn open(directory: &Path, identity: u128) -> io::Result<(Disk, Vec<Header>)> {
        let folder = directory.join(format!("{identity:032x}"));
        fs::create_dir_all(&folder)?;
        let owner = File::open(&folder)?;
        owner.try_lock().map_err(|error| match error {
            fs::TryLockError::Error(error) => error,
            fs::TryLockError::WouldBlock => io::Error::other("another process uses the folder"),
        })?;
        let mut found = scan(&folder, identity)?;
        found.sort_by_key(|(used, _)| *used);
        let (foreign_pages, foreign_byte_count) = scan_foreign(directory, &folder);
        let (orders, received) = sync_channel(QUEUE_LENGTH);
        let (done, written) = channel();
        let work = move || {
            for order in received {
                match order {
                    Order::Write {
                        mut written,
                        path,
                        parts,
                    } => {
                        written.outcome = write(&path, &parts).map_err(|error| format!("{}: {error}", path.display()));
                        if done.send(written).is_err() {
                            return;
                        }
                    }
                    // The order of use is a hint: without it another file may be dropped first.
                    Order::Touch(path) => drop(File::open(path).and_then(|file| file.set_modified(SystemTime::now()))),
                }
            }
        };
        let thread = std::thread::Builder::new().name("cache".to_owned()).spawn(work)?;
        let disk = Disk {
            folder,
            identity,
            foreign_pages,
            foreign_byte_count,
            fault: None,
            orders: Some(orders),
            written,
            thread: Some(thread),
            _owner: owner,
        };
        Ok((disk, found.into_iter().map(|(_, header)| header).collect()))
    }

    /// The identity whose files these are.
    pub fn identity(&self) -> u128 {
        self.identity
    }

    /// Whether files can be handed over now.
    pub fn is_writable(&self) -> bool {
        self.fault
            .as_ref()
            .is_none_or(|(_, since)| since.elapsed() > PAUSE_AFTER_FAULT)
    }

    /// The last failure, until something was written again.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_ref().map(|(reason, _)| reason.as_str())
    }

    /// Hands a file to the writing thread. Returns whether it had room.
    pub fn write(&self, id: u64, header: &Header, content: Vec<u8>) -> bool {
        let Some(orders) = &self.orders else {
            return false;
        };
        let order = Order::Write {
            written: Written {
                id,
                kind: header.kind,
                key: header.key,
                byte_count: header.file_byte_count().unwrap_or(u64::MAX),
                outcome: Ok(()),
            },
            path: self.path(header.kind, header.key),
            parts: [header.encode(), content],
        };
        !matches!(
            orders.try_send(order),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_))
        )
    }

    /// What became of the files handed over since the last call; with `patience`, waits that long for the next one.
    pub fn written(&mut self, patience: Duration) -> Vec<Written> {
        let first = match patience {
            Duration::ZERO => None,
            patience => self.written.recv_timeout(patience).ok(),
        };
        let written: Vec<Written> = first.into_iter().chain(self.written.try_iter()).collect();
        for written in &written {
            self.fault = written
                .outcome
                .as_ref()
                .err()
                .map(|reason| (reason.clone(), Instant::now()));
        }
        written
    }

    /// The content of a file; none if it is missing, damaged or not what its name says.
    pub fn read(&self, kind: Kind, key: u128) -> Option<Vec<u8>> {
        let path = self.path(kind, key);
        let file = fs::read(&path).ok()?;
        let header = Header::decode(&file)?;
        if (header.kind, header.key, header.identity) != (kind, key, self.identity) {
            return None;
        }
        let content = header.content(&file)?.to_vec();
        if let Some(orders) = &self.orders {
            let _ = orders.try_send(Order::Touch(path));
        }
        Some(content)
    }

    /// Removes a file. One that cannot be removed is found and removed, or used, after the next start.
    pub fn remove(&self, kind: Kind, key: u128) {
        let _ = fs::remove_file(self.path(kind, key));
    }

    fn path(&self, kind: Kind, key: u128) -> PathBuf {
        self.folder.join(format!("{key:032x}.{}", extension(kind)))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn extension(kind: Kind) -> &'static str {
    match kind {
        Kind::Page => "page",
        Kind::Snapshot => "snapshot",
    }
}

fn write(path: &Path, parts: &[Vec<u8>]) -> io::Result<()> {
    let temporary = path.with_extension("part");
    let mut create = File::create(&temporary);
    if matches!(&create, Err(error) if error.kind() == io::ErrorKind::NotFound) {
        // Somebody has cleared the folder.
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        create = File::create(&temporary);
    }
    let mut file = create?;
    let mut fill = || -> io::Result<()> {
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    fill().inspect_err(|_| drop(fs::remove_file(&temporary)))
}

fn scan(folder: &Path, identity: u128) -> io::Result<Vec<(SystemTime, Header)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match read_header(&entry.path()) {
            Ok(Some((used, header)))
                if header.identity == identity
                    && entry.file_name().to_string_lossy()
                        == format!("{:032x}.{}", header.key, extension(header.kind)) =>
            {
                found.push((used, header));
            }
            // Cut off, damaged, or of an older version.
            Ok(_) => drop(fs::remove_file(entry.path())),
            Err(_) => {}
        }
    }
    Ok(found)
}

/// The header of a file whose length is right.
fn read_header(path: &Path) -> io::Result<Option<(SystemTime, Header)>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    file.take(HEADER_BYTE_COUNT_MAX as u64).read_to_end(&mut bytes)?;
    let header = Header::decode(&bytes).filter(|header| header.file_byte_count() == Some(metadata.len()));
    Ok(header.map(|header| (metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), header)))
}

/// Keys of pages in the folders of other identities, and the bytes of those folders.
fn scan_foreign(directory: &Path, own: &Path) -> (HashSet<u128>, u64) {
    let (mut keys, mut byte_count) = (HashSet::new(), 0);
    let folders = fs::read_dir(directory).into_iter().flatten().flatten();
    let folders = folders
        .map(|entry| entry.path())
        .filter(|path| path != own && path.is_dir());
    for entry in folders.filter_map(|path| fs::read_dir(path).ok()).flatten().flatten() {
        byte_count += entry.metadata().map_or(0, |metadata| metadata.len());
        let name = entry.file_name();
        let key = name.to_str().and_then(|name| name.strip_suffix(".page"));
        let key = key.and_then(|key| u128::from_str_radix(key, 16).ok());
        if keys.len() < FOREIGN_KEY_COUNT_MAX {
            keys.extend(key);
        }
    }
    (keys, byte_count)
}
