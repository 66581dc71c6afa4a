//! The memory of a pool of V3: the entries of every layer and the activations of a step.

use std::sync::Arc;

use cachalot_checkpoint::DeepseekV3Config;
use cachalot_chip::{Chip, Error as ChipError, Tensor};
use cachalot_numerics::Dtype;

use super::{V3, row_format};
use crate::{
    Error, ModelOptions,
    memory::{RowLayout, StateBuilder},
};

/// State and activations, with the model that they are for.
pub(super) struct Memory {
    pub model: Arc<V3>,
    pub layers: Vec<LayerState>,
    pub workspace: Workspace,
    /// Logits of the last step, grown to the largest number of output rows asked for.
    pub output: Option<OutputRows>,
}

/// Pages of one layer, `U8 [pages, tokens of a page, row bytes]`.
pub(super) struct LayerState {
    pub entries: Tensor,
    pub index_keys: Option<Tensor>,
}

/// Activations, `F32` unless said otherwise; the first dimension is the row.
pub(super) struct Workspace {
    /// `[d]`: the residual stream, input and output of a sub-layer.
    pub hidden: Tensor,
    pub input: Tensor,
    pub output: Tensor,
    /// `[R / 2, 2]`.
    pub angles: Tensor,
    /// `[q_lora_rank]`.
    pub query_low: Tensor,
    /// `[H, N + R]`, `[H, L + R]`, `[H, L]`, `[H V]`.
    pub query: Tensor,
    pub latent_query: Tensor,
    pub attended: Tensor,
    pub values: Tensor,
    /// `[L + R]`.
    pub key: Tensor,
    /// Of V3.2.
    pub index: Option<IndexRows>,
    /// `[E]`.
    pub router_logits: Tensor,
    /// `I32 [k]` and `[k]`.
    pub chosen: Tensor,
    pub chosen_weights: Tensor,
    /// Of the dense feed-forward and of the shared experts: as wide as the wider one, cut by [`Workspace::inner`].
    gate: Tensor,
    up: Tensor,
    product: Tensor,
    /// `[d]`.
    pub shared_output: Tensor,
}

/// Activations of the indexer.
#[derive(Clone)]
pub(super) struct IndexRows {
    /// `[index heads, index width]` and `[index heads]`.
    pub query: Tensor,
    pub weights: Tensor,
    /// `[index width]`.
    pub key: Tensor,
    /// `I32 [index_topk]`.
    pub selected: Tensor,
}

/// Gate, up and their product for a feed-forward of one width.
pub(super) struct Inner {
    pub gate: Tensor,
    pub up: Tensor,
    pub product: Tensor,
}

/// What the head computes on.
pub(super) struct OutputRows {
    pub hidden: Tensor,
    pub logits: Tensor,
}

impl Memory {
    pub fn new(
        model: Arc<V3>,
        options: &ModelOptions,
        state: &mut StateBuilder<'_>,
        row_count: usize,
    ) -> Result<Self, Error> {
        let config = &model.config;
        let layout = |width| RowLayout {
            format: row_format(options),
            width,
            tail: config.qk_rope_head_dim,
        };
        let layers = (0..config.num_hidden_layers).map(|_| {
            let index_keys = config
                .indexer
                .map(|indexer| state.pool(1, layout(indexer.index_head_dim)));
            Ok(LayerState {
                entries: state.pool(1, layout(config.entry_width()))?,
                index_keys: index_keys.transpose()?,
            })
        });
        Ok(Memory {
            layers: layers.collect::<Result<_, Error>>()?,
            workspace: Workspace::new(state.chip, config, row_count)?,
            output: None,
            model,
        })
    }
}

