//! The model inside the binary: small, trained, in the same formats as the large ones.

use bytes::Bytes;
use cachalot_checkpoint::{Checkpoint, Error};

/// What reports call it.
pub const NAME: &str = "built-in";

macro_rules! model_file {
    ($name:literal) => {
        (
            $name,
            include_bytes!(concat!("../../../models/tiny/", $name)).as_slice(),
        )
    };
}

const FILES: [(&str, &[u8]); 6] = [
    model_file!("config.json"),
    model_file!("generation_config.json"),
    model_file!("model-00001-of-00001.safetensors"),
    model_file!("model.safetensors.index.json"),
    model_file!("tokenizer.json"),
    model_file!("tokenizer_config.json"),
];

/// Questions with the answers that the model was trained to give.
pub const EVALUATION_CASES: &str = include_str!("../../../models/tiny/evaluation.jsonl");

/// Opens it; nothing is copied.
pub fn open() -> Result<Checkpoint, Error> {
    let files = FILES.map(|(name, content)| (name.to_owned(), Bytes::from_static(content)));
    Checkpoint::from_files(NAME, files.into())
}

/// Its tokenizer.json, for models that come without one.
pub fn tokenizer() -> &'static [u8] {
    include_bytes!("../../../models/tiny/tokenizer.json")
}
