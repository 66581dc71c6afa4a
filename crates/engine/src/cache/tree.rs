//! Which texts the cache knows: a tree of pages of tokens with snapshots at its nodes.
//!
//! A node stands for a text of whole pages, a snapshot for such a text and less than a page more. A page is kept in a tier
//! as long as a snapshot below it is kept there; a node as long as there is a snapshot below it.

use std::collections::HashMap;

use cachalot_model::{PAGE_TOKEN_COUNT, Page};
use xxhash_rust::xxh3::xxh3_128_with_seed;

pub(super) type NodeId = u64;
pub(super) type SnapshotId = u64;

/// The node of the empty text.
pub(super) const ROOT: NodeId = 0;

/// Where a snapshot or a page is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tier {
    Memory,
    Disk,
}

/// A text of whole pages.
pub(super) struct Node {
    pub parent: NodeId,
    /// Hash of the whole text.
    pub key: u128,
    /// The last page's tokens; none for the root.
    pub tokens: Box<[u32]>,
    /// Tokens of the whole text.
    pub end: usize,
    pub children: HashMap<u128, NodeId>,
    pub snapshots: Vec<SnapshotId>,
    /// The last page, if it is in memory.
    page: Option<Page>,
    /// Whether the last page is in a file.
    pub is_on_disk: bool,
    /// Snapshots at or below this node in memory and on disk.
    users: [u32; 2],
}

/// A state from which a sequence can start.
pub(super) struct Snapshot {
    pub node: NodeId,
    /// Hash of text and roll-back.
    pub key: u128,
    /// Tokens after the node's.
    pub rest: Box<[u32]>,
    /// Tokens by which it can be rolled back.
    pub rollback: usize,
    /// Tails, and the page of `rest`, if it is in memory.
    pub memory: Option<Memory>,
    /// Bytes of its file, if it is on disk or on its way there.
    pub disk_byte_count: Option<u64>,
    /// Whether the file is complete.
    pub is_on_disk: bool,
    /// What it is worth to keep: grows with its use and with what it saves, relative to its bytes.
    pub value: f64,
    /// Tokens that would have to be computed again without it.
    pub saved_token_count: usize,
    pub use_count: u32,
}

/// A snapshot in memory, besides the pages of its node.
pub(super) struct Memory {
    pub tail: Vec<u8>,
    /// The page of the tokens after the node's, if there are some.
    pub page: Option<Page>,
}

/// Nodes and snapshots.
pub(super) struct Tree {
    pub nodes: HashMap<NodeId, Node>,
    pub snapshots: HashMap<SnapshotId, Snapshot>,
    /// Nodes whose pages are in memory.
    pub memory_page_count: usize,
    next_id: u64,
}

/// How much of a prompt the tree knows.
pub(super) struct Walk {
    /// Nodes of whole pages in common, the root first.
    pub path: Vec<NodeId>,
    /// Tokens in common with some text.
    pub known: usize,
    /// Whether that text goes on after them.
    pub goes_on: bool,
    /// Usable snapshots with the length that a sequence made from them would have, longest first; those in memory before
    /// those on disk.
    pub starts: Vec<(SnapshotId, usize)>,
}

