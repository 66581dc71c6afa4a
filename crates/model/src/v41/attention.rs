//! Attention to a window and to shared entries (V4.1 notes, section 4).

use cachalot_checkpoint::LayerRole;
use cachalot_chip::{
    AttendEntries, Attention, GroupedLinear, LinearRounding, PackRows, Rope, RopeDirection, Tensor, WriteTail,
};

use super::{pass::Pass, weights};
use crate::Error;

impl Pass<'_> {
    /// Attention of `workspace.input` into `workspace.output`; the layer's state takes the step's rows.
    pub(super) fn attention(&self, weights: &weights::Attention, layer: usize) -> Result<(), Error> {
        let (workspace, config) = (&self.workspace, self.config);
        let role = config.layer_role(layer);
        let angles = match role {
            LayerRole::Window => &workspace.plain_angles,
            LayerRole::Shared { .. } => &workspace.compressed_angles,
        };
        self.query(weights, angles)?;
        self.window_keys(weights, angles)?;
        self.make_entries(weights, layer)?;
        self.select(weights, layer, angles)?;
        let shared = match role {
            LayerRole::Window => None,
            LayerRole::Shared { kv_source, .. } => self.shared_entries(kv_source),
        };
        let window_tail = &self.layers[layer].window_tail;
        self.step.enqueue(Attention {
            rows: self.step.rows(),
            query: &workspace.query,
            fresh: &workspace.packed_kv,
            tail: window_tail,
            format: self.formats.window,
            rotary: config.qk_rope_head_dim,
            window: config.sliding_window,
            entries: shared.map(|entries| AttendEntries {
                entries,
                selected: Some(&workspace.selected),
            }),
            sink: &weights.sink,
            scale: (config.head_dim as f32).powf(-0.5),
            out: &workspace.attended,
        })?;
        self.step.enqueue(WriteTail {
            rows: self.step.rows(),
            x: &workspace.packed_kv,
            ring: window_tail,
        })?;
        self.output(weights, angles)
    }

    /// Queries of all heads, rotated; heads are not normalised.
    fn query(&self, weights: &weights::Attention, angles: &Tensor) -> Result<(), Error> {
        let (step, workspace, config) = (self.step, &self.workspace, self.config);
        let rounding = LinearRounding::FineQuantisedInput;
        step.linear(&workspace.input, &weights.wq_a, rounding, &workspace.query_low)?;
        self.rms_norm(&workspace.query_low, &weights.q_norm)?;
        let flat = [step.row_count, config.num_attention_heads * config.head_dim];
        let query = workspace.query.reshape(&flat);
        step.linear(&workspace.query_low, &weights.wq_b, rounding, &query)?;
        self.rope(&workspace.query, angles, RopeDirection::Forward)
    }

    /// The one key of each row, which is also its value.
    fn window_keys(&self, weights: &weights::Attention, angles: &Tensor) -> Result<(), Error> {
        let (step, workspace, config) = (self.step, &self.workspace, self.config);
        let rounding = LinearRounding::FineQuantisedInput;
        step.linear(&workspace.input, &weights.wkv, rounding, &workspace.kv)?;
        self.rms_norm(&workspace.kv, &weights.kv_norm)?;
        let heads = workspace.kv.reshape(&[step.row_count, 1, config.head_dim]);
        self.rope(&heads, angles, RopeDirection::Forward)?;
        step.enqueue(PackRows {
            x: &workspace.kv,
            tail: config.qk_rope_head_dim,
            format: self.formats.window,
            out: &workspace.packed_kv,
        })
    }

    /// The grouped output projection. Values are rotated keys, so the result is rotated back first.
    fn output(&self, weights: &weights::Attention, angles: &Tensor) -> Result<(), Error> {
        let (step, workspace, config) = (self.step, &self.workspace, self.config);
        self.rope(&workspace.attended, angles, RopeDirection::Inverse)?;
        let group_width = config.num_attention_heads * config.head_dim / config.o_groups;
        step.enqueue(GroupedLinear {
            x: &workspace
                .attended
                .reshape(&[step.row_count, config.o_groups, group_width]),
            weight: &weights.wo_a,
            out: &workspace.grouped,
        })?;
        let rounding = LinearRounding::FineQuantisedInput;
        step.linear(&workspace.grouped, &weights.wo_b, rounding, &workspace.output)
    }

    pub(super) fn rope(&self, x: &Tensor, angles: &Tensor, direction: RopeDirection) -> Result<(), Error> {
        self.step.enqueue(Rope { x, angles, direction })
    }
}
