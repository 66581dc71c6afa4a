//! Opening a checkpoint and looking tensors up.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use cachalot_numerics::{Dtype, MatrixFormat, bf16};

use crate::{
    Error,
    audit::{self, Findings},
    catalogue::{Catalogue, Placement},
    config::ModelConfig,
    index::{self, INDEX_FILE},
    source::{Source, StoredFile},
};

/// A checked checkpoint whose tensors can be looked up by their official names.
///
/// Weights stay in the mapped files; looking a tensor up copies nothing. Values of this type can be shared
/// between threads.
#[derive(Debug)]
pub struct Checkpoint {
    pub(crate) name: String,
    pub(crate) config: ModelConfig,
    pub(crate) catalogue: Catalogue,
    pub(crate) source: Source,
    findings: Findings,
    /// Matrices that take the place of stored ones, by name.
    pub(crate) replaced: HashMap<String, StoredMatrix>,
}

/// A weight matrix as it is stored.
///
/// The bytes may begin at any address: safetensors files align nothing.
#[derive(Clone, Debug)]
pub struct StoredMatrix {
    /// Official name without `.weight`.
    pub name: String,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub columns: usize,
    /// Layout of `weights` and `scales`.
    pub format: MatrixFormat,
    /// Row-major codes.
    pub weights: Bytes,
    /// Scales, if the format has some.
    pub scales: Option<Bytes>,
}

/// Any tensor as it is stored.
///
/// The bytes may begin at any address: safetensors files align nothing.
#[derive(Clone, Debug)]
pub struct StoredTensor {
    /// Official full name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Sides, outermost first.
    pub shape: Vec<usize>,
    /// Row-major elements, little-endian.
    pub data: Bytes,
}

/// Where the bytes of a tensor lie.
#[derive(Clone, Debug)]
pub struct Place {
    /// The file, shared by all its tensors.
    pub file: Arc<StoredFile>,
    /// First byte in the file.
    pub start: u64,
    /// Number of bytes.
    pub byte_count: usize,
}

impl StoredTensor {
    /// The elements as `f32`, if the type is F32 or BF16; exact.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        match self.dtype {
            Dtype::F32 => {
                let values = self.data.as_chunks::<4>().0.iter();
                Some(values.map(|bytes| f32::from_le_bytes(*bytes)).collect())
            }
            Dtype::Bf16 => {
                let values = self.data.as_chunks::<2>().0.iter();
                Some(values.map(|bytes| bf16::decode(u16::from_le_bytes(*bytes))).collect())
            }
            _ => None,
        }
    }
}

impl Checkpoint {
    /// Opens a folder with config.json, one or more .safetensors files and, for several, their index.
    ///
    /// Headers and index are checked against each other and against the files, every tensor that the
    /// configuration demands by name, type and shape, and cheap tensors by value (norms, tables of expert
    /// ids, scales of dense matrices). The rest is [`Checkpoint::verify`]'s, or [`check_scales`]'s at first
    /// touch of an expert.
    ///
    /// The files are mapped, not read: nobody may truncate them while the checkpoint is in use.
    ///
    /// # Errors
    /// Any reading variant of [`Error`].
    ///
    /// [`check_scales`]: crate::check_scales
    pub fn open(folder: &Path) -> Result<Checkpoint, Error> {
        let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let name = match absolute.file_name() {
            Some(name) => name.to_string_lossy().into_owned(),
            None => absolute.display().to_string(),
        };
        Checkpoint::from_source(name, Source::Folder(folder.to_owned()))
    }

    /// The same for files in memory, by their names; `name` is the checkpoint's own.
    ///
    /// # Errors
    /// Any reading variant of [`Error`].
    pub fn from_files(name: &str, files: Vec<(String, Bytes)>) -> Result<Checkpoint, Error> {
        let source = Source::Memory {
            name: name.to_owned(),
            files,
        };
        Checkpoint::from_source(name.to_owned(), source)
    }

