//! The tensors of V4 on a chip, by layer.

use cachalot_checkpoint::DeepseekV4Config;
use cachalot_chip::{ExpertMatrices, Matrix, Tensor};

use crate::{Error, loader::Loader};

/// Everything but the MTP or DSpark stages.
pub(super) struct Weights {
    pub embed: Matrix,
    pub layers: Vec<Layer>,
    pub hyper_head: Hyper,
    pub norm: Tensor,
    pub head: Matrix,
}

/// One layer.
pub(super) struct Layer {
    pub attention_hyper: Hyper,
    pub attention_norm: Tensor,
    pub attention: Attention,
    pub experts_hyper: Hyper,
    pub experts_norm: Tensor,
    pub experts: Experts,
}

/// Function, scale and base of a hyper-connection.
pub(super) struct Hyper {
    pub function: Tensor,
    pub scale: Tensor,
    pub base: Tensor,
}

pub(super) struct Attention {
    pub wq_a: Matrix,
    pub q_norm: Tensor,
    pub wq_b: Matrix,
    pub wkv: Matrix,
    pub kv_norm: Tensor,
    pub wo_a: Matrix,
    pub wo_b: Matrix,
    pub sink: Tensor,
    pub compressor: Option<Compressor>,
    pub indexer: Option<Indexer>,
}

pub(super) struct Compressor {
    pub wkv: Matrix,
    pub wgate: Matrix,
    pub ape: Tensor,
    pub norm: Tensor,
}

pub(super) struct Indexer {
    pub wq_b: Matrix,
    pub weights_proj: Matrix,
    pub compressor: Compressor,
}

pub(super) struct Experts {
    pub gate: Matrix,
    pub choice: Choice,
    pub routed: Vec<ExpertMatrices>,
    pub shared: ExpertMatrices,
}

/// How a layer picks experts.
pub(super) enum Choice {
    Hash { table: Tensor },
    Biased { bias: Tensor },
}

/// Reads the weights of V4.
pub(super) struct Reader<'a> {
    pub loader: &'a Loader<'a>,
    pub config: &'a DeepseekV4Config,
}

impl Weights {
    /// Loads everything; `progress` hears the number of layers done and their total.
    pub fn load(
        loader: &Loader<'_>,
        config: &DeepseekV4Config,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, Error> {
        Reader { loader, config }.weights(progress)
    }
}

impl Reader<'_> {
    fn weights(&self, progress: &mut dyn FnMut(usize, usize)) -> Result<Weights, Error> {
        let layer_count = self.config.num_hidden_layers;
        let mut layers = Vec::with_capacity(layer_count);
        for layer in 0..layer_count {
            progress(layer, layer_count);
            layers.push(self.layer(layer, &format!("layers.{layer}"))?);
        }
        progress(layer_count, layer_count);
        Ok(Weights {
            embed: self.loader.matrix("embed")?,
            layers,
            hyper_head: self.hyper("hc_head")?,
            norm: self.loader.vector("norm.weight")?,
            head: self.loader.matrix("head")?,
        })
    }

    /// Layer `layer`, whose tensors are named `prefix.*`; stages count on behind the last layer.
    pub fn layer(&self, layer: usize, prefix: &str) -> Result<Layer, Error> {
        Ok(Layer {
            attention_hyper: self.hyper(&format!("{prefix}.hc_attn"))?,
            attention_norm: self.loader.vector(&format!("{prefix}.attn_norm.weight"))?,
            attention: self.attention(layer, &format!("{prefix}.attn"))?,
            experts_hyper: self.hyper(&format!("{prefix}.hc_ffn"))?,
            experts_norm: self.loader.vector(&format!("{prefix}.ffn_norm.weight"))?,
            experts: self.experts(layer, &format!("{prefix}.ffn"))?,
        })
    }

    pub fn hyper(&self, prefix: &str) -> Result<Hyper, Error> {
        Ok(Hyper {
            function: self.loader.f32(&format!("{prefix}_fn"))?,
            scale: self.loader.f32(&format!("{prefix}_scale"))?,
            base: self.loader.f32(&format!("{prefix}_base"))?,
        })
    }

    fn attention(&self, layer: usize, prefix: &str) -> Result<Attention, Error> {
        let ratio = self.config.compress_ratio(layer);
        let compressor = match ratio {
            0 => None,
            _ => Some(self.compressor(&format!("{prefix}.compressor"))?),
        };
        // Only the layers of ratio 4 choose among their entries.
        let indexer = if ratio == 4 {
            Some(self.indexer(&format!("{prefix}.indexer"))?)
        } else {
            None
        };
        Ok(Attention {
            wq_a: self.loader.matrix(&format!("{prefix}.wq_a"))?,
            q_norm: self.loader.vector(&format!("{prefix}.q_norm.weight"))?,
            wq_b: self.loader.matrix(&format!("{prefix}.wq_b"))?,
            wkv: self.loader.matrix(&format!("{prefix}.wkv"))?,
            kv_norm: self.loader.vector(&format!("{prefix}.kv_norm.weight"))?,
            wo_a: self.loader.matrix(&format!("{prefix}.wo_a"))?,
            wo_b: self.loader.matrix(&format!("{prefix}.wo_b"))?,
            sink: self.loader.f32(&format!("{prefix}.attn_sink"))?,
            compressor,
            indexer,
        })
    }

    fn compressor(&self, prefix: &str) -> Result<Compressor, Error> {
        Ok(Compressor {
            wkv: self.loader.matrix(&format!("{prefix}.wkv"))?,
            wgate: self.loader.matrix(&format!("{prefix}.wgate"))?,
            ape: self.loader.f32(&format!("{prefix}.ape"))?,
            norm: self.loader.vector(&format!("{prefix}.norm.weight"))?,
        })
    }

    fn indexer(&self, prefix: &str) -> Result<Indexer, Error> {
        Ok(Indexer {
            wq_b: self.loader.matrix(&format!("{prefix}.wq_b"))?,
            weights_proj: self.loader.matrix(&format!("{prefix}.weights_proj"))?,
            compressor: self.compressor(&format!("{prefix}.compressor"))?,
        })
    }

    fn experts(&self, layer: usize, prefix: &str) -> Result<Experts, Error> {
        let choice = if self.config.is_hash_layer(layer) {
            Choice::Hash {
                table: self.loader.stored(&format!("{prefix}.gate.tid2eid"))?,
            }
        } else {
            Choice::Biased {
                bias: self.loader.f32(&format!("{prefix}.gate.bias"))?,
            }
        };
        let sources = (0..self.config.n_routed_experts)
            .map(|expert| self.loader.routed_expert(&format!("{prefix}.experts.{expert}")))
            .collect::<Result<_, _>>()?;
        Ok(Experts {
            gate: self.loader.matrix(&format!("{prefix}.gate"))?,
            choice,
            routed: self.loader.experts(sources)?,
            shared: self.loader.expert(&format!("{prefix}.shared_experts"))?,
        })
    }
}
