//! The tensors of V4.1's text path on a chip, by layer.

use cachalot_checkpoint::{DeepseekV41Config, EngramConfig};
use cachalot_chip::{ExpertMatrices, Matrix, Tensor};
use cachalot_numerics::Dtype;

use crate::{Error, loader::Loader};

pub(super) struct Weights {
    pub embed: Matrix,
    pub layers: Vec<Layer>,
    /// Of models with Engram.
    pub folding: Option<Folding>,
    pub norm: Tensor,
    pub head: Matrix,
}

/// From tokens to the ids that Engram hashes.
pub(super) struct Folding {
    /// `I32 [vocabulary, 1]`.
    pub map: Tensor,
    /// The id that stands before a text.
    pub pad: i32,
}

/// One layer.
pub(super) struct Layer {
    pub engram: Option<Engram>,
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
    /// Of layers that make entries.
    pub source: Option<Source>,
    /// Of layers that select entries.
    pub indexer: Option<Indexer>,
}

/// What makes entries and their index keys.
pub(super) struct Source {
    pub wkv: Matrix,
    /// Of entries of several tokens.
    pub wgate: Option<Matrix>,
    pub norm: Tensor,
    pub wk: Matrix,
    pub k_norm: Tensor,
}

pub(super) struct Indexer {
    pub wq_b: Matrix,
    pub weights_proj: Matrix,
}

pub(super) struct Experts {
    pub gate: Matrix,
    pub bias: Tensor,
    pub routed: Vec<ExpertMatrices>,
    pub shared: ExpertMatrices,
}

pub(super) struct Engram {
    pub table: Matrix,
    pub wkv: Matrix,
    pub query_weight: Tensor,
    pub key_weight: Tensor,
    /// `I64 [tokens of the longest group]`.
    pub multipliers: Tensor,
    /// `I32 [group lengths, heads]`.
    pub primes: Tensor,
}

struct Reader<'a> {
    loader: &'a Loader<'a>,
    config: &'a DeepseekV41Config,
}

impl Weights {
    /// Loads everything but DSpark stages and vision; `progress` hears the number of layers done and their total.
    pub fn load(
        loader: &Loader<'_>,
        config: &DeepseekV41Config,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, Error> {
        let reader = Reader { loader, config };
        let folding = config.engram.as_ref().map(|engram| reader.folding(engram));
        let layer_count = config.num_hidden_layers;
        let mut layers = Vec::with_capacity(layer_count);
        for layer in 0..layer_count {
            progress(layer, layer_count);
            layers.push(reader.layer(layer)?);
        }
        progress(layer_count, layer_count);
        Ok(Weights {
            embed: loader.matrix("embed")?,
            layers,
            folding: folding.transpose()?,
            norm: loader.vector("norm.weight")?,
            head: loader.matrix("head")?,
        })
    }
}

impl Reader<'_> {
    fn folding(&self, engram: &EngramConfig) -> Result<Folding, Error> {
        let map = self.loader.token_map(engram, self.config.vocab_size)?;
        // Folded ids are fewer than tokens, which are far below 2^31.
        let map: Vec<i32> = map.into_iter().map(|id| id as i32).collect();
        Ok(Folding {
            pad: map[engram.pad_token_id as usize],
            map: self.integers("folded tokens", &[map.len(), 1], &map)?,
        })
    }

    fn integers(&self, name: &str, shape: &[usize], values: &[i32]) -> Result<Tensor, Error> {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        self.loader.made(name, Dtype::I32, shape, bytes)
    }

    fn layer(&self, layer: usize) -> Result<Layer, Error> {
        let prefix = format!("layers.{layer}");
        Ok(Layer {
            engram: self.engram(layer, &format!("{prefix}.engram"))?,
            attention_hyper: self.hyper(&format!("{prefix}.hc_attn"))?,
            attention_norm: self.loader.vector(&format!("{prefix}.attn_norm.weight"))?,
            attention: self.attention(layer, &format!("{prefix}.attn"))?,
            experts_hyper: self.hyper(&format!("{prefix}.hc_ffn"))?,
            experts_norm: self.loader.vector(&format!("{prefix}.ffn_norm.weight"))?,
            experts: self.experts(&format!("{prefix}.ffn"))?,
        })
    }

