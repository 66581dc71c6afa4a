//! One new safetensors file.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use cachalot_numerics::{IntegerWidth, MatrixFormat};

use super::{
    failed,
    plan::{Content, ShardPlan},
};
use crate::{
    Checkpoint, Error, StoredMatrix,
    low_bit::{encode_block, row_blocks},
    parallel,
};

/// Bytes that are copied before somebody may stop the work.
const PIECE_BYTES: usize = 16 << 20;
/// Blocks of rows that are in memory at a time: 16 times 2^18 weights.
const BLOCKS_AT_ONCE: usize = 16;

/// What all shards are written from.
pub(super) struct Writer<'a, F> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) matrices: &'a [StoredMatrix],
    pub(super) width: IntegerWidth,
    pub(super) cancel: &'a AtomicBool,
    pub(super) advance: &'a F,
}

impl<F: Fn(u64)> Writer<'_, F> {
    /// Writes a shard beside its name and gives it the name when it is on the disk.
    pub(super) fn shard(&self, shard: &ShardPlan, folder: &Path) -> Result<(), Error> {
        let path = folder.join(&shard.name);
        let unfinished = folder.join(format!("{}.writing", shard.name));
        let mut file = File::create(&unfinished).map_err(failed("create", &unfinished))?;
        let data = &self.checkpoint.catalogue.shards[shard.source].data;
        match shard.is_changed {
            false => self.put(&mut file, data, &unfinished, folder)?,
            true => {
                self.put(&mut file, shard.header(), &unfinished, folder)?;
                self.tensors(shard, data, &mut file, &unfinished, folder)?;
            }
        }
        file.sync_all().map_err(failed("write", &unfinished))?;
        fs::rename(&unfinished, &path).map_err(failed("rename to", &path))
    }

    fn tensors(
        &self,
        shard: &ShardPlan,
        data: &Bytes,
        file: &mut File,
        path: &Path,
        folder: &Path,
    ) -> Result<(), Error> {
        let mut scales = Vec::new();
        for tensor in &shard.tensors {
            match &tensor.content {
                Content::Copied(range) => self.put(file, &data[range.clone()], path, folder)?,
                Content::Codes(position) => scales = self.codes(&self.matrices[*position], file, path, folder)?,
                Content::Scales => self.put(file, &scales, path, folder)?,
            }
        }
        Ok(())
    }

    /// Writes the codes of a matrix, and gives its scales.
    fn codes(&self, matrix: &StoredMatrix, file: &mut File, path: &Path, folder: &Path) -> Result<Vec<u8>, Error> {
        let width = self.width;
        let format = MatrixFormat::Integer(width);
        let mut all_scales = Vec::new();
        for blocks in row_blocks(matrix).chunks(BLOCKS_AT_ONCE) {
            let encoded = parallel::map(blocks, |block| {
                let code_byte_count = format.row_byte_count(matrix.columns) * block.len();
                let mut codes = vec![0; code_byte_count];
                let mut scales = vec![0; format.byte_count(block.len(), matrix.columns) - code_byte_count];
                encode_block(matrix, width, block, &mut codes, &mut scales);
                (codes, scales)
            });
            for (codes, scales) in encoded {
                self.put(file, &codes, path, folder)?;
                all_scales.extend(scales);
            }
        }
        Ok(all_scales)
    }

    fn put(&self, file: &mut File, bytes: &[u8], path: &Path, folder: &Path) -> Result<(), Error> {
        for piece in bytes.chunks(PIECE_BYTES) {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(Error::Stopped {
                    path: folder.to_owned(),
                });
            }
            file.write_all(piece).map_err(failed("write", path))?;
            (self.advance)(piece.len() as u64);
        }
        Ok(())
    }
}
