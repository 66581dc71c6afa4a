//! Logits of several texts as one safetensors file, written as they are computed.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::error::Error;

/// Name of the tensor of a text.
pub fn tensor_name(index: usize) -> String {
    format!("logits_{index}")
}

/// Writes beside the wanted file, which gets its name when everything is there.
pub struct LogitsWriter {
    path: PathBuf,
    partial: PathBuf,
    out: Option<BufWriter<File>>,
}

impl LogitsWriter {
    /// Writes the header for tensors of the given shapes.
    pub fn create(path: &Path, shapes: &[[usize; 2]]) -> Result<Self, Error> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(format!(".partial-{}", std::process::id()));
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).map_err(|source| Error::Write {
            path: path.to_owned(),
            source,
        })?;
        let mut writer = LogitsWriter {
            path: path.to_owned(),
            partial,
            out: Some(BufWriter::with_capacity(1 << 20, file)),
        };
        writer.put(&header(shapes))?;
        Ok(writer)
    }

    /// The logits of the next position.
    pub fn write(&mut self, logits: &[f32]) -> Result<(), Error> {
        let bytes: Vec<u8> = logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
        self.put(&bytes)
    }

    /// Gives the file its name.
    pub fn finish(mut self) -> Result<(), Error> {
        let failed = |source| Error::Write {
            path: self.path.clone(),
            source,
        };
        if let Some(mut out) = self.out.take() {
            out.flush().map_err(failed)?;
        }
        fs::rename(&self.partial, &self.path).map_err(failed)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some(out) = &mut self.out else { return Ok(()) };
        out.write_all(bytes).map_err(|source| Error::Write {
            path: self.path.clone(),
            source,
        })
    }
}

impl Drop for LogitsWriter {
    fn drop(&mut self) {
        // Gone already after a rename; otherwise nobody wants half a file.
        let _ = fs::remove_file(&self.partial);
    }
}

/// Length, JSON, and spaces up to a multiple of eight bytes.
fn header(shapes: &[[usize; 2]]) -> Vec<u8> {
    let mut tensors = serde_json::Map::new();
    let mut start = 0;
    for (index, shape) in shapes.iter().enumerate() {
        let end = start + 4 * shape[0] * shape[1];
        let entry = json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] });
        tensors.insert(tensor_name(index), entry);
        start = end;
    }
    let mut text = serde_json::Value::Object(tensors).to_string();
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.into_bytes());
    bytes
}
