//! Latent attention, absorbed (V3 notes, section 3), and the indexer of V3.2 (section 5).

use cachalot_checkpoint::IndexerConfig;
use cachalot_chip::{
    AttendEntries, Entries, GroupedLinear, KeyForm, LatentAttention, LatentQuery, LinearRounding, RopeHalves,
    SelectEntries, StoreKeys, Tensor,
};

use super::{
    memory::{IndexRows, LayerState},
    pass::Pass,
    row_format,
    weights::{self, Indexer},
};
use crate::Error;

/// Epsilon of the index keys' layer norm, which config.json does not name.
const INDEX_NORM_EPSILON: f32 = 1e-6;

impl Pass<'_> {
    /// Attention of `workspace.input` into `workspace.output`; the layer's state takes the step's rows.
    pub(super) fn attention(&self, weights: &weights::Attention, state: &LayerState) -> Result<(), Error> {
        let (step, workspace, config) = (self.step, &self.workspace, self.config);
        let entries = self.entries(&state.entries, config.entry_width());
        self.query(weights)?;
        self.store_entries(weights, entries)?;
        let selected = match (&weights.indexer, &state.index_keys, &workspace.index, config.indexer) {
            (Some(weights), Some(keys), Some(rows), Some(sizes)) => {
                self.select(weights, self.entries(keys, sizes.index_head_dim), rows, sizes)?;
                Some(&rows.selected)
            }
            _ => None,
        };
        step.enqueue(LatentAttention {
            rows: step.rows(),
            query: &workspace.latent_query,
            keys: AttendEntries { entries, selected },
            scale: config.attention_scale() as f32,
            out: &workspace.attended,
        })?;
        step.enqueue(GroupedLinear {
            x: &workspace.attended,
            weight: &weights.values,
            out: &workspace.values,
        })?;
        step.linear(
            &workspace.values,
            &weights.wo,
            LinearRounding::QuantisedInput,
            &workspace.output,
        )
    }

    /// Queries of all heads in the space of the latents, rotated.
    fn query(&self, weights: &weights::Attention) -> Result<(), Error> {
        let (step, workspace, config) = (self.step, &self.workspace, self.config);
        let rounding = LinearRounding::QuantisedInput;
        step.linear(&workspace.input, &weights.wq_a, rounding, &workspace.query_low)?;
        step.rms_norm(&workspace.query_low, Some(&weights.q_norm), config.rms_norm_eps)?;
        let flat = [step.row_count, config.num_attention_heads * config.qk_head_dim()];
        let query = workspace.query.reshape(&flat);
        step.linear(&workspace.query_low, &weights.wq_b, rounding, &query)?;
        step.enqueue(LatentQuery {
            query: &workspace.query,
            absorb: &weights.absorb,
            angles: &workspace.angles,
            out: &workspace.latent_query,
        })
    }

    /// What is kept of each row.
    fn store_entries(&self, weights: &weights::Attention, out: Entries<'_>) -> Result<(), Error> {
        let (step, workspace) = (self.step, &self.workspace);
        let rounding = LinearRounding::QuantisedInput;
        step.linear(&workspace.input, &weights.wkv_a, rounding, &workspace.key)?;
        step.enqueue(StoreKeys {
            rows: step.rows(),
            x: &workspace.key,
            form: KeyForm::Latent { norm: &weights.kv_norm },
            epsilon: self.config.rms_norm_eps,
            angles: &workspace.angles,
            out,
        })
    }

    /// The tokens that each row attends to, into `rows.selected`.
    fn select(
        &self,
        weights: &Indexer,
        keys: Entries<'_>,
        rows: &IndexRows,
        sizes: IndexerConfig,
    ) -> Result<(), Error> {
        let (step, workspace) = (self.step, &self.workspace);
        let rounding = LinearRounding::QuantisedInput;
        step.linear(&workspace.input, &weights.wk, rounding, &rows.key)?;
        step.enqueue(StoreKeys {
            rows: step.rows(),
            x: &rows.key,
            form: KeyForm::Index {
                norm: &weights.k_norm,
                bias: &weights.k_bias,
            },
            epsilon: INDEX_NORM_EPSILON,
            angles: &workspace.angles,
            out: keys,
        })?;
        let width = sizes.index_n_heads * sizes.index_head_dim;
        let query = rows.query.reshape(&[step.row_count, width]);
        step.linear(&workspace.query_low, &weights.wq_b, rounding, &query)?;
        step.enqueue(RopeHalves {
            x: &rows.query,
            angles: &workspace.angles,
        })?;
        step.linear(
            &workspace.input,
            &weights.weights_proj,
            LinearRounding::F32,
            &rows.weights,
        )?;
        step.enqueue(SelectEntries {
            rows: step.rows(),
            query: &rows.query,
            weights: &rows.weights,
            scale: (width as f32).powf(-0.5),
            keys,
            selected: &rows.selected,
        })
    }

    fn entries<'s>(&'s self, pool: &'s Tensor, width: usize) -> Entries<'s> {
        Entries {
            pool,
            page_table: &self.step.inputs.page_table,
            format: row_format(self.step.options),
            width,
            tail: self.config.qk_rope_head_dim,
            ratio: 1,
        }
    }
}
