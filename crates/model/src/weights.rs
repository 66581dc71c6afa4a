//! A checkpoint's tensors on a chip, by layer.

use std::{cell::RefCell, sync::Arc};

use bytes::Bytes;
use cachalot_checkpoint::{self as checkpoint, Checkpoint, StoredMatrix, StoredTensor};
use cachalot_chip::{
    Chip, ExpertMatrices, ExpertSource, FileRange, Matrix, MatrixPlace, MatrixSource, StoredFile, Tensor, TensorSource,
};
use cachalot_numerics::Dtype;

use crate::Error;

/// Everything but the MTP or DSpark stages.
pub(crate) struct Weights {
    pub embed: Matrix,
    pub layers: Vec<Layer>,
    pub hyper_head: Hyper,
    pub norm: Tensor,
    pub head: Matrix,
}

/// One layer.
pub(crate) struct Layer {
    pub attention_hyper: Hyper,
    pub attention_norm: Tensor,
    pub attention: Attention,
    pub experts_hyper: Hyper,
    pub experts_norm: Tensor,
    pub experts: Experts,
}

/// Function, scale and base of a hyper-connection.
pub(crate) struct Hyper {
    pub function: Tensor,
    pub scale: Tensor,
    pub base: Tensor,
}

pub(crate) struct Attention {
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

pub(crate) struct Compressor {
    pub wkv: Matrix,
    pub wgate: Matrix,
    pub ape: Tensor,
    pub norm: Tensor,
}

pub(crate) struct Indexer {
    pub wq_b: Matrix,
    pub weights_proj: Matrix,
    pub compressor: Compressor,
}

pub(crate) struct Experts {
    pub gate: Matrix,
    pub choice: Choice,
    pub routed: Vec<ExpertMatrices>,
    pub shared: ExpertMatrices,
}

/// How a layer picks experts.
pub(crate) enum Choice {
    Hash { table: Tensor },
    Biased { bias: Tensor },
}

/// Reads tensors of a checkpoint into a chip.
pub(crate) struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    chip: &'a dyn Chip,
    /// The checkpoint's files as the chip's contract has them: each once, for tens of thousands of ranges.
    files: RefCell<Vec<(Arc<checkpoint::StoredFile>, Arc<StoredFile>)>>,
}

impl<'a> Loader<'a> {
    pub fn new(checkpoint: &'a Checkpoint, chip: &'a dyn Chip) -> Self {
        Loader {
            checkpoint,
            chip,
            files: RefCell::default(),
        }
    }
}

