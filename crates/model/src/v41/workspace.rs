//! Activations of a step, allocated once for the largest step.

use bytes::Bytes;
use cachalot_checkpoint::{DeepseekV41Config, EngramConfig};
use cachalot_chip::{Chip, Error, Tensor, TensorSource};
use cachalot_numerics::Dtype;

use super::RowFormats;

/// `F32` unless said otherwise; the first dimension is the row.
pub(super) struct Workspace {
    /// `[n, d]`: the residual streams.
    pub streams: Tensor,
    /// `[d]`: input of a sub-layer.
    pub input: Tensor,
    /// `[d]`: output of a sub-layer.
    pub output: Tensor,
    /// `[n]`: one stream alone, what the first layer begins with.
    pub first_pre: Tensor,
    /// `[n]`: what the next attention collapses the streams with, and the next experts.
    pub attention_pre: Tensor,
    pub experts_pre: Tensor,
    /// `[n]` and `[n, n]`.
    pub post: Tensor,
    pub comb: Tensor,
    /// Cosines and sines for layers that see a window only and for the others, `[R / 2, 2]`.
    pub plain_angles: Tensor,
    pub compressed_angles: Tensor,
    /// `[q_lora_rank]`.
    pub query_low: Tensor,
    /// `[H, D]`, also the attention's output.
    pub query: Tensor,
    pub attended: Tensor,
    /// `[D]`.
    pub kv: Tensor,
    /// `U8 [row bytes]`.
    pub packed_kv: Tensor,
    /// `[D]`: rows of open windows, and what entries are made of.
    pub open_kv: Tensor,
    pub open_gate: Tensor,
    pub latent: Tensor,
    /// `[index_head_dim]`.
    pub key: Tensor,
    /// `[index_n_heads, index_head_dim]`.
    pub index_query: Tensor,
    /// `[index_n_heads]`.
    pub index_weights: Tensor,
    /// `I32 [index_topk]`: the selection of the last layer that made one.
    pub selected: Tensor,
    /// `I32 [picked blocks]`, of models with a two-level selection.
    pub blocks: Option<Tensor>,
    /// `[o_groups * o_lora_rank]`.
    pub grouped: Tensor,
    /// `[E]`.
    pub router_logits: Tensor,
    /// `I32 [k]` and `[k]`.
    pub chosen: Tensor,
    pub chosen_weights: Tensor,
    /// `[I]` of the shared expert.
    pub shared_gate: Tensor,
    pub shared_up: Tensor,
    pub shared_hidden: Tensor,
    /// `[d]`.
    pub shared_output: Tensor,
    pub engram: Option<EngramRows>,
}

/// Activations of Engram.
pub(super) struct EngramRows {
    /// `I32 [1]`: folded token ids.
    pub ids: Tensor,
    /// `I32 [rows of the table]`.
    pub numbers: Tensor,
    /// `[rows of the table * their width]`.
    pub looked_up: Tensor,
    /// `[(n + 1) d]`.
    pub keys_value: Tensor,
}

impl Workspace {
    pub fn new(
        chip: &dyn Chip,
        config: &DeepseekV41Config,
        formats: RowFormats,
        row_count: usize,
    ) -> Result<Self, Error> {
        let tensor = |dtype: Dtype, shape: &[usize]| chip.allocate(dtype, &[&[row_count], shape].concat());
        let f32 = |shape: &[usize]| tensor(Dtype::F32, shape);
        let (n, d) = (config.hc_mult, config.hidden_size);
        let (heads, head_dim, rope) = (config.num_attention_heads, config.head_dim, config.qk_rope_head_dim);
        let (index_heads, index_dim) = (config.index_n_heads, config.index_head_dim);
        let inner = config.moe_intermediate_size;
        let candidates = config.candidates.as_ref();
        let blocks = candidates.map(|candidates| tensor(Dtype::I32, &[candidates.block_count_max]));
        let engram = config.engram.as_ref();
        let engram = engram.map(|engram| EngramRows::new(chip, config, engram, row_count));
        Ok(Workspace {
            streams: f32(&[n, d])?,
            input: f32(&[d])?,
            output: f32(&[d])?,
            first_pre: first_pre(chip, row_count, n)?,
            attention_pre: f32(&[n])?,
            experts_pre: f32(&[n])?,
            post: f32(&[n])?,
            comb: f32(&[n, n])?,
            plain_angles: f32(&[rope / 2, 2])?,
            compressed_angles: f32(&[rope / 2, 2])?,
            query_low: f32(&[config.q_lora_rank])?,
            query: f32(&[heads, head_dim])?,
            attended: f32(&[heads, head_dim])?,
            kv: f32(&[head_dim])?,
            packed_kv: tensor(Dtype::U8, &[formats.window.byte_count(head_dim, rope)])?,
            open_kv: f32(&[head_dim])?,
            open_gate: f32(&[head_dim])?,
            latent: f32(&[head_dim])?,
            key: f32(&[index_dim])?,
            index_query: f32(&[index_heads, index_dim])?,
            index_weights: f32(&[index_heads])?,
            selected: tensor(Dtype::I32, &[config.index_topk])?,
            blocks: blocks.transpose()?,
            grouped: f32(&[config.o_groups * config.o_lora_rank])?,
            router_logits: f32(&[config.n_routed_experts])?,
            chosen: tensor(Dtype::I32, &[config.num_experts_per_tok])?,
            chosen_weights: f32(&[config.num_experts_per_tok])?,
            shared_gate: f32(&[inner])?,
            shared_up: f32(&[inner])?,
            shared_hidden: f32(&[inner])?,
            shared_output: f32(&[d])?,
            engram: engram.transpose()?,
        })
    }

