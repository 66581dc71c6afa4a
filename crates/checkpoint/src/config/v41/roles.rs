//! Which layers make entries, which select among them, and whose entries and selection the others share.

use super::DeepseekV41Config;

/// What a layer's attention sees besides its window, and where that comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerRole {
    /// Nothing.
    Window,
    /// Entries.
    Shared {
        /// Tokens of an entry.
        ratio: usize,
        /// The layer that makes the entries and their index keys: this one or one before it.
        kv_source: usize,
        /// The layer that selects entries: this one or one before it.
        index_source: usize,
        /// Whether the selection is made inside the picked blocks of the candidate layer.
        in_candidates: bool,
    },
}

impl DeepseekV41Config {
    /// The role of main layer `layer`.
    pub fn layer_role(&self, layer: usize) -> LayerRole {
        let last = |sources: &[usize]| sources.iter().copied().rfind(|source| *source <= layer);
        match (
            self.compress_ratios.get(layer),
            last(&self.kv_source_layer_ids),
            last(&self.index_source_layer_ids),
        ) {
            (Some(ratio), Some(kv_source), Some(index_source)) if *ratio > 0 => LayerRole::Shared {
                ratio: *ratio,
                kv_source,
                index_source,
                in_candidates: self
                    .candidates
                    .is_some_and(|candidates| index_source > candidates.source_layer),
            },
            _ => LayerRole::Window,
        }
    }

    /// Whether a layer makes entries and index keys.
    pub fn is_kv_source(&self, layer: usize) -> bool {
        self.kv_source_layer_ids.contains(&layer)
    }

    /// Whether a layer selects entries.
    pub fn is_index_source(&self, layer: usize) -> bool {
        self.index_source_layer_ids.contains(&layer)
    }
}
