//! The way between memory and disk.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use cachalot_model::{PAGE_TOKEN_COUNT, StatePool};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    PrefixCache,
    disk::{Disk, Written},
    file::{Header, Kind},
    tree::{Memory, NodeId, ROOT, SnapshotId, Tier, page_key, snapshot_key},
};

/// Why a snapshot could not be brought into memory.
pub(super) enum LoadFault {
    /// Running sequences need all pages.
    NoRoom,
    /// A file is missing or damaged; the snapshot is forgotten.
    Unreadable,
}

impl PrefixCache {
    pub(super) fn open_disk(&mut self, identity: u128, pool: &StatePool) {
        let Some(directory) = &self.options.directory else {
            return;
        };
        match Disk::open(directory, identity) {
            Ok((disk, headers)) => {
                // What other models left counts, so that the folder keeps to its size.
                self.disk_byte_count = disk.foreign_byte_count;
                self.disk = Some(disk);
                self.adopt(headers, pool);
            }
            Err(error) => self.disk_fault = Some(format!("{}: {error}", directory.display())),
        }
        self.shrink_disk(0);
    }

    /// Takes the files of an earlier process into the tree. Those without the pages before them are removed.
    fn adopt(&mut self, headers: Vec<Header>, pool: &StatePool) {
        let (mut pages, snapshots): (Vec<Header>, Vec<Header>) =
            headers.into_iter().partition(|header| header.kind == Kind::Page);
        pages.sort_by_key(|header| header.position);
        let mut nodes: HashMap<u128, NodeId> = HashMap::from([(0, ROOT)]);
        for header in pages {
            let is_right = header.tokens.len() == PAGE_TOKEN_COUNT
                && header.content_byte_count == self.page_byte_count
                && header.key == page_key(header.parent, &header.tokens);
            match nodes.get(&header.parent) {
                Some(parent) if is_right => {
                    let node = self.tree.insert_node(*parent, &header.tokens);
                    self.tree.node_mut(node).is_on_disk = true;
                    self.disk_byte_count += header.file_byte_count().unwrap_or(0);
                    nodes.insert(header.key, node);
                }
                _ => self.remove_file(Kind::Page, header.key),
            }
        }
        for header in snapshots {
            let partial = if header.tokens.is_empty() {
                0
            } else {
                self.page_byte_count
            };
            let rollback = header.rollback as usize;
            let node = nodes.get(&header.parent).copied().filter(|node| {
                let position = self.tree.node(*node).end + header.tokens.len();
                header.key == snapshot_key(header.parent, &header.tokens, rollback)
                    && header.tokens.len() < PAGE_TOKEN_COUNT
                    && rollback <= position
                    && header.content_byte_count == partial + pool.tail_byte_count(position, rollback) as u64
            });
            let Some(node) = node else {
                self.remove_file(Kind::Snapshot, header.key);
                continue;
            };
            let id = self.tree.insert_snapshot(node, &header.tokens, rollback);
            let byte_count = header.file_byte_count().unwrap_or(0);
            let snapshot = self.tree.snapshot_mut(id);
            (snapshot.disk_byte_count, snapshot.is_on_disk) = (Some(byte_count), true);
            self.disk_byte_count += byte_count;
            self.tree.add_user(node, Tier::Disk);
            // The files come in the order of their last use.
            self.clock += 1e-9;
            self.appraise(id);
        }
        for node in nodes.into_values().filter(|node| *node != ROOT) {
            self.drop_unneeded(node);
        }
    }

    /// Removes a node of an earlier process that leads to no snapshot.
    fn drop_unneeded(&mut self, mut node: NodeId) {
        while node != ROOT && self.tree.nodes.contains_key(&node) {
            let (key, parent) = (self.tree.node(node).key, self.tree.node(node).parent);
            if self.tree.is_needed_on_disk(node, key) || !self.tree.node(node).children.is_empty() {
                return;
            }
            self.remove_file(Kind::Page, key);
            self.disk_byte_count = self.disk_byte_count.saturating_sub(self.page_file_byte_count());
            self.tree.remove_leaf(node);
            node = parent;
        }
    }

