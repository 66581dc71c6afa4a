//! Logits to compare with.

use std::{fs::File, path::Path};

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::logits_file::tensor_name;
use crate::error::Error;

/// A mapped file of logits whose tensors have been checked.
pub struct Reference {
    file: String,
    map: Mmap,
    /// Where the rows of each text begin in the file.
    starts: Vec<usize>,
    vocabulary: usize,
}

impl Reference {
    /// Opens a file that must hold logits of exactly these shapes.
    pub fn open(path: &Path, shapes: &[[usize; 2]]) -> Result<Self, Error> {
        let file = path.display().to_string();
        let unreadable = |source| Error::Read {
            what: file.clone(),
            source,
        };
        let opened = File::open(path).map_err(unreadable)?;
        // SAFETY: the file is only read; that nobody truncates it meanwhile is a condition of the command.
        let map = unsafe { Mmap::map(&opened) }.map_err(unreadable)?;
        let wrong = |reason: String| Error::Against {
            file: file.clone(),
            reason,
        };
        let tensors = SafeTensors::deserialize(&map).map_err(|error| wrong(format!("no safetensors file: {error}")))?;
        let mut starts = Vec::new();
        for (index, shape) in shapes.iter().enumerate() {
            let name = tensor_name(index);
            let tensor = tensors
                .tensor(&name)
                .map_err(|_| wrong(format!("there is no tensor {name}")))?;
            if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
                return Err(wrong(format!(
                    "{name} is {:?} {:?}, expected F32 {shape:?}",
                    tensor.dtype(),
                    tensor.shape()
                )));
            }
            starts.push(tensor.data().as_ptr() as usize - map.as_ptr() as usize);
        }
        if tensors.len() > shapes.len() {
            return Err(wrong(format!(
                "it holds {} tensors for {} texts",
                tensors.len(),
                shapes.len()
            )));
        }
        let vocabulary = shapes.first().map_or(0, |shape| shape[1]);
        Ok(Reference {
            file,
            map,
            starts,
            vocabulary,
        })
    }

    /// The logits of one position of one text, if they are finite.
    pub fn row(&self, text: usize, position: usize) -> Result<Vec<f32>, Error> {
        let start = self.starts[text] + 4 * self.vocabulary * position;
        let bytes = &self.map[start..start + 4 * self.vocabulary];
        let row: Vec<f32> = bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect();
        match row.iter().position(|logit| !logit.is_finite()) {
            None => Ok(row),
            Some(token) => Err(Error::Against {
                file: self.file.clone(),
                reason: format!("{}[{position}, {token}] is {}", tensor_name(text), row[token]),
            }),
        }
    }
}