    fn from_source(name: String, source: Source) -> Result<Checkpoint, Error> {
        let Some((text, origin)) = read_text(&source, "config.json")? else {
            return Err(Error::FileMissing {
                name: "config.json".into(),
                place: source.place(),
                remedy: "name the folder of a downloaded model",
            });
        };
        let config = ModelConfig::from_json(&text, &origin)?;
        let index = match read_text(&source, INDEX_FILE)? {
            Some((text, origin)) => Some(index::parse(&text, &origin)?),
            None => None,
        };
        let catalogue = Catalogue::open(&source, index.as_ref())?;
        let findings = audit::check(&config, &catalogue, || source.place()).map_err(Error::Tensors)?;
        let checkpoint = Checkpoint {
            name,
            config,
            catalogue,
            source,
            findings,
            replaced: HashMap::new(),
        };
        checkpoint.check_cheap_values()?;
        Ok(checkpoint)
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Name of the folder, or the name given to [`Checkpoint::from_files`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// MTP layers or DSpark stages whose tensors are stored: all that the configuration announces, or 0.
    pub fn nextn_stage_count(&self) -> usize {
        match self.findings.stages_present {
            true => self.config.nextn_stage_count(),
            false => 0,
        }
    }

    /// Official names of stored tensors that the model does not use, sorted: worth a notice.
    pub fn extra_tensors(&self) -> &[String] {
        &self.findings.extra
    }

    /// Number of stored tensors, stacked experts counted one by one.
    pub fn tensor_count(&self) -> usize {
        self.catalogue.tensors.len()
    }

    /// Bytes of all weight files.
    pub fn byte_count(&self) -> u64 {
        self.catalogue.shards.iter().map(|shard| shard.data.len() as u64).sum()
    }

    /// Whether a tensor is stored, by its full name or, for a matrix, without `.weight`.
    pub fn contains(&self, name: &str) -> bool {
        self.catalogue.tensors.contains_key(name) || self.catalogue.tensors.contains_key(&format!("{name}.weight"))
    }

    /// A weight matrix by its official name without `.weight`, such as `layers.3.ffn.experts.7.w1`.
    ///
    /// # Errors
    /// [`Error::TensorUnknown`] if it is not stored, [`Error::NotAMatrix`] if it is something else.
    pub fn matrix(&self, name: &str) -> Result<StoredMatrix, Error> {
        if let Some(matrix) = self.replaced.get(name) {
            return Ok(matrix.clone());
        }
        let weight = self.find(&format!("{name}.weight"))?;
        let scale = self.catalogue.tensors.get(&format!("{name}.scale"));
        let not_a_matrix = |reason: String| Error::NotAMatrix {
            name: name.to_owned(),
            reason,
        };
        let &[rows, stored_columns] = weight.shape.as_slice() else {
            return Err(not_a_matrix(format!("its shape is {:?}", weight.shape)));
        };
        let format = audit::format_of(&self.config, name, weight, scale)
            .ok_or_else(|| not_a_matrix(format!("its type is {}", weight.dtype)))?;
        let columns = format
            .columns(stored_columns)
            .ok_or_else(|| not_a_matrix(format!("{stored_columns} bytes a row are no whole groups of {format}")))?;
        let scales = match format.scale_shape(rows, columns) {
            None => None,
            Some((dtype, shape)) => match scale {
                Some(scale) if scale.dtype() == Some(dtype) && scale.shape == shape => Some(self.catalogue.data(scale)),
                Some(scale) => {
                    let (found, sides) = (scale.dtype, &scale.shape);
                    return Err(not_a_matrix(format!(
                        "its scale is {found} {sides:?}, expected {dtype} {shape:?}"
                    )));
                }
                None => return Err(not_a_matrix("it has no scale".into())),
            },
        };
        Ok(StoredMatrix {
            name: name.to_owned(),
            rows,
            columns,
            format,
            weights: self.catalogue.data(weight),
            scales,
        })
    }

    /// Any tensor by its official full name, such as `layers.0.attn_norm.weight`.
    ///
    /// # Errors
    /// [`Error::TensorUnknown`] if it is not stored or has a type that this engine does not know.
    pub fn tensor(&self, name: &str) -> Result<StoredTensor, Error> {
        let placement = self.find(name)?;
        let dtype = placement.dtype().ok_or_else(|| self.unknown(name))?;
        Ok(StoredTensor {
            name: name.to_owned(),
            dtype,
            shape: placement.shape.clone(),
            data: self.catalogue.data(placement),
        })
    }

    /// A small file beside the weights, such as `tokenizer.json`; `None` if it is missing or unreadable.
    pub fn file(&self, name: &str) -> Option<Bytes> {
        self.source.read(name).ok().flatten()
    }

    /// Path of the file that holds a tensor, by the tensor's official full name: for messages.
    pub fn file_of(&self, name: &str) -> Option<PathBuf> {
        let placement = self.catalogue.tensors.get(name)?;
        Some(self.shard_display(placement))
    }

    /// Where a tensor lies, by its official full name; `None` if it is not stored or not in a file.
    pub fn place(&self, name: &str) -> Option<Place> {
        let placement = self.catalogue.tensors.get(name)?;
        Some(Place {
            file: Arc::clone(self.catalogue.shards[placement.shard].file.as_ref()?),
            start: placement.start as u64,
            byte_count: placement.end - placement.start,
        })
    }

    /// How a shard is named in errors.
    pub(crate) fn shard_display(&self, placement: &Placement) -> PathBuf {
        self.source.display(&self.catalogue.shards[placement.shard].name)
    }

    fn find(&self, name: &str) -> Result<&Placement, Error> {
        self.catalogue.tensors.get(name).ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> Error {
        Error::TensorUnknown {
            checkpoint: self.name.clone(),
            name: name.to_owned(),
        }
    }
}

/// A text file and how it is named in errors.
fn read_text(source: &Source, name: &str) -> Result<Option<(String, PathBuf)>, Error> {
    let Some(content) = source.read(name)? else {
        return Ok(None);
    };
    let origin = source.display(name);
    match String::from_utf8(content.into()) {
        Ok(text) => Ok(Some((text, origin))),
        Err(error) => Err(Error::Json {
            origin,
            source: serde::de::Error::custom(format_args!("not UTF-8: {error}")),
        }),
    }
}