impl Loader<'_> {
    /// Loads everything; `progress` hears the number of layers done and their total.
    pub fn weights(&self, progress: &mut dyn FnMut(usize, usize)) -> Result<Weights, Error> {
        let layer_count = self.checkpoint.config().num_hidden_layers;
        let mut layers = Vec::with_capacity(layer_count);
        for layer in 0..layer_count {
            progress(layer, layer_count);
            layers.push(self.layer(layer)?);
        }
        progress(layer_count, layer_count);
        Ok(Weights {
            embed: self.matrix("embed")?,
            layers,
            hyper_head: self.hyper("hc_head")?,
            norm: self.vector("norm.weight")?,
            head: self.matrix("head")?,
        })
    }

    fn layer(&self, layer: usize) -> Result<Layer, Error> {
        let prefix = format!("layers.{layer}");
        Ok(Layer {
            attention_hyper: self.hyper(&format!("{prefix}.hc_attn"))?,
            attention_norm: self.vector(&format!("{prefix}.attn_norm.weight"))?,
            attention: self.attention(layer, &format!("{prefix}.attn"))?,
            experts_hyper: self.hyper(&format!("{prefix}.hc_ffn"))?,
            experts_norm: self.vector(&format!("{prefix}.ffn_norm.weight"))?,
            experts: self.experts(layer, &format!("{prefix}.ffn"))?,
        })
    }

    fn hyper(&self, prefix: &str) -> Result<Hyper, Error> {
        Ok(Hyper {
            function: self.f32(&format!("{prefix}_fn"))?,
            scale: self.f32(&format!("{prefix}_scale"))?,
            base: self.f32(&format!("{prefix}_base"))?,
        })
    }

    fn attention(&self, layer: usize, prefix: &str) -> Result<Attention, Error> {
        let ratio = self.checkpoint.config().compress_ratio(layer);
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
            wq_a: self.matrix(&format!("{prefix}.wq_a"))?,
            q_norm: self.vector(&format!("{prefix}.q_norm.weight"))?,
            wq_b: self.matrix(&format!("{prefix}.wq_b"))?,
            wkv: self.matrix(&format!("{prefix}.wkv"))?,
            kv_norm: self.vector(&format!("{prefix}.kv_norm.weight"))?,
            wo_a: self.matrix(&format!("{prefix}.wo_a"))?,
            wo_b: self.matrix(&format!("{prefix}.wo_b"))?,
            sink: self.f32(&format!("{prefix}.attn_sink"))?,
            compressor,
            indexer,
        })
    }

    fn compressor(&self, prefix: &str) -> Result<Compressor, Error> {
        Ok(Compressor {
            wkv: self.matrix(&format!("{prefix}.wkv"))?,
            wgate: self.matrix(&format!("{prefix}.wgate"))?,
            ape: self.f32(&format!("{prefix}.ape"))?,
            norm: self.vector(&format!("{prefix}.norm.weight"))?,
        })
    }

    fn indexer(&self, prefix: &str) -> Result<Indexer, Error> {
        Ok(Indexer {
            wq_b: self.matrix(&format!("{prefix}.wq_b"))?,
            weights_proj: self.matrix(&format!("{prefix}.weights_proj"))?,
            compressor: self.compressor(&format!("{prefix}.compressor"))?,
        })
    }

    fn experts(&self, layer: usize, prefix: &str) -> Result<Experts, Error> {
        let config = self.checkpoint.config();
        let choice = if config.is_hash_layer(layer) {
            Choice::Hash {
                table: self.tensor(self.checkpoint.tensor(&format!("{prefix}.gate.tid2eid"))?)?,
            }
        } else {
            Choice::Biased {
                bias: self.f32(&format!("{prefix}.gate.bias"))?,
            }
        };
        let sources = (0..config.n_routed_experts)
            .map(|expert| self.routed_expert(&format!("{prefix}.experts.{expert}")))
            .collect::<Result<_, _>>()?;
        Ok(Experts {
            gate: self.matrix(&format!("{prefix}.gate"))?,
            choice,
            routed: self.chip.load_experts(sources)?,
            shared: self.expert(&format!("{prefix}.shared_experts"))?,
        })
    }

    fn expert(&self, prefix: &str) -> Result<ExpertMatrices, Error> {
        Ok(ExpertMatrices {
            w1: self.matrix(&format!("{prefix}.w1"))?,
            w2: self.matrix(&format!("{prefix}.w2"))?,
            w3: self.matrix(&format!("{prefix}.w3"))?,
        })
    }

    fn routed_expert(&self, prefix: &str) -> Result<ExpertSource, Error> {
        let names = ["w1", "w2", "w3"].map(|leaf| format!("{prefix}.{leaf}"));
        let places = match [0, 1, 2].map(|i| self.place(&names[i])) {
            [Some(w1), Some(w2), Some(w3)] => Some([w1, w2, w3]),
            _ => None,
        };
        Ok(ExpertSource {
            w1: self.matrix_source(&names[0])?,
            w2: self.matrix_source(&names[1])?,
            w3: self.matrix_source(&names[2])?,
            places,
        })
    }

    /// Where a matrix lies, if it is in a file.
    fn place(&self, name: &str) -> Option<MatrixPlace> {
        let range = |leaf: &str| {
            let place = self.checkpoint.place(&format!("{name}.{leaf}"))?;
            Some(FileRange {
                file: self.file(&place.file),
                start: place.start,
                byte_count: place.byte_count,
            })
        };
        Some(MatrixPlace {
            weights: range("weight")?,
            scales: range("scale"),
        })
    }

    fn file(&self, file: &Arc<checkpoint::StoredFile>) -> Arc<StoredFile> {
        let mut files = self.files.borrow_mut();
        if let Some((_, known)) = files.iter().find(|(other, _)| Arc::ptr_eq(other, file)) {
            return Arc::clone(known);
        }
        let checkpoint::StoredFile {
            path,
            byte_count,
            modified,
        } = (**file).clone();
        let new = Arc::new(StoredFile {
            path,
            byte_count,
            modified,
        });
        files.push((Arc::clone(file), Arc::clone(&new)));
        new
    }

    fn matrix(&self, name: &str) -> Result<Matrix, Error> {
        Ok(self.chip.load_matrix(self.matrix_source(name)?)?)
    }

    fn matrix_source(&self, name: &str) -> Result<MatrixSource, Error> {
        let StoredMatrix {
            name,
            rows,
            columns,
            format,
            weights,
            scales,
        } = self.checkpoint.matrix(name)?;
        let scales = scales.unwrap_or_default();
        Ok(MatrixSource {
            name,
            rows,
            columns,
            format,
            weights,
            scales,
        })
    }

    /// A norm weight, in its stored type.
    fn vector(&self, name: &str) -> Result<Tensor, Error> {
        let stored = self.checkpoint.tensor(name)?;
        match stored.dtype {
            Dtype::F32 | Dtype::Bf16 => self.tensor(stored),
            found => Err(Error::TensorDtype {
                name: stored.name,
                expected: "F32 or BF16",
                found,
            }),
        }
    }

    /// A tensor that operators want in `f32`; some checkpoints store it as bf16.
    fn f32(&self, name: &str) -> Result<Tensor, Error> {
        let mut stored = self.checkpoint.tensor(name)?;
        if stored.dtype != Dtype::F32 {
            let Some(values) = stored.to_f32() else {
                return Err(Error::TensorDtype {
                    name: stored.name,
                    expected: "F32 or BF16",
                    found: stored.dtype,
                });
            };
            stored.dtype = Dtype::F32;
            stored.data = Bytes::from_iter(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        self.tensor(stored)
    }

    fn tensor(&self, stored: StoredTensor) -> Result<Tensor, Error> {
        let StoredTensor {
            name,
            dtype,
            shape,
            data,
        } = stored;
        Ok(self.chip.load(TensorSource {
            name,
            dtype,
            shape,
            data,
        })?)
    }
}