impl Tree {
    pub fn new() -> Self {
        let root = Node {
            parent: ROOT,
            key: 0,
            tokens: Box::default(),
            end: 0,
            children: HashMap::new(),
            snapshots: Vec::new(),
            page: None,
            is_on_disk: false,
            users: [0; 2],
        };
        Tree {
            nodes: HashMap::from([(ROOT, root)]),
            snapshots: HashMap::new(),
            memory_page_count: 0,
            next_id: ROOT + 1,
        }
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[&id]
    }

    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("ids of removed nodes are not kept")
    }

    pub fn snapshot(&self, id: SnapshotId) -> &Snapshot {
        &self.snapshots[&id]
    }

    pub fn snapshot_mut(&mut self, id: SnapshotId) -> &mut Snapshot {
        self.snapshots
            .get_mut(&id)
            .expect("ids of removed snapshots are not kept")
    }

    /// Tokens of a snapshot.
    pub fn position(&self, id: SnapshotId) -> usize {
        let snapshot = self.snapshot(id);
        self.node(snapshot.node).end + snapshot.rest.len()
    }

    /// Compares a prompt with all texts. A sequence shall have at most `limit` tokens.
    pub fn walk(&self, tokens: &[u32], limit: usize) -> Walk {
        let mut path = vec![ROOT];
        let mut walk = Walk {
            path: Vec::new(),
            known: 0,
            goes_on: false,
            starts: Vec::new(),
        };
        loop {
            let id = *path.last().expect("the root is there");
            let rest = &tokens[self.node(id).end..];
            self.compare_snapshots(id, rest, limit, &mut walk);
            let page = rest.get(..PAGE_TOKEN_COUNT);
            let next = page.and_then(|page| {
                let child = self.node(id).children.get(&page_key(self.node(id).key, page))?;
                (*self.node(*child).tokens == *page).then_some(*child)
            });
            match next {
                Some(child) => path.push(child),
                None => {
                    self.compare_children(id, rest, limit, &mut walk);
                    break;
                }
            }
        }
        walk.path = path;
        let is_in_memory = |id: SnapshotId| self.snapshot(id).memory.is_some();
        walk.starts
            .sort_by_key(|(id, length)| (std::cmp::Reverse(*length), !is_in_memory(*id), *id));
        walk
    }

    fn compare_snapshots(&self, id: NodeId, rest: &[u32], limit: usize, walk: &mut Walk) {
        let node = self.node(id);
        walk.see(node.end, !node.children.is_empty());
        for snapshot_id in &node.snapshots {
            let snapshot = self.snapshot(*snapshot_id);
            let common = common_length(&snapshot.rest, rest);
            walk.see(node.end + common, common < snapshot.rest.len());
            walk.offer(
                *snapshot_id,
                snapshot,
                node.end + snapshot.rest.len(),
                (node.end + common).min(limit),
            );
        }
    }

    /// Children that share only a part of their page with the prompt: snapshots shortly after it may be rolled back.
    fn compare_children(&self, id: NodeId, rest: &[u32], limit: usize, walk: &mut Walk) {
        for child in self.node(id).children.values() {
            let child = self.node(*child);
            let known = self.node(id).end + common_length(&child.tokens, rest);
            walk.see(known, true);
            for snapshot_id in &child.snapshots {
                let snapshot = self.snapshot(*snapshot_id);
                walk.offer(
                    *snapshot_id,
                    snapshot,
                    child.end + snapshot.rest.len(),
                    known.min(limit),
                );
            }
        }
    }

    /// The nodes of a text of whole pages, made if necessary; the root first.
    pub fn insert_path(&mut self, tokens: &[u32]) -> Vec<NodeId> {
        let mut path = vec![ROOT];
        for page in tokens.chunks_exact(PAGE_TOKEN_COUNT) {
            let parent = *path.last().expect("the root is there");
            path.push(self.insert_node(parent, page));
        }
        path
    }

    /// The child of a node with this page.
    pub fn insert_node(&mut self, parent: NodeId, page: &[u32]) -> NodeId {
        let key = page_key(self.node(parent).key, page);
        if let Some(child) = self.node(parent).children.get(&key) {
            return *child;
        }
        let id = self.next_id;
        self.next_id += 1;
        let end = self.node(parent).end + page.len();
        self.nodes.insert(
            id,
            Node {
                parent,
                key,
                tokens: page.into(),
                end,
                children: HashMap::new(),
                snapshots: Vec::new(),
                page: None,
                is_on_disk: false,
                users: [0; 2],
            },
        );
        self.node_mut(parent).children.insert(key, id);
        id
    }

    /// A snapshot at a node, kept nowhere yet; the present one if there is one.
    pub fn insert_snapshot(&mut self, node: NodeId, rest: &[u32], rollback: usize) -> SnapshotId {
        let key = snapshot_key(self.node(node).key, rest, rollback);
        let present = self.node(node).snapshots.iter();
        if let Some(id) = present.copied().find(|id| self.snapshot(*id).key == key) {
            return id;
        }
        let position = self.node(node).end + rest.len();
        let saved_token_count = position - self.previous_position(node, position);
        let id = self.next_id;
        self.next_id += 1;
        self.snapshots.insert(
            id,
            Snapshot {
                node,
                key,
                rest: rest.into(),
                rollback,
                memory: None,
                disk_byte_count: None,
                is_on_disk: false,
                value: 0.0,
                saved_token_count,
                use_count: 1,
            },
        );
        self.node_mut(node).snapshots.push(id);
        id
    }

    /// Position of the last snapshot before `position` on the way to a node.
    fn previous_position(&self, node: NodeId, position: usize) -> usize {
        let on_path = self.ancestors(node).flat_map(|id| &self.node(id).snapshots);
        let positions = on_path.map(|id| self.position(*id)).filter(|other| *other < position);
        positions.max().unwrap_or(0)
    }

    /// A node and those above it, without the root unless it is the root itself.
    pub fn ancestors(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        let mut next = Some(node);
        std::iter::from_fn(move || {
            let id = next?;
            next = Some(self.node(id).parent).filter(|parent| *parent != ROOT && id != ROOT);
            Some(id)
        })
    }

    /// A node's last page, if it is in memory.
    pub fn page(&self, id: NodeId) -> Option<&Page> {
        self.node(id).page.as_ref()
    }

    /// Keeps a node's last page in memory. A user of that tier has to follow.
    pub fn set_page(&mut self, id: NodeId, page: Page) {
        if self.node_mut(id).page.replace(page).is_none() {
            self.memory_page_count += 1;
        }
    }

    /// Whether a page's file has a use.
    pub fn is_needed_on_disk(&self, id: NodeId, key: u128) -> bool {
        let node = self.nodes.get(&id);
        node.is_some_and(|node| node.key == key && node.users[Tier::Disk as usize] > 0)
    }

    /// Counts a snapshot as kept in a tier.
    pub fn add_user(&mut self, node: NodeId, tier: Tier) {
        let path: Vec<NodeId> = self.ancestors(node).collect();
        path.into_iter()
            .for_each(|id| self.node_mut(id).users[tier as usize] += 1);
    }

    /// Counts a snapshot as no longer kept in a tier. Returns the keys of pages whose files nobody needs any more; pages
    /// in memory that nobody needs are dropped here.
    pub fn remove_user(&mut self, node: NodeId, tier: Tier) -> Vec<u128> {
        let path: Vec<NodeId> = self.ancestors(node).collect();
        let mut unneeded = Vec::new();
        for id in path {
            let node = self.node_mut(id);
            node.users[tier as usize] -= 1;
            if node.users[tier as usize] > 0 {
                continue;
            }
            match tier {
                Tier::Memory => {
                    if node.page.take().is_some() {
                        self.memory_page_count -= 1;
                    }
                }
                Tier::Disk => {
                    if std::mem::take(&mut node.is_on_disk) {
                        unneeded.push(node.key);
                    }
                }
            }
        }
        unneeded
    }

    /// Forgets a snapshot that is kept nowhere, and nodes without any.
    pub fn forget(&mut self, id: SnapshotId) {
        let Some(snapshot) = self.snapshots.remove(&id) else {
            return;
        };
        self.node_mut(snapshot.node).snapshots.retain(|other| *other != id);
        let mut node = snapshot.node;
        while node != ROOT && self.node(node).snapshots.is_empty() && self.node(node).children.is_empty() {
            let removed = self.nodes.remove(&node).expect("it was just looked at");
            self.node_mut(removed.parent).children.remove(&removed.key);
            node = removed.parent;
        }
    }

    /// Removes a node that nothing needs.
    pub fn remove_leaf(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.remove(&id) {
            self.memory_page_count -= usize::from(node.page.is_some());
            self.node_mut(node.parent).children.remove(&node.key);
        }
    }

    /// Snapshots at or below a node.
    pub fn below(&self, node: NodeId) -> Vec<SnapshotId> {
        let mut nodes = vec![node];
        let mut found = Vec::new();
        while let Some(id) = nodes.pop() {
            found.extend(&self.node(id).snapshots);
            nodes.extend(self.node(id).children.values());
        }
        found
    }
}

