//! Attention of the three kinds (V4 architecture, sections 3 to 5).

use cachalot_chip::{
    AttendEntries, Attention, Compress, Entries, GroupedLinear, IndexQuery, LinearRounding, PackRows, Rope,
    RopeDirection, RowFormat, SelectEntries, Tensor, WriteTail,
};

use super::{
    memory::{CompressorState, LayerState},
    pass::Pass,
    weights::{self, Compressor, Indexer},
    workspace::flat_rows,
};
use crate::Error;

impl Pass<'_> {
    /// Attention of `workspace.input` into `workspace.output`; the layer's state takes the step's rows.
    pub(super) fn attention(
        &self,
        weights: &weights::Attention,
        state: &LayerState,
        ratio: usize,
    ) -> Result<(), Error> {
        let (workspace, config) = (&self.workspace, self.config);
        let angles = if ratio == 0 {
            &workspace.plain_angles
        } else {
            &workspace.compressed_angles
        };
        self.query(weights, angles)?;
        self.window_keys(weights, angles)?;

        let compressed = match (&weights.compressor, &state.compressor) {
            (Some(weights), Some(state)) => {
                let entries = self.entries(state, config.head_dim, self.step.options.row_format(), ratio);
                self.compress(weights, state, entries)?;
                Some(entries)
            }
            _ => None,
        };
        let selected = match (&weights.indexer, &state.indexer) {
            (Some(indexer), Some(state)) => {
                self.select(indexer, state, angles, ratio)?;
                Some(&workspace.selected)
            }
            _ => None,
        };
        self.step.enqueue(Attention {
            rows: self.step.rows(),
            query: &workspace.query,
            fresh: &workspace.packed_kv,
            tail: &state.window_tail,
            format: self.step.options.row_format(),
            rotary: config.qk_rope_head_dim,
            window: config.sliding_window,
            entries: compressed.map(|entries| AttendEntries { entries, selected }),
            sink: &weights.sink,
            scale: (config.head_dim as f32).powf(-0.5),
            out: &workspace.attended,
        })?;
        self.step.enqueue(WriteTail {
            rows: self.step.rows(),
            x: &workspace.packed_kv,
            ring: &state.window_tail,
        })?;
        self.output(weights, angles)
    }

    /// Queries of all heads, normalised and rotated.
    pub(super) fn query(&self, weights: &weights::Attention, angles: &Tensor) -> Result<(), Error> {
        let (workspace, config) = (&self.workspace, self.config);
        let rounding = LinearRounding::QuantisedInput;
        self.step
            .linear(&workspace.input, &weights.wq_a, rounding, &workspace.query_low)?;
        self.rms_norm(&workspace.query_low, Some(&weights.q_norm))?;
        let heads = self.step.row_count * config.num_attention_heads;
        let flat = workspace
            .query
            .reshape(&[self.step.row_count, config.num_attention_heads * config.head_dim]);
        self.step.linear(&workspace.query_low, &weights.wq_b, rounding, &flat)?;
        self.rms_norm(&workspace.query.reshape(&[heads, config.head_dim]), None)?;
        self.rope(&workspace.query, angles, RopeDirection::Forward)
    }

    /// The one key of each row, which is also its value.
    pub(super) fn window_keys(&self, weights: &weights::Attention, angles: &Tensor) -> Result<(), Error> {
        let (workspace, config) = (&self.workspace, self.config);
        self.step.linear(
            &workspace.input,
            &weights.wkv,
            LinearRounding::QuantisedInput,
            &workspace.kv,
        )?;
        self.rms_norm(&workspace.kv, Some(&weights.kv_norm))?;
        let heads = workspace.kv.reshape(&[self.step.row_count, 1, config.head_dim]);
        self.rope(&heads, angles, RopeDirection::Forward)?;
        self.step.enqueue(PackRows {
            x: &workspace.kv,
            tail: config.qk_rope_head_dim,
            format: self.step.options.row_format(),
            out: &workspace.packed_kv,
        })
    }

    fn entries<'s>(&'s self, state: &'s CompressorState, width: usize, format: RowFormat, ratio: usize) -> Entries<'s> {
        let tail = self.config.qk_rope_head_dim;
        Entries {
            pool: &state.pool,
            page_table: &self.step.inputs.page_table,
            format,
            width,
            tail,
            ratio,
        }
    }

    /// Emits the entries of completed windows and keeps the rows of open ones.
    fn compress(&self, weights: &Compressor, state: &CompressorState, out: Entries<'_>) -> Result<(), Error> {
        let (workspace, config) = (&self.workspace, self.config);
        let row_width = state.kv_tail.shape()[2];
        let kv = flat_rows(&workspace.compressor_kv, self.step.row_count, row_width);
        let gate = flat_rows(&workspace.compressor_gate, self.step.row_count, row_width);
        self.step
            .linear(&workspace.input, &weights.wkv, LinearRounding::F32, &kv)?;
        self.step
            .linear(&workspace.input, &weights.wgate, LinearRounding::F32, &gate)?;
        self.step.enqueue(Compress {
            rows: self.step.rows(),
            kv: &kv,
            gate: &gate,
            kv_tail: &state.kv_tail,
            gate_tail: &state.gate_tail,
            ape: &weights.ape,
            norm: &weights.norm,
            norm_epsilon: config.rms_norm_eps,
            frequencies: &self.model.compressed_frequencies,
            overlap: out.ratio == 4,
            out,
        })?;
        self.step.enqueue(WriteTail {
            rows: self.step.rows(),
            x: &kv,
            ring: &state.kv_tail,
        })?;
        self.step.enqueue(WriteTail {
            rows: self.step.rows(),
            x: &gate,
            ring: &state.gate_tail,
        })
    }

    /// The entries that each row attends to, into `workspace.selected`.
    fn select(&self, weights: &Indexer, state: &CompressorState, angles: &Tensor, ratio: usize) -> Result<(), Error> {
        let (workspace, config) = (&self.workspace, self.config);
        let format = self.step.options.index_format();
        let keys = self.entries(state, config.index_head_dim, format, ratio);
        self.compress(&weights.compressor, state, keys)?;
        let flat = workspace
            .index_query
            .reshape(&[self.step.row_count, config.index_n_heads * config.index_head_dim]);
        self.step.linear(
            &workspace.query_low,
            &weights.wq_b,
            LinearRounding::QuantisedInput,
            &flat,
        )?;
        self.rope(&workspace.index_query, angles, RopeDirection::Forward)?;
        self.step.enqueue(IndexQuery {
            query: &workspace.index_query,
            format,
        })?;
        self.step.linear(
            &workspace.input,
            &weights.weights_proj,
            LinearRounding::Bf16,
            &workspace.index_weights,
        )?;
        self.step.enqueue(SelectEntries {
            rows: self.step.rows(),
            query: &workspace.index_query,
            weights: &workspace.index_weights,
            scale: ((config.index_head_dim * config.index_n_heads) as f32).powf(-0.5),
            keys,
            selected: &workspace.selected,
        })
    }

    /// The grouped output projection. Values are rotated keys, so the result is rotated back first.
    pub(super) fn output(&self, weights: &weights::Attention, angles: &Tensor) -> Result<(), Error> {
        let (workspace, config) = (&self.workspace, self.config);
        self.rope(&workspace.attended, angles, RopeDirection::Inverse)?;
        let group_width = config.num_attention_heads * config.head_dim / config.o_groups;
        self.step.enqueue(GroupedLinear {
            x: &workspace
                .attended
                .reshape(&[self.step.row_count, config.o_groups, group_width]),
            weight: &weights.wo_a,
            out: &workspace.grouped,
        })?;
        self.step.linear(
            &workspace.grouped,
            &weights.wo_b,
            LinearRounding::QuantisedInput,
            &workspace.output,
        )
    }

    fn rope(&self, x: &Tensor, angles: &Tensor, direction: RopeDirection) -> Result<(), Error> {
        self.step.enqueue(Rope { x, angles, direction })
    }
}