    fn hyper(&self, prefix: &str) -> Result<Hyper, Error> {
        Ok(Hyper {
            function: self.loader.f32(&format!("{prefix}_fn"))?,
            scale: self.loader.f32(&format!("{prefix}_scale"))?,
            base: self.loader.f32(&format!("{prefix}_base"))?,
        })
    }

    fn attention(&self, layer: usize, prefix: &str) -> Result<Attention, Error> {
        let matrix = |leaf: &str| self.loader.matrix(&format!("{prefix}.{leaf}"));
        let source = self.config.is_kv_source(layer).then(|| self.source(layer, prefix));
        let indexer = self.config.is_index_source(layer).then(|| {
            Ok::<_, Error>(Indexer {
                wq_b: matrix("indexer.wq_b")?,
                weights_proj: matrix("indexer.weights_proj")?,
            })
        });
        Ok(Attention {
            wq_a: matrix("wq_a")?,
            q_norm: self.loader.vector(&format!("{prefix}.q_norm.weight"))?,
            wq_b: matrix("wq_b")?,
            wkv: matrix("wkv")?,
            kv_norm: self.loader.vector(&format!("{prefix}.kv_norm.weight"))?,
            wo_a: matrix("wo_a")?,
            wo_b: matrix("wo_b")?,
            sink: self.loader.f32(&format!("{prefix}.attn_sink"))?,
            source: source.transpose()?,
            indexer: indexer.transpose()?,
        })
    }

    fn source(&self, layer: usize, prefix: &str) -> Result<Source, Error> {
        let matrix = |leaf: &str| self.loader.matrix(&format!("{prefix}.{leaf}"));
        let wgate = (self.config.compress_ratios[layer] > 1).then(|| matrix("compressor.wgate"));
        Ok(Source {
            wkv: matrix("compressor.wkv")?,
            wgate: wgate.transpose()?,
            norm: self.loader.vector(&format!("{prefix}.compressor.norm.weight"))?,
            wk: matrix("indexer.wk")?,
            k_norm: self.loader.vector(&format!("{prefix}.indexer.k_norm.weight"))?,
        })
    }

    fn experts(&self, prefix: &str) -> Result<Experts, Error> {
        let sources = (0..self.config.n_routed_experts)
            .map(|expert| self.loader.routed_expert(&format!("{prefix}.experts.{expert}")))
            .collect::<Result<_, _>>()?;
        Ok(Experts {
            gate: self.loader.matrix(&format!("{prefix}.gate"))?,
            bias: self.loader.f32(&format!("{prefix}.gate.bias"))?,
            routed: self.loader.experts(sources)?,
            shared: self.loader.expert(&format!("{prefix}.shared_experts"))?,
        })
    }

    fn engram(&self, layer: usize, prefix: &str) -> Result<Option<Engram>, Error> {
        let Some(config) = &self.config.engram else {
            return Ok(None);
        };
        let Some(table) = config.index_of(layer) else {
            return Ok(None);
        };
        // Row numbers fit in 31 bits, and so do the primes that they are counted by.
        let primes: Vec<i32> = config.primes()[table].iter().map(|prime| *prime as i32).collect();
        let multipliers = config.multipliers(layer);
        let shape = [config.max_ngram_size - 1, config.n_heads];
        Ok(Some(Engram {
            table: self.loader.matrix(&format!("{prefix}.embed"))?,
            wkv: self.loader.matrix(&format!("{prefix}.wkv"))?,
            query_weight: self.loader.f32(&format!("{prefix}.q_weight"))?,
            key_weight: self.loader.f32(&format!("{prefix}.k_weight"))?,
            primes: self.integers("primes", &shape, &primes)?,
            multipliers: self.loader.made(
                "multipliers",
                Dtype::I64,
                &[multipliers.len()],
                multipliers.iter().flat_map(|number| number.to_le_bytes()),
            )?,
        }))
    }
}
