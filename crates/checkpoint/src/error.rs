use std::{io, path::PathBuf};

use cachalot_numerics::IntegerWidth;

use crate::{audit::TensorReport, header::HeaderFault, index::IndexFault, values::ValueFault};

/// Everything that can be wrong with a checkpoint, or with writing one.
///
/// Each message names the file, tensor or key, what was found, what was expected and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write a file.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried, as a verb: `read`, `map`, `create`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A file that every checkpoint has is not there.
    #[error("{name} is missing from {place}; {remedy}")]
    FileMissing {
        /// The file's name.
        name: String,
        /// The folder, or the name of the checkpoint held in memory.
        place: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A JSON file is not valid JSON, or spells a key twice.
    #[error("{origin} is not valid JSON: {source}; download the file again")]
    Json {
        /// The file.
        origin: PathBuf,
        /// Place and reason.
        source: serde_json::Error,
    },
    /// config.json describes a model of another family.
    #[error("{origin}: model_type {model_type:?} is {verdict}; this version runs \"deepseek_v3\", \"deepseek_v32\", \"deepseek_v4\" and \"deepseek_v41\"", origin = origin.display())]
    ModelType {
        /// The configuration file.
        origin: PathBuf,
        /// The type that it names; empty if it names none.
        model_type: String,
        /// `not supported yet` for DeepSeek's other families, else `not supported`.
        verdict: &'static str,
    },
    /// config.json lacks a key.
    #[error("{origin}: the key \"{key}\" is missing; {remedy}", origin = origin.display())]
    ConfigKeyMissing {
        /// The configuration file.
        origin: PathBuf,
        /// The key.
        key: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A value in config.json is impossible, or asks for something that is not supported.
    #[error("{origin}: \"{key}\" is {value}, expected {expected}; {remedy}", origin = origin.display())]
    ConfigValue {
        /// The configuration file.
        origin: PathBuf,
        /// The key, with dots into nested objects.
        key: String,
        /// The value as JSON, shortened.
        value: String,
        /// What would be right.
        expected: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The header of a safetensors file lies or is damaged.
    #[error("{file}: {fault}; the file is damaged or incomplete, download it again")]
    Header {
        /// The file.
        file: String,
        /// What is wrong.
        #[source]
        fault: HeaderFault,
    },
    /// model.safetensors.index.json and the shards do not fit together.
    #[error("{file}: {fault}")]
    Index {
        /// The index file.
        file: String,
        /// What is wrong.
        #[source]
        fault: IndexFault,
    },
    /// Two stored tensors stand for the same tensor of the model.
    #[error("{name} is stored twice, as {first} and as {second}; remove one of the files or merge them again")]
    TensorTwice {
        /// The official name.
        name: String,
        /// File of the first.
        first: String,
        /// File and stored name of the second.
        second: String,
    },
    /// Tensors that the configuration demands are missing or have another type or shape.
    #[error("{0}")]
    Tensors(Box<TensorReport>),
    /// No tensor of that name is in the checkpoint.
    #[error("{checkpoint} holds no tensor {name}; names are the official ones, such as layers.0.attn.wq_a")]
    TensorUnknown {
        /// The checkpoint's name.
        checkpoint: String,
        /// The name that was asked for.
        name: String,
    },
    /// A stored tensor cannot be read as a weight matrix.
    #[error("{name} is not a weight matrix: {reason}")]
    NotAMatrix {
        /// The tensor's name.
        name: String,
        /// What stands against it.
        reason: String,
    },
    /// A tensor holds a value that no calculation can use.
    #[error("{file}: {tensor}[{index}] is {fault}; the file is damaged, download it again")]
    Value {
        /// The file, or the checkpoint's name.
        file: String,
        /// The tensor's official name.
        tensor: String,
        /// Index of the first bad element, counted over the flattened tensor.
        index: usize,
        /// What is wrong with it.
        fault: ValueFault,
    },
    /// The tokenizer is not the one that the model's Engram tables were made for.
    #[error("{place} has {found}, expected {expected}; take tokenizer.json from the release")]
    Tokenizer {
        /// The checkpoint's name.
        place: String,
        /// What was found.
        found: String,
        /// What would do.
        expected: String,
    },
    /// The dense part is to be re-quantised, but is no longer the released one.
    #[error(
        "the dense part of {checkpoint} is {present} already and cannot become {wanted}; start from the released model"
    )]
    LowBitAlready {
        /// The checkpoint's name.
        checkpoint: String,
        /// Its format.
        present: IntegerWidth,
        /// The format asked for.
        wanted: IntegerWidth,
    },
    /// A checkpoint is to be written into a folder that already holds something.
    #[error("{path} is not empty; choose a new folder or remove this one", path = path.display())]
    FolderNotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// Another process writes the same folder.
    #[error("{path} is being written by another process; wait for it or choose another folder", path = path.display())]
    Busy {
        /// The unfinished folder.
        path: PathBuf,
    },
    /// The caller asked to stop.
    #[error("stopped; what is finished lies in {path}, the same command goes on with it", path = path.display())]
    Stopped {
        /// The unfinished folder.
        path: PathBuf,
    },
    /// The disk is too small for the checkpoint that is to be written.
    #[error("{path} has {available_bytes} bytes free, {needed_bytes} are needed; free some space or choose another disk", path = path.display())]
    DiskFull {
        /// The folder.
        path: PathBuf,
        /// Bytes that the checkpoint will take.
        needed_bytes: u64,
        /// Bytes that are free.
        available_bytes: u64,
    },
}