    /// The same activations for a step of `row_count` rows.
    pub fn narrow(&self, row_count: usize) -> Workspace {
        let narrow = |tensor: &Tensor| tensor.narrow(0, row_count);
        Workspace {
            streams: narrow(&self.streams),
            input: narrow(&self.input),
            output: narrow(&self.output),
            first_pre: narrow(&self.first_pre),
            attention_pre: narrow(&self.attention_pre),
            experts_pre: narrow(&self.experts_pre),
            post: narrow(&self.post),
            comb: narrow(&self.comb),
            plain_angles: narrow(&self.plain_angles),
            compressed_angles: narrow(&self.compressed_angles),
            query_low: narrow(&self.query_low),
            query: narrow(&self.query),
            attended: narrow(&self.attended),
            kv: narrow(&self.kv),
            packed_kv: narrow(&self.packed_kv),
            open_kv: narrow(&self.open_kv),
            open_gate: narrow(&self.open_gate),
            latent: narrow(&self.latent),
            key: narrow(&self.key),
            index_query: narrow(&self.index_query),
            index_weights: narrow(&self.index_weights),
            selected: narrow(&self.selected),
            blocks: self.blocks.as_ref().map(narrow),
            grouped: narrow(&self.grouped),
            router_logits: narrow(&self.router_logits),
            chosen: narrow(&self.chosen),
            chosen_weights: narrow(&self.chosen_weights),
            shared_gate: narrow(&self.shared_gate),
            shared_up: narrow(&self.shared_up),
            shared_hidden: narrow(&self.shared_hidden),
            shared_output: narrow(&self.shared_output),
            engram: self.engram.as_ref().map(|engram| EngramRows {
                ids: narrow(&engram.ids),
                numbers: narrow(&engram.numbers),
                looked_up: narrow(&engram.looked_up),
                keys_value: narrow(&engram.keys_value),
            }),
        }
    }
}

impl EngramRows {
    fn new(
        chip: &dyn Chip,
        config: &DeepseekV41Config,
        engram: &EngramConfig,
        row_count: usize,
    ) -> Result<Self, Error> {
        let tensor = |dtype: Dtype, width: usize| chip.allocate(dtype, &[row_count, width]);
        Ok(EngramRows {
            ids: tensor(Dtype::I32, 1)?,
            numbers: tensor(Dtype::I32, engram.row_count_per_token())?,
            looked_up: tensor(Dtype::F32, engram.width())?,
            keys_value: tensor(Dtype::F32, (config.hc_mult + 1) * config.hidden_size)?,
        })
    }
}

/// Rows of `1, 0, 0, ..`.
fn first_pre(chip: &dyn Chip, row_count: usize, n: usize) -> Result<Tensor, Error> {
    let values = (0..row_count * n).map(|index| if index % n == 0 { 1.0f32 } else { 0.0 });
    chip.load(TensorSource {
        name: "first stream".to_owned(),
        dtype: Dtype::F32,
        shape: vec![row_count, n],
        data: Bytes::from_iter(values.flat_map(f32::to_le_bytes)),
    })
}