    /// Brings a snapshot and its pages into memory.
    pub(super) fn load(&mut self, pool: &StatePool, id: SnapshotId) -> Result<(), LoadFault> {
        let node = self.tree.snapshot(id).node;
        let mut loaded = Vec::new();
        let missing: Vec<NodeId> = self
            .tree
            .ancestors(node)
            .filter(|id| *id != ROOT && self.tree.page(*id).is_none())
            .collect();
        let room = pool.free_page_count() + self.releasable_page_count();
        if missing.len() + 1 > room {
            return Err(LoadFault::NoRoom);
        }
        // Pages that are in memory now may be released to make room for others: they are held until the end.
        let held = self.pages(id);
        for node in missing {
            let key = self.tree.node(node).key;
            let Some(bytes) = self.read_file(Kind::Page, key) else {
                self.forget_file(node);
                return Err(LoadFault::Unreadable);
            };
            let page = self
                .with_room(|| pool.write_page(&bytes))
                .map_err(|_| LoadFault::NoRoom)?;
            loaded.push((node, page));
        }
        let snapshot = self.tree.snapshot(id);
        let (key, has_rest) = (snapshot.key, !snapshot.rest.is_empty());
        let Some(mut tail) = self.read_file(Kind::Snapshot, key) else {
            self.drop_from_disk(id);
            return Err(LoadFault::Unreadable);
        };
        let page = match has_rest {
            false => None,
            true => {
                let after = tail.split_off(self.page_byte_count as usize);
                let bytes = std::mem::replace(&mut tail, after);
                Some(
                    self.with_room(|| pool.write_page(&bytes))
                        .map_err(|_| LoadFault::NoRoom)?,
                )
            }
        };
        for (node, page) in loaded {
            self.tree.set_page(node, page);
        }
        // Pages released meanwhile, by their last snapshot in memory, come back.
        for (node, page) in self
            .tree
            .ancestors(node)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .zip(&held)
        {
            if node != ROOT && self.tree.page(node).is_none() {
                self.tree.set_page(node, page.clone());
            }
        }
        self.keep(id, Memory { tail, page });
        Ok(())
    }

    fn read_file(&self, kind: Kind, key: u128) -> Option<Vec<u8>> {
        self.disk.as_ref()?.read(kind, key)
    }

    fn remove_file(&self, kind: Kind, key: u128) {
        if let Some(disk) = &self.disk {
            disk.remove(kind, key);
        }
    }

    fn page_file_byte_count(&self) -> u64 {
        self.page_byte_count + super::file::HEADER_BYTE_COUNT_MAX as u64
    }

    /// After a page's file turned out to be unusable: nothing on disk that needs it can be used.
    fn forget_file(&mut self, node: NodeId) {
        for id in self.tree.below(node) {
            self.drop_from_disk(id);
        }
    }

    /// Forgets a snapshot's file and those of pages that no other one needs.
    fn drop_from_disk(&mut self, id: SnapshotId) {
        let snapshot = self.tree.snapshot_mut(id);
        let Some(byte_count) = snapshot.disk_byte_count.take() else {
            return;
        };
        let (node, key, is_in_memory) = (snapshot.node, snapshot.key, snapshot.memory.is_some());
        if std::mem::take(&mut snapshot.is_on_disk) {
            self.disk_byte_count = self.disk_byte_count.saturating_sub(byte_count);
            self.remove_file(Kind::Snapshot, key);
        }
        for key in self.tree.remove_user(node, Tier::Disk) {
            self.disk_byte_count = self.disk_byte_count.saturating_sub(self.page_file_byte_count());
            self.remove_file(Kind::Page, key);
        }
        if !is_in_memory {
            self.note_dropped(id);
            self.tree.forget(id);
        }
    }

    /// Has a snapshot in memory written, unless it is or will be.
    pub(super) fn queue_spill(&mut self, id: SnapshotId) {
        let is_writable = self.disk.as_ref().is_some_and(Disk::is_writable);
        let page_byte_count = self.page_byte_count;
        let snapshot = self.tree.snapshot_mut(id);
        let Some(memory) = snapshot
            .memory
            .as_ref()
            .filter(|_| is_writable && snapshot.disk_byte_count.is_none())
        else {
            return;
        };
        let partial = if memory.page.is_some() { page_byte_count } else { 0 };
        snapshot.disk_byte_count = Some(memory.tail.len() as u64 + partial);
        let node = snapshot.node;
        self.tree.add_user(node, Tier::Disk);
        self.spill.push_back(id);
    }

    /// Whether files wait to be written.
    pub fn has_work(&self) -> bool {
        !self.spill.is_empty() || !self.in_flight.is_empty()
    }

    /// Why the disk is not used, if it should be.
    pub fn disk_fault(&self) -> Option<&str> {
        self.disk_fault.as_deref().or_else(|| self.disk.as_ref()?.fault())
    }

    /// Bytes of files, those of other models in the same folder included.
    pub fn disk_byte_count(&self) -> u64 {
        self.disk_byte_count
    }

    /// Hands files of about `byte_count` bytes to the writing thread, as far as it has room.
    pub fn pump(&mut self, pool: &StatePool, byte_count: u64, patience: Duration) {
        self.take_written(patience);
        let mut left = byte_count;
        while let Some(id) = self.spill.front().copied() {
            let snapshot = self.tree.snapshots.get(&id);
            let Some(snapshot) = snapshot.filter(|snapshot| snapshot.disk_byte_count.is_some()) else {
                self.spill.pop_front();
                continue;
            };
            if snapshot.memory.is_none() {
                // Dropped from memory before its turn came.
                self.spill.pop_front();
                self.drop_from_disk(id);
                continue;
            }
            let Some((file_id, header, content)) = self.next_file(pool, id) else {
                self.spill.pop_front();
                self.drop_from_disk(id);
                continue;
            };
            let size = content.len() as u64;
            self.shrink_disk(size + header.byte_count() as u64);
            // Shrinking may have dropped the snapshot itself.
            let is_wanted = self
                .tree
                .snapshots
                .get(&id)
                .is_some_and(|snapshot| snapshot.disk_byte_count.is_some());
            if !is_wanted {
                continue;
            }
            if !self
                .disk
                .as_ref()
                .is_some_and(|disk| disk.write(file_id, &header, content))
            {
                return;
            }
            self.in_flight.insert(header.key, size + header.byte_count() as u64);
            if header.kind == Kind::Snapshot {
                self.spill.pop_front();
            }
            left = left.saturating_sub(size);
            if left == 0 {
                return;
            }
        }
    }

