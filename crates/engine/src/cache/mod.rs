//! The prefix cache: states of texts computed before, so that prompts that begin with them need not be computed again.
//!
//! V4's state after a text is its pages of compressed entries, which texts with a common beginning share, and the tails:
//! the window and the open rows of the compressors, as large as the entries of hundreds of tokens. So pages are kept once
//! for all texts, and tails at few positions, the snapshots. A prompt starts at the last snapshot that it shares and
//! computes the tokens after it. What is reused equals what would be computed, to the last bit.

mod disk;
mod file;
mod spill;
mod tree;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::PathBuf,
};

use cachalot_model::{Error as ModelError, Model, PAGE_TOKEN_COUNT, Page, Sequence, StatePool};
use xxhash_rust::xxh3::xxh3_128;

use crate::{Error, MissReason};

use self::{
    disk::Disk,
    tree::{Memory, SnapshotId, Tier, Tree, Walk, page_key},
};

/// Dropped texts that are remembered by their hashes, to tell why they were not found.
const DROPPED_COUNT_MAX: usize = 1 << 16;

/// Sizes of the prefix cache.
#[derive(Clone, Debug)]
pub struct CacheOptions {
    /// Bytes of pages and tails in memory. Pages count although sequences may share them; they live in the state memory
    /// and give way to sequences that need them. Default 4 GiB.
    pub memory_byte_count_max: u64,
    /// Tokens between snapshots within a prompt, in whole pages. Default 2,048.
    pub snapshot_interval: usize,
    /// Folder that keeps what was computed beyond the end of the process. Default: none.
    pub directory: Option<PathBuf>,
    /// Bytes of files in that folder. Default 32 GiB.
    pub disk_byte_count_max: u64,
}

impl Default for CacheOptions {
    fn default() -> Self {
        CacheOptions {
            memory_byte_count_max: 4 << 30,
            snapshot_interval: 2048,
            directory: None,
            disk_byte_count_max: 32 << 30,
        }
    }
}

/// Tells states of this model on this chip from those that other weights, modes, formats or kernels would give.
pub(crate) fn identity(model: &Model, pool: &StatePool) -> u128 {
    let chip = model.chip().description();
    // Results do not depend on the number of threads.
    let kernels: Vec<&str> = chip
        .details
        .split(", ")
        .filter(|part| !part.ends_with(" threads"))
        .collect();
    let parts = format!(
        "{} {:032x} {:?} {} {kernels:?} {} {}",
        env!("CARGO_PKG_VERSION"),
        model.fingerprint(),
        model.options(),
        chip.name,
        pool.page_byte_count(),
        pool.tail_byte_count(4 * PAGE_TOKEN_COUNT + 127, 0),
    );
    xxh3_128(parts.as_bytes())
}

/// What the cache had for a prompt.
pub(crate) struct Found {
    /// A sequence with the prompt's first tokens.
    pub sequence: Option<Sequence>,
    /// Why not with all but one.
    pub missed: Option<MissReason>,
}

/// Texts and their states.
pub(crate) struct PrefixCache {
    options: CacheOptions,
    tree: Tree,
    /// Value of the snapshot dropped last: those added later are worth that more.
    clock: f64,
    tail_byte_count: u64,
    partial_page_count: usize,
    page_byte_count: u64,
    dropped: HashSet<u128>,
    dropped_order: VecDeque<u128>,
    disk: Option<Disk>,
    /// Why there is no disk although one was asked for.
    disk_fault: Option<String>,
    disk_byte_count: u64,
    /// Snapshots that are to be written, with their pages.
    spill: VecDeque<SnapshotId>,
    /// Keys and bytes of files handed over but not yet written.
    in_flight: HashMap<u128, u64>,
}

impl PrefixCache {
    /// An empty cache, or one with what the folder holds for `identity`. A folder that cannot be used is no failure:
    /// [`PrefixCache::disk_fault`] tells.
    pub fn new(options: CacheOptions, identity: u128, pool: &StatePool) -> Self {
        let mut cache = PrefixCache {
            tree: Tree::new(),
            clock: 0.0,
            tail_byte_count: 0,
            partial_page_count: 0,
            page_byte_count: pool.page_byte_count() as u64,
            dropped: HashSet::new(),
            dropped_order: VecDeque::new(),
            disk: None,
            disk_fault: None,
            disk_byte_count: 0,
            spill: VecDeque::new(),
            in_flight: HashMap::new(),
            options,
        };
        cache.open_disk(identity, pool);
        cache
    }

    /// Tokens between snapshots within a prompt.
    pub fn snapshot_interval(&self) -> usize {
        let pages = (self.options.snapshot_interval / PAGE_TOKEN_COUNT).max(1);
        pages * PAGE_TOKEN_COUNT
    }

    /// Bytes of pages and of tails in memory.
    pub fn memory_byte_counts(&self) -> (u64, u64) {
        let page_count = (self.tree.memory_page_count + self.partial_page_count) as u64;
        (page_count * self.page_byte_count, self.tail_byte_count)
    }

