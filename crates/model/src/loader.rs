//! A checkpoint's tensors on a chip, by their names.

use std::{cell::RefCell, sync::Arc};

use bytes::Bytes;
use cachalot_checkpoint::{self as checkpoint, Checkpoint, EngramConfig, StoredMatrix, StoredTensor};
use cachalot_chip::{
    Chip, ExpertMatrices, ExpertSource, FileRange, Matrix, MatrixPlace, MatrixSource, StoredFile, Tensor, TensorSource,
};
use cachalot_numerics::Dtype;

use crate::Error;

/// Reads tensors of a checkpoint into a chip.
pub(crate) struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    chip: &'a dyn Chip,
    /// Whether to load the drafter too.
    pub wants_drafter: bool,
    /// The checkpoint's files as the chip's contract has them: each once, for tens of thousands of ranges.
    files: RefCell<Vec<(Arc<checkpoint::StoredFile>, Arc<StoredFile>)>>,
}

impl<'a> Loader<'a> {
    pub fn new(checkpoint: &'a Checkpoint, chip: &'a dyn Chip) -> Self {
        Loader {
            checkpoint,
            chip,
            wants_drafter: false,
            files: RefCell::default(),
        }
    }
}

impl Loader<'_> {
    /// `w1`, `w2` and `w3` below a name.
    pub fn expert(&self, prefix: &str) -> Result<ExpertMatrices, Error> {
        Ok(ExpertMatrices {
            w1: self.matrix(&format!("{prefix}.w1"))?,
            w2: self.matrix(&format!("{prefix}.w2"))?,
            w3: self.matrix(&format!("{prefix}.w3"))?,
        })
    }

    /// What the chip needs to load a routed expert, now or later.
    pub fn routed_expert(&self, prefix: &str) -> Result<ExpertSource, Error> {
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

    /// Whether a tensor is stored.
    pub fn has(&self, name: &str) -> bool {
        self.checkpoint.tensor(name).is_ok()
    }

    /// A matrix.
    pub fn matrix(&self, name: &str) -> Result<Matrix, Error> {
        self.load_matrix(self.matrix_source(name)?)
    }

    /// A matrix that was made of stored ones.
    pub fn load_matrix(&self, source: MatrixSource) -> Result<Matrix, Error> {
        Ok(self.chip.load_matrix(source)?)
    }

    /// A matrix as it is stored.
    pub fn matrix_source(&self, name: &str) -> Result<MatrixSource, Error> {
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

    /// The routed experts of a layer.
    pub fn experts(&self, sources: Vec<ExpertSource>) -> Result<Vec<ExpertMatrices>, Error> {
        Ok(self.chip.load_experts(sources)?)
    }

    /// Folded ids of all tokens.
    pub fn token_map(&self, engram: &EngramConfig, vocab_size: usize) -> Result<Vec<u32>, Error> {
        Ok(self.checkpoint.token_map(engram, vocab_size)?)
    }

    /// A tensor that no checkpoint holds.
    pub fn made(
        &self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        bytes: impl Iterator<Item = u8>,
    ) -> Result<Tensor, Error> {
        self.tensor(StoredTensor {
            name: name.to_owned(),
            dtype,
            shape: shape.to_vec(),
            data: Bytes::from_iter(bytes),
        })
    }

    /// A tensor as it is stored.
    pub fn stored(&self, name: &str) -> Result<Tensor, Error> {
        self.tensor(self.checkpoint.tensor(name)?)
    }

    /// A norm weight, in its stored type.
    pub fn vector(&self, name: &str) -> Result<Tensor, Error> {
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
    pub fn f32(&self, name: &str) -> Result<Tensor, Error> {
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