    /// The first page of a snapshot that is not on disk, or else the snapshot itself.
    fn next_file(&self, pool: &StatePool, id: SnapshotId) -> Option<(u64, Header, Vec<u8>)> {
        let snapshot = self.tree.snapshot(id);
        let mut path: Vec<NodeId> = self.tree.ancestors(snapshot.node).filter(|id| *id != ROOT).collect();
        path.reverse();
        let page = path.into_iter().find(|id| {
            let node = self.tree.node(*id);
            !node.is_on_disk && !self.in_flight.contains_key(&node.key)
        });
        let identity = self.disk.as_ref()?.identity();
        let header = |kind, key, parent, position: usize, rollback: usize, tokens: &[u32], content: &[u8]| Header {
            kind,
            identity,
            key,
            parent,
            position: position as u64,
            rollback: rollback as u32,
            tokens: tokens.to_vec(),
            content_byte_count: content.len() as u64,
            content_hash: xxh3_128(content),
        };
        if let Some(id) = page {
            let node = self.tree.node(id);
            let content = pool.read_page(self.tree.page(id)?).ok()?;
            let parent = self.tree.node(node.parent).key;
            let header = header(Kind::Page, node.key, parent, node.end, 0, &node.tokens, &content);
            return Some((id, header, content));
        }
        let memory = snapshot.memory.as_ref()?;
        let mut content = match &memory.page {
            Some(page) => pool.read_page(page).ok()?,
            None => Vec::new(),
        };
        content.extend_from_slice(&memory.tail);
        let parent = self.tree.node(snapshot.node).key;
        let position = self.tree.position(id);
        let header = header(
            Kind::Snapshot,
            snapshot.key,
            parent,
            position,
            snapshot.rollback,
            &snapshot.rest,
            &content,
        );
        Some((id, header, content))
    }

    fn take_written(&mut self, patience: Duration) {
        let patience = if self.in_flight.is_empty() {
            Duration::ZERO
        } else {
            patience
        };
        let Some(disk) = &mut self.disk else {
            return;
        };
        for Written {
            id,
            kind,
            key,
            byte_count,
            outcome,
        } in disk.written(patience)
        {
            self.in_flight.remove(&key);
            if outcome.is_err() {
                self.give_up_spilling();
                continue;
            }
            let is_wanted = match kind {
                Kind::Page => self.tree.is_needed_on_disk(id, key),
                Kind::Snapshot => {
                    let snapshot = self.tree.snapshots.get(&id);
                    snapshot.is_some_and(|snapshot| snapshot.key == key && snapshot.disk_byte_count.is_some())
                }
            };
            if !is_wanted {
                // Dropped while it was written.
                self.remove_file(kind, key);
                continue;
            }
            match kind {
                Kind::Page => self.tree.node_mut(id).is_on_disk = true,
                Kind::Snapshot => {
                    let snapshot = self.tree.snapshot_mut(id);
                    (snapshot.disk_byte_count, snapshot.is_on_disk) = (Some(byte_count), true);
                }
            }
            self.disk_byte_count += byte_count;
        }
    }

    /// After a failure to write: what is not on disk stays in memory only.
    fn give_up_spilling(&mut self) {
        self.spill.clear();
        let unwritten = self.tree.snapshots.iter().filter(|(_, snapshot)| !snapshot.is_on_disk);
        let unwritten: Vec<SnapshotId> = unwritten.map(|(id, _)| *id).collect();
        unwritten.into_iter().for_each(|id| self.drop_from_disk(id));
    }

    /// Drops files of least value until `byte_count` more bytes fit.
    fn shrink_disk(&mut self, byte_count: u64) {
        let in_flight: u64 = self.in_flight.values().sum();
        while self.disk_byte_count + in_flight + byte_count > self.options.disk_byte_count_max {
            let on_disk = self
                .tree
                .snapshots
                .iter()
                .filter(|(_, snapshot)| snapshot.disk_byte_count.is_some());
            let least = on_disk.min_by(|(a_id, a), (b_id, b)| a.value.total_cmp(&b.value).then(a_id.cmp(b_id)));
            let Some(id) = least.map(|(id, _)| *id) else {
                return;
            };
            self.drop_from_disk(id);
        }
    }

    /// Writes everything that waits, for `patience` at most.
    pub fn flush(&mut self, pool: &StatePool, patience: Duration) {
        let until = Instant::now() + patience;
        while self.has_work() && Instant::now() < until {
            self.pump(pool, u64::MAX, Duration::from_millis(20));
        }
    }
}