    /// A sequence with as much of a prompt as possible, at least one token less than all.
    ///
    /// # Errors
    /// [`Error::Model`] if all sequences are taken, or an error of the chip.
    pub fn start(&mut self, pool: &StatePool, tokens: &[u32]) -> Result<Found, Error> {
        let limit = tokens.len().saturating_sub(1);
        let mut is_unreadable = false;
        loop {
            let walk = self.tree.walk(tokens, limit);
            let mut found = None;
            for (id, length) in &walk.starts {
                // Making room for another one may have taken it.
                let Some(snapshot) = self.tree.snapshots.get(id) else {
                    continue;
                };
                if snapshot.memory.is_none() {
                    match self.load(pool, *id) {
                        Ok(()) => {}
                        Err(spill::LoadFault::NoRoom) => continue,
                        Err(spill::LoadFault::Unreadable) => {
                            is_unreadable = true;
                            break;
                        }
                    }
                }
                found = Some((*id, *length));
                break;
            }
            match found {
                Some((id, length)) => {
                    let sequence = self.restore(pool, id, length)?;
                    let missed = self.miss_reason(&walk, tokens, length, limit, is_unreadable);
                    return Ok(Found {
                        sequence: Some(sequence),
                        missed,
                    });
                }
                // The unreadable snapshot is gone: another one may do.
                None if walk.starts.iter().any(|(id, _)| !self.tree.snapshots.contains_key(id)) => {}
                None => {
                    let missed = self.miss_reason(&walk, tokens, 0, limit, is_unreadable);
                    return Ok(Found { sequence: None, missed });
                }
            }
        }
    }

    fn restore(&mut self, pool: &StatePool, id: SnapshotId, length: usize) -> Result<Sequence, Error> {
        let position = self.tree.position(id);
        let snapshot = self.tree.snapshot(id);
        let mut pages = self.pages(id);
        let memory = snapshot.memory.as_ref().expect("it was loaded");
        pages.extend(memory.page.clone());
        let mut sequence = pool.restore_sequence(&pages, position, snapshot.rollback, &memory.tail)?;
        sequence.roll_back(length)?;
        let snapshot = self.tree.snapshot_mut(id);
        snapshot.use_count += 1;
        self.appraise(id);
        Ok(sequence)
    }

    /// Pages of a snapshot's node in memory, the first one first.
    fn pages(&self, id: SnapshotId) -> Vec<Page> {
        let node = self.tree.snapshot(id).node;
        let mut pages: Vec<Page> = self
            .tree
            .ancestors(node)
            .filter_map(|id| self.tree.page(id).cloned())
            .collect();
        pages.reverse();
        pages
    }

    fn miss_reason(
        &self,
        walk: &Walk,
        tokens: &[u32],
        length: usize,
        limit: usize,
        is_unreadable: bool,
    ) -> Option<MissReason> {
        let known = walk.known.min(limit);
        if length >= limit {
            return None;
        }
        if is_unreadable {
            return Some(MissReason::Unreadable);
        }
        let last = self.tree.node(*walk.path.last().expect("the root is there"));
        let next_page = tokens.get(last.end..last.end + PAGE_TOKEN_COUNT);
        if let Some(key) = next_page.map(|page| page_key(last.key, page)) {
            if self.dropped.contains(&key) {
                return Some(MissReason::Evicted { known });
            }
            let disk = self.disk.as_ref();
            if disk.is_some_and(|disk| disk.foreign_pages.contains(&key)) {
                return Some(MissReason::OtherModel);
            }
        }
        Some(
            if walk.goes_on && walk.known < limit && (known >= PAGE_TOKEN_COUNT || 2 * known >= limit) {
                MissReason::Diverged { at: known }
            } else if known > length && (known >= PAGE_TOKEN_COUNT || length > 0) {
                MissReason::ReplayBound { known }
            } else {
                MissReason::FirstTime { from: known }
            },
        )
    }

    /// Keeps a sequence's state, so that sequences that begin with its tokens can start from it, also if they go on
    /// differently up to `rollback` tokens before its end. `is_over` says that the sequence is not written any more.
    pub fn remember(&mut self, pool: &StatePool, sequence: &Sequence, tokens: &[u32], rollback: usize, is_over: bool) {
        let tokens = &tokens[..sequence.len()];
        let rollback = pool.snapshot_rollback(sequence, rollback);
        let (whole, rest) = tokens.split_at(tokens.len() / PAGE_TOKEN_COUNT * PAGE_TOKEN_COUNT);
        if tokens.is_empty() {
            return;
        }
        let path = self.tree.insert_path(whole);
        let node = *path.last().expect("the root is there");
        let id = self.tree.insert_snapshot(node, rest, rollback);
        if self.tree.snapshot(id).memory.is_none() {
            // Without room or with a failing chip the text is computed again some day.
            let Ok(memory) = self.take_memory(pool, sequence, rollback, is_over) else {
                if self
                    .tree
                    .snapshots
                    .get(&id)
                    .is_some_and(|snapshot| snapshot.disk_byte_count.is_none())
                {
                    self.tree.forget(id);
                }
                return;
            };
            for (index, node) in path[1..].iter().enumerate() {
                if self.tree.page(*node).is_none()
                    && let Ok(pages) = pool.share_pages(sequence, index..index + 1)
                {
                    pages.into_iter().for_each(|page| self.tree.set_page(*node, page));
                }
            }
            self.keep(id, memory);
        }
        self.appraise(id);
        self.queue_spill(id);
        while self.memory_byte_counts().0 + self.tail_byte_count > self.options.memory_byte_count_max {
            if !self.release_one() {
                break;
            }
        }
    }

