//! The tensors of V3 on a chip, by layer.

use cachalot_checkpoint::DeepseekV3Config;
use cachalot_chip::{ExpertMatrices, Matrix, Tensor};

use super::absorb::{self, HeadRows};
use crate::{Error, loader::Loader};

/// Everything but the MTP layers.
pub(super) struct Weights {
    pub embed: Matrix,
    pub layers: Vec<Layer>,
    pub norm: Tensor,
    pub head: Matrix,
}

/// One layer.
pub(super) struct Layer {
    pub attention_norm: Tensor,
    pub attention: Attention,
    pub feed_forward_norm: Tensor,
    pub feed_forward: FeedForward,
}

pub(super) struct Attention {
    pub wq_a: Matrix,
    pub q_norm: Tensor,
    pub wq_b: Matrix,
    pub wkv_a: Matrix,
    pub kv_norm: Tensor,
    /// Of each head, what brings a query into the space of the latents.
    pub absorb: Matrix,
    /// Of each head, what makes a value of a latent.
    pub values: Matrix,
    pub wo: Matrix,
    pub indexer: Option<Indexer>,
}

pub(super) struct Indexer {
    pub wq_b: Matrix,
    pub wk: Matrix,
    pub k_norm: Tensor,
    pub k_bias: Tensor,
    pub weights_proj: Matrix,
}

pub(super) enum FeedForward {
    Dense(ExpertMatrices),
    Experts {
        gate: Matrix,
        bias: Tensor,
        routed: Vec<ExpertMatrices>,
        shared: ExpertMatrices,
    },
}

impl Weights {
    /// Loads everything; `progress` hears the number of layers done and their total.
    pub fn load(
        loader: &Loader<'_>,
        config: &DeepseekV3Config,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, Error> {
        let layer_count = config.num_hidden_layers;
        let mut layers = Vec::with_capacity(layer_count);
        for layer in 0..layer_count {
            progress(layer, layer_count);
            layers.push(Layer::load(loader, config, layer)?);
        }
        progress(layer_count, layer_count);
        Ok(Weights {
            embed: loader.matrix("embed")?,
            layers,
            norm: loader.vector("norm.weight")?,
            head: loader.matrix("head")?,
        })
    }
}

impl Layer {
    fn load(loader: &Loader<'_>, config: &DeepseekV3Config, layer: usize) -> Result<Self, Error> {
        let prefix = format!("layers.{layer}");
        Ok(Layer {
            attention_norm: loader.vector(&format!("{prefix}.attn_norm.weight"))?,
            attention: Attention::load(loader, config, &format!("{prefix}.attn"))?,
            feed_forward_norm: loader.vector(&format!("{prefix}.ffn_norm.weight"))?,
            feed_forward: FeedForward::load(loader, config, layer, &format!("{prefix}.ffn"))?,
        })
    }
}

impl Attention {
    fn load(loader: &Loader<'_>, config: &DeepseekV3Config, prefix: &str) -> Result<Self, Error> {
        let rows = HeadRows {
            head_count: config.num_attention_heads,
            key_rows: config.qk_nope_head_dim,
            value_rows: config.v_head_dim,
        };
        let [absorb, values] = absorb::split(loader.matrix_source(&format!("{prefix}.wkv_b"))?, rows);
        Ok(Attention {
            wq_a: loader.matrix(&format!("{prefix}.wq_a"))?,
            q_norm: loader.vector(&format!("{prefix}.q_norm.weight"))?,
            wq_b: loader.matrix(&format!("{prefix}.wq_b"))?,
            wkv_a: loader.matrix(&format!("{prefix}.wkv_a"))?,
            kv_norm: loader.vector(&format!("{prefix}.kv_norm.weight"))?,
            absorb: loader.load_matrix(absorb)?,
            values: loader.load_matrix(values)?,
            wo: loader.matrix(&format!("{prefix}.wo"))?,
            indexer: match config.indexer {
                None => None,
                Some(_) => Some(Indexer::load(loader, &format!("{prefix}.indexer"))?),
            },
        })
    }
}

impl Indexer {
    fn load(loader: &Loader<'_>, prefix: &str) -> Result<Self, Error> {
        Ok(Indexer {
            wq_b: loader.matrix(&format!("{prefix}.wq_b"))?,
            wk: loader.matrix(&format!("{prefix}.wk"))?,
            k_norm: loader.vector(&format!("{prefix}.k_norm.weight"))?,
            k_bias: loader.vector(&format!("{prefix}.k_norm.bias"))?,
            weights_proj: loader.matrix(&format!("{prefix}.weights_proj"))?,
        })
    }
}

impl FeedForward {
    fn load(loader: &Loader<'_>, config: &DeepseekV3Config, layer: usize, prefix: &str) -> Result<Self, Error> {
        if config.is_dense_layer(layer) {
            return Ok(FeedForward::Dense(loader.expert(prefix)?));
        }
        let sources = (0..config.n_routed_experts)
            .map(|expert| loader.routed_expert(&format!("{prefix}.experts.{expert}")))
            .collect::<Result<_, _>>()?;
        Ok(FeedForward::Experts {
            gate: loader.matrix(&format!("{prefix}.gate"))?,
            bias: loader.f32(&format!("{prefix}.gate.bias"))?,
            routed: loader.experts(sources)?,
            shared: loader.expert(&format!("{prefix}.shared_experts"))?,
        })
    }
}
