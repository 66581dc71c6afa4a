//! Telling checkpoints apart without reading them whole.

use xxhash_rust::xxh3::Xxh3;

use crate::Checkpoint;

/// Tensors whose first bytes are read.
const SAMPLED_TENSOR_COUNT: usize = 256;

/// Bytes read of each.
const SAMPLED_BYTE_COUNT: usize = 4096;

impl Checkpoint {
    /// A number that another checkpoint is very unlikely to have: a hash of config.json, of the names, types, shapes and
    /// places of all tensors, and of the first 4 KiB of 256 of them, evenly spread. A few hundred pages are read, so a
    /// change to single weights elsewhere goes unnoticed.
    pub fn fingerprint(&self) -> u128 {
        let mut hash = Xxh3::new();
        hash.update(&self.file("config.json").unwrap_or_default());
        let mut names: Vec<&String> = self.catalogue.tensors.keys().collect();
        names.sort_unstable();
        let stride = names.len().div_ceil(SAMPLED_TENSOR_COUNT).max(1);
        for (index, name) in names.into_iter().enumerate() {
            let placement = &self.catalogue.tensors[name];
            hash.update(format!("{name} {placement:?}\n").as_bytes());
            if index % stride == 0 {
                let data = &self.catalogue.shards[placement.shard].data;
                let end = placement.end.min(placement.start + SAMPLED_BYTE_COUNT);
                hash.update(data.get(placement.start..end).unwrap_or_default());
            }
        }
        hash.digest128()
    }
}