    fn take_memory(
        &mut self,
        pool: &StatePool,
        sequence: &Sequence,
        rollback: usize,
        is_over: bool,
    ) -> Result<Memory, Error> {
        let last = sequence.len() / PAGE_TOKEN_COUNT;
        let page = if sequence.len().is_multiple_of(PAGE_TOKEN_COUNT) {
            None
        } else if is_over {
            pool.share_pages(sequence, last..last + 1)?.pop()
        } else {
            Some(self.with_room(|| pool.detach_page(sequence, last))?)
        };
        let tail = pool.read_tail(sequence, rollback)?;
        Ok(Memory { tail, page })
    }

    /// Repeats what needs a page, dropping snapshots until there is one.
    fn with_room<T>(&mut self, mut take: impl FnMut() -> Result<T, ModelError>) -> Result<T, ModelError> {
        loop {
            match take() {
                Err(ModelError::Pages { .. }) if self.release_one() => {}
                outcome => return outcome,
            }
        }
    }

    fn keep(&mut self, id: SnapshotId, memory: Memory) {
        self.tail_byte_count += memory.tail.len() as u64;
        self.partial_page_count += usize::from(memory.page.is_some());
        let snapshot = self.tree.snapshot_mut(id);
        snapshot.memory = Some(memory);
        let node = snapshot.node;
        self.tree.add_user(node, Tier::Memory);
    }

    /// Sets a snapshot's value: what it saves, as often as it did, for each of its bytes, on top of the clock.
    fn appraise(&mut self, id: SnapshotId) {
        let (clock, page_byte_count) = (self.clock, self.page_byte_count as f64);
        let snapshot = self.tree.snapshot_mut(id);
        let tail = snapshot.memory.as_ref().map_or(0, |memory| memory.tail.len());
        let saved = snapshot.saved_token_count as f64;
        let byte_count = tail as f64 + page_byte_count * (1.0 + saved / PAGE_TOKEN_COUNT as f64);
        snapshot.value = clock + f64::from(snapshot.use_count) * saved / byte_count;
    }

    /// Drops the snapshot of least value from memory; false if there is none.
    pub fn release_one(&mut self) -> bool {
        let in_memory = self
            .tree
            .snapshots
            .iter()
            .filter(|(_, snapshot)| snapshot.memory.is_some());
        let least = in_memory.min_by(|(a_id, a), (b_id, b)| a.value.total_cmp(&b.value).then(a_id.cmp(b_id)));
        let Some((id, value)) = least.map(|(id, snapshot)| (*id, snapshot.value)) else {
            return false;
        };
        self.clock = self.clock.max(value);
        self.release(id);
        true
    }

    /// Drops a snapshot from memory.
    fn release(&mut self, id: SnapshotId) {
        let snapshot = self.tree.snapshot_mut(id);
        let Some(memory) = snapshot.memory.take() else {
            return;
        };
        self.tail_byte_count -= memory.tail.len() as u64;
        self.partial_page_count -= usize::from(memory.page.is_some());
        let (node, is_kept) = (snapshot.node, snapshot.disk_byte_count.is_some());
        self.tree.remove_user(node, Tier::Memory);
        if !is_kept {
            self.note_dropped(id);
            self.tree.forget(id);
        }
    }

    fn note_dropped(&mut self, id: SnapshotId) {
        let node = self.tree.snapshot(id).node;
        let keys: Vec<u128> = self.tree.ancestors(node).map(|id| self.tree.node(id).key).collect();
        for key in keys {
            if self.dropped.insert(key) {
                self.dropped_order.push_back(key);
            }
        }
        while self.dropped_order.len() > DROPPED_COUNT_MAX {
            if let Some(key) = self.dropped_order.pop_front() {
                self.dropped.remove(&key);
            }
        }
    }

    /// Pages that would become free if the cache held nothing.
    pub fn releasable_page_count(&self) -> usize {
        let in_nodes = self.tree.nodes.keys().filter_map(|id| self.tree.page(*id));
        let memories = self
            .tree
            .snapshots
            .values()
            .filter_map(|snapshot| snapshot.memory.as_ref());
        let pages = in_nodes.chain(memories.filter_map(|memory| memory.page.as_ref()));
        pages.filter(|page| !page.is_shared()).count()
    }
}
