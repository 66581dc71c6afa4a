//! Entries that one layer makes for many, and the selection among them (V4.1 notes, sections 4.2 and 4.3).

use cachalot_checkpoint::{Candidates, LayerRole};
use cachalot_chip::{
    Entries, IndexQuery, LinearRounding, PoolWindows, RopeDirection, RowFormat, SelectBlocks, SelectEntries,
    SelectInBlocks, StoreEntries, Tensor, WriteTail,
};

use super::{
    memory::OpenRows,
    pass::Pass,
    weights::{self, Indexer, Source},
};
use crate::Error;

impl Pass<'_> {
    /// In a layer that makes entries: those of completed windows, and their index keys.
    pub(super) fn make_entries(&self, weights: &weights::Attention, layer: usize) -> Result<(), Error> {
        let (Some(source), Some(entries), Some(keys)) =
            (&weights.source, self.shared_entries(layer), self.shared_keys(layer))
        else {
            return Ok(());
        };
        let (step, workspace) = (self.step, &self.workspace);
        self.latents(source, layer)?;
        self.rms_norm(&workspace.latent, &source.norm)?;
        step.linear(&workspace.latent, &source.wk, LinearRounding::Bf16, &workspace.key)?;
        self.rms_norm(&workspace.key, &source.k_norm)?;
        for (x, out) in [(&workspace.latent, entries), (&workspace.key, keys)] {
            step.enqueue(StoreEntries {
                rows: step.rows(),
                x,
                frequencies: &self.model.compressed_frequencies,
                out,
            })?;
        }
        Ok(())
    }

    /// What entries are made of, into `workspace.latent`, at the rows that complete a window.
    fn latents(&self, weights: &Source, layer: usize) -> Result<(), Error> {
        let (step, workspace) = (self.step, &self.workspace);
        let rounding = LinearRounding::F32;
        let open = self.layers[layer]
            .source
            .as_ref()
            .and_then(|source| source.open.as_ref());
        let (Some(wgate), Some(OpenRows { kv_tail, gate_tail })) = (&weights.wgate, open) else {
            return step.linear(&workspace.input, &weights.wkv, rounding, &workspace.latent);
        };
        step.linear(&workspace.input, &weights.wkv, rounding, &workspace.open_kv)?;
        step.linear(&workspace.input, wgate, rounding, &workspace.open_gate)?;
        step.enqueue(PoolWindows {
            rows: step.rows(),
            kv: &workspace.open_kv,
            gate: &workspace.open_gate,
            kv_tail,
            gate_tail,
            ratio: self.config.compress_ratios[layer],
            out: &workspace.latent,
        })?;
        for (x, ring) in [(&workspace.open_kv, kv_tail), (&workspace.open_gate, gate_tail)] {
            step.enqueue(WriteTail {
                rows: step.rows(),
                x,
                ring,
            })?;
        }
        Ok(())
    }

    /// In a layer that selects entries: those that each row attends to, here and in the layers that follow, into
    /// `workspace.selected`.
    pub(super) fn select(&self, weights: &weights::Attention, layer: usize, angles: &Tensor) -> Result<(), Error> {
        let (
            Some(indexer),
            LayerRole::Shared {
                kv_source,
                in_candidates,
                ..
            },
        ) = (&weights.indexer, self.config.layer_role(layer))
        else {
            return Ok(());
        };
        let Some(keys) = self.shared_keys(kv_source) else {
            return Ok(());
        };
        self.index_query(indexer, angles)?;
        let (step, workspace, config) = (self.step, &self.workspace, self.config);
        let (rows, query, weights) = (step.rows(), &workspace.index_query, &workspace.index_weights);
        let scale = ((config.index_head_dim * config.index_n_heads) as f32).powf(-0.5);
        let selected = &workspace.selected;
        if let (
            Some(Candidates {
                source_layer,
                block_size,
                ..
            }),
            Some(blocks),
        ) = (config.candidates, &workspace.blocks)
        {
            if in_candidates {
                return step.enqueue(SelectInBlocks {
                    rows,
                    query,
                    weights,
                    scale,
                    keys,
                    block_size,
                    blocks,
                    selected,
                });
            }
            if layer == source_layer {
                step.enqueue(SelectBlocks {
                    rows,
                    query,
                    weights,
                    scale,
                    keys,
                    block_size,
                    blocks,
                })?;
            }
        }
        step.enqueue(SelectEntries {
            rows,
            query,
            weights,
            scale,
            keys,
            selected,
        })
    }

    /// Queries of the indexer, rotated, and the weights of its heads.
    fn index_query(&self, weights: &Indexer, angles: &Tensor) -> Result<(), Error> {
        let (step, workspace, config) = (self.step, &self.workspace, self.config);
        let flat = [step.row_count, config.index_n_heads * config.index_head_dim];
        let query = workspace.index_query.reshape(&flat);
        let rounding = LinearRounding::FineQuantisedInput;
        step.linear(&workspace.query_low, &weights.wq_b, rounding, &query)?;
        self.rope(&workspace.index_query, angles, RopeDirection::Forward)?;
        step.enqueue(IndexQuery {
            query: &workspace.index_query,
            format: self.formats.key,
        })?;
        let (x, out) = (&workspace.input, &workspace.index_weights);
        step.linear(x, &weights.weights_proj, LinearRounding::Bf16, out)
    }

    /// The entries that layer `source` makes.
    pub(super) fn shared_entries(&self, source: usize) -> Option<Entries<'_>> {
        let state = self.layers[source].source.as_ref()?;
        Some(self.pool(&state.entries, source, self.formats.entry, self.config.head_dim))
    }

    /// Their index keys.
    fn shared_keys(&self, source: usize) -> Option<Entries<'_>> {
        let state = self.layers[source].source.as_ref()?;
        Some(self.pool(&state.keys, source, self.formats.key, self.config.index_head_dim))
    }

    fn pool<'s>(&'s self, pool: &'s Tensor, source: usize, format: RowFormat, width: usize) -> Entries<'s> {
        Entries {
            pool,
            page_table: &self.step.inputs.page_table,
            format,
            width,
            tail: self.config.qk_rope_head_dim,
            ratio: self.config.compress_ratios[source],
        }
    }
}