impl Workspace {
    fn new(chip: &dyn Chip, config: &DeepseekV3Config, row_count: usize) -> Result<Self, ChipError> {
        let tensor = |dtype: Dtype, shape: &[usize]| chip.allocate(dtype, &[&[row_count], shape].concat());
        let f32 = |shape: &[usize]| tensor(Dtype::F32, shape);
        let c = config;
        let (width, heads) = (c.hidden_size, c.num_attention_heads);
        let inner = c.intermediate_size.max(c.n_shared_experts * c.moe_intermediate_size);
        let flat = || chip.allocate(Dtype::F32, &[row_count * inner]);
        let index = config.indexer.map(|indexer| {
            Ok::<_, ChipError>(IndexRows {
                query: f32(&[indexer.index_n_heads, indexer.index_head_dim])?,
                weights: f32(&[indexer.index_n_heads])?,
                key: f32(&[indexer.index_head_dim])?,
                selected: tensor(Dtype::I32, &[indexer.index_topk])?,
            })
        });
        Ok(Workspace {
            hidden: f32(&[width])?,
            input: f32(&[width])?,
            output: f32(&[width])?,
            angles: f32(&[c.qk_rope_head_dim / 2, 2])?,
            query_low: f32(&[c.q_lora_rank])?,
            query: f32(&[heads, c.qk_head_dim()])?,
            latent_query: f32(&[heads, c.entry_width()])?,
            attended: f32(&[heads, c.kv_lora_rank])?,
            values: f32(&[heads * c.v_head_dim])?,
            key: f32(&[c.entry_width()])?,
            index: index.transpose()?,
            router_logits: f32(&[c.n_routed_experts])?,
            chosen: tensor(Dtype::I32, &[c.num_experts_per_tok])?,
            chosen_weights: f32(&[c.num_experts_per_tok])?,
            gate: flat()?,
            up: flat()?,
            product: flat()?,
            shared_output: f32(&[width])?,
        })
    }

    /// The same activations for a step of `row_count` rows.
    pub fn narrow(&self, row_count: usize) -> Workspace {
        let narrow = |tensor: &Tensor| tensor.narrow(0, row_count);
        Workspace {
            hidden: narrow(&self.hidden),
            input: narrow(&self.input),
            output: narrow(&self.output),
            angles: narrow(&self.angles),
            query_low: narrow(&self.query_low),
            query: narrow(&self.query),
            latent_query: narrow(&self.latent_query),
            attended: narrow(&self.attended),
            values: narrow(&self.values),
            key: narrow(&self.key),
            index: self.index.as_ref().map(|index| IndexRows {
                query: narrow(&index.query),
                weights: narrow(&index.weights),
                key: narrow(&index.key),
                selected: narrow(&index.selected),
            }),
            router_logits: narrow(&self.router_logits),
            chosen: narrow(&self.chosen),
            chosen_weights: narrow(&self.chosen_weights),
            gate: self.gate.clone(),
            up: self.up.clone(),
            product: self.product.clone(),
            shared_output: narrow(&self.shared_output),
        }
    }

    /// Rows of `width` channels inside a feed-forward, for the rows that this workspace was narrowed to.
    pub fn inner(&self, width: usize) -> Inner {
        let row_count = self.hidden.shape()[0];
        let rows = |tensor: &Tensor| tensor.narrow(0, row_count * width).reshape(&[row_count, width]);
        Inner {
            gate: rows(&self.gate),
            up: rows(&self.up),
            product: rows(&self.product),
        }
    }
}

impl OutputRows {
    pub fn new(chip: &dyn Chip, config: &DeepseekV3Config, row_count: usize) -> Result<Self, ChipError> {
        Ok(OutputRows {
            hidden: chip.allocate(Dtype::F32, &[row_count, config.hidden_size])?,
            logits: chip.allocate(Dtype::F32, &[row_count, config.vocab_size])?,
        })
    }

    pub fn narrow(&self, row_count: usize) -> OutputRows {
        OutputRows {
            hidden: self.hidden.narrow(0, row_count),
            logits: self.logits.narrow(0, row_count),
        }
    }
}
