//! One safetensors file.

use std::{fs::File, io::Write, path::Path};

use super::recipe::PlannedTensor;
use crate::{Error, header, source::io_error};

/// Bytes made before they are written: small enough for the second-level cache.
const BUFFER_BYTES: usize = 1 << 18;
/// Tables of experts come row by row; everything else in whole buffers.
const WRITE_BUFFER_BYTES: usize = 1 << 20;

/// The tensors of a file, in the order of their bytes.
#[derive(Debug, Default)]
pub(super) struct ShardPlan {
    pub(super) tensors: Vec<PlannedTensor>,
}

impl ShardPlan {
    /// Puts wide elements first, so that every tensor begins at a multiple of its element's size.
    pub(super) fn align(&mut self) {
        self.tensors
            .sort_by_key(|tensor| std::cmp::Reverse(tensor.dtype.byte_count()));
    }

    pub(super) fn tensor_byte_count(&self) -> u64 {
        self.tensors.iter().map(PlannedTensor::byte_count).sum()
    }

    pub(super) fn file_byte_count(&self) -> u64 {
        self.header().len() as u64 + self.tensor_byte_count()
    }

    /// Writes the file; `advance` learns the bytes written each time.
    pub(super) fn write(&self, path: &Path, seed: u64, advance: &impl Fn(u64)) -> Result<(), Error> {
        let failed = |error| io_error("write", path.to_owned(), error);
        let file = File::create_new(path).map_err(failed)?;
        let mut file = std::io::BufWriter::with_capacity(WRITE_BUFFER_BYTES, file);
        let header = self.header();
        file.write_all(&header).map_err(failed)?;
        advance(header.len() as u64);
        let mut buffer = vec![0; BUFFER_BYTES];
        for tensor in &self.tensors {
            tensor
                .generate(seed, &mut buffer, |piece| file.write_all(piece))
                .map_err(failed)?;
            advance(tensor.byte_count());
        }
        file.flush().map_err(failed)
    }

    fn header(&self) -> Vec<u8> {
        let tensors = self.tensors.iter();
        header::encode(tensors.map(|tensor| {
            (
                tensor.name.as_str(),
                tensor.dtype.name(),
                tensor.shape.as_slice(),
                tensor.byte_count(),
            )
        }))
    }
}