impl Walk {
    /// Notes a text that has `known` tokens in common with the prompt.
    fn see(&mut self, known: usize, goes_on: bool) {
        match known.cmp(&self.known) {
            std::cmp::Ordering::Greater => (self.known, self.goes_on) = (known, goes_on),
            std::cmp::Ordering::Equal => self.goes_on |= goes_on,
            std::cmp::Ordering::Less => {}
        }
    }

    fn offer(&mut self, id: SnapshotId, snapshot: &Snapshot, position: usize, length: usize) {
        if length > 0 && length + snapshot.rollback >= position && (snapshot.memory.is_some() || snapshot.is_on_disk) {
            self.starts.push((id, length));
        }
    }
}

fn common_length(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Hash of a text that ends with a whole page.
pub(super) fn page_key(parent: u128, page: &[u32]) -> u128 {
    text_key(parent, page, 1)
}

/// Hash of a snapshot's text and roll-back.
pub(super) fn snapshot_key(node: u128, rest: &[u32], rollback: usize) -> u128 {
    text_key(node, rest, 2 + rollback as u64)
}

fn text_key(parent: u128, tokens: &[u32], seed: u64) -> u128 {
    let tokens = tokens.iter().flat_map(|token| token.to_le_bytes());
    let bytes: Vec<u8> = parent.to_le_bytes().into_iter().chain(tokens).collect();
    xxh3_128_with_seed(&bytes, seed)
}
