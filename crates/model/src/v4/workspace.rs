//! Activations of a step, allocated once for the largest step.

use cachalot_checkpoint::DeepseekV4Config;
use cachalot_chip::{Chip, Error, Tensor};
use cachalot_numerics::Dtype;

use crate::options::ModelOptions;

/// `F32` unless said otherwise; the first dimension is the row.
pub(super) struct Workspace {
    /// `[n, d]`: the residual streams.
    pub streams: Tensor,
    /// `[d]`: input of a sub-layer.
    pub input: Tensor,
    /// `[d]`: output of a sub-layer.
    pub output: Tensor,
    /// `[n]` and `[n, n]`.
    pub post: Tensor,
    pub comb: Tensor,
    /// Cosines and sines for layers without and with compression, `[R / 2, 2]`.
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
    /// Rows of the compressors: up to `2 D` wide, cut by [`flat_rows`].
    pub compressor_kv: Tensor,
    pub compressor_gate: Tensor,
    /// `[index_n_heads, index_head_dim]`.
    pub index_query: Tensor,
    /// `[index_n_heads]`.
    pub index_weights: Tensor,
    /// `I32 [index_topk]`.
    pub selected: Tensor,
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
}

impl Workspace {
    pub fn new(
        chip: &dyn Chip,
        config: &DeepseekV4Config,
        options: &ModelOptions,
        row_count: usize,
    ) -> Result<Self, Error> {
        let tensor = |dtype: Dtype, shape: &[usize]| chip.allocate(dtype, &[&[row_count], shape].concat());
        let f32 = |shape: &[usize]| tensor(Dtype::F32, shape);
        let flat = |width: usize| chip.allocate(Dtype::F32, &[row_count * width]);
        let (n, d) = (config.hc_mult, config.hidden_size);
        let (heads, head_dim, rope) = (config.num_attention_heads, config.head_dim, config.qk_rope_head_dim);
        let (index_heads, index_dim) = (config.index_n_heads, config.index_head_dim);
        let shared = config.n_shared_experts * config.moe_intermediate_size;
        Ok(Workspace {
            streams: f32(&[n, d])?,
            input: f32(&[d])?,
            output: f32(&[d])?,
            post: f32(&[n])?,
            comb: f32(&[n, n])?,
            plain_angles: f32(&[rope / 2, 2])?,
            compressed_angles: f32(&[rope / 2, 2])?,
            query_low: f32(&[config.q_lora_rank])?,
            query: f32(&[heads, head_dim])?,
            attended: f32(&[heads, head_dim])?,
            kv: f32(&[head_dim])?,
            packed_kv: tensor(Dtype::U8, &[options.row_format().byte_count(head_dim, rope)])?,
            compressor_kv: flat(2 * head_dim.max(index_dim))?,
            compressor_gate: flat(2 * head_dim.max(index_dim))?,
            index_query: f32(&[index_heads, index_dim])?,
            index_weights: f32(&[index_heads])?,
            selected: tensor(Dtype::I32, &[config.index_topk])?,
            grouped: f32(&[config.o_groups * config.o_lora_rank])?,
            router_logits: f32(&[config.n_routed_experts])?,
            chosen: tensor(Dtype::I32, &[config.num_experts_per_tok])?,
            chosen_weights: f32(&[config.num_experts_per_tok])?,
            shared_gate: f32(&[shared])?,
            shared_up: f32(&[shared])?,
            shared_hidden: f32(&[shared])?,
            shared_output: f32(&[d])?,
        })
    }

    /// The same activations for a step of `row_count` rows.
    pub fn narrow(&self, row_count: usize) -> Workspace {
        let narrow = |tensor: &Tensor| tensor.narrow(0, row_count);
        Workspace {
            streams: narrow(&self.streams),
            input: narrow(&self.input),
            output: narrow(&self.output),
            post: narrow(&self.post),
            comb: narrow(&self.comb),
            plain_angles: narrow(&self.plain_angles),
            compressed_angles: narrow(&self.compressed_angles),
            query_low: narrow(&self.query_low),
            query: narrow(&self.query),
            attended: narrow(&self.attended),
            kv: narrow(&self.kv),
            packed_kv: narrow(&self.packed_kv),
            compressor_kv: self.compressor_kv.clone(),
            compressor_gate: self.compressor_gate.clone(),
            index_query: narrow(&self.index_query),
            index_weights: narrow(&self.index_weights),
            selected: narrow(&self.selected),
            grouped: narrow(&self.grouped),
            router_logits: narrow(&self.router_logits),
            chosen: narrow(&self.chosen),
            chosen_weights: narrow(&self.chosen_weights),
            shared_gate: narrow(&self.shared_gate),
            shared_up: narrow(&self.shared_up),
            shared_hidden: narrow(&self.shared_hidden),
            shared_output: narrow(&self.shared_output),
        }
    }
}

/// `[row_count, width]` at the start of a one-dimensional tensor.
pub(super) fn flat_rows(tensor: &Tensor, row_count: usize, width: usize) -> Tensor {
    tensor.narrow(0, row_count * width).reshape(&[row_count, width])
}
