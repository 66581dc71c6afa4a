use std::time::Duration;

use cachalot_chip::Error;
#[cfg(target_os = "linux")]
use memmap2::Advice;
use memmap2::{MmapMut, MmapOptions};

use super::{Rate, rate};

/// Memory to read from end to end.
pub struct Stream {
    memory: MmapMut,
}

/// Bytes of one round of the loop.
const BLOCK_BYTES: usize = 256;

impl Stream {
    /// Takes `byte_count` bytes of memory and writes to all of them. Several times the last cache measures memory.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(byte_count: usize) -> Result<Self, Error> {
        let map = MmapOptions::new().len(byte_count.max(BLOCK_BYTES)).map_anon();
        let mut memory = map.map_err(|error| Error::OutOfMemory {
            bytes: byte_count,
            reason: error.to_string(),
        })?;
        // Large pages where the system has them: the yardstick is the memory, not its page tables.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(Advice::HugePage);
        for (index, page) in memory.chunks_mut(4096).enumerate() {
            // Pages that were never written would all be one page of zeros.
            page.fill(index as u8);
        }
        Ok(Stream { memory })
    }

    /// Bytes a second of `thread_count` threads, at least one, that each read a part of the memory.
    pub fn read(&self, thread_count: usize, time: Duration) -> Rate {
        let thread_count = thread_count.max(1);
        let part = self.memory.len() / thread_count / BLOCK_BYTES * BLOCK_BYTES;
        let amount = (part * thread_count) as f64;
        rate(instructions(), thread_count, time, amount, |thread| {
            read(&self.memory[thread * part..][..part])
        })
    }
}

fn instructions() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        return "AVX2 loads";
    }
    "portable loads"
}

fn read(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { read_avx2(bytes) };
    }
    read_blocks(bytes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn read_avx2(bytes: &[u8]) -> u64 {
    read_blocks(bytes)
}

/// Eight sums, enough to hide the latency of an exclusive or.
#[inline(always)]
fn read_blocks(bytes: &[u8]) -> u64 {
    let mut sums = [[0u64; 4]; BLOCK_BYTES / 32];
    for block in bytes.as_chunks::<BLOCK_BYTES>().0 {
        for (sum, part) in sums.iter_mut().zip(block.as_chunks::<32>().0) {
            for (lane, word) in sum.iter_mut().zip(part.as_chunks::<8>().0) {
                *lane ^= u64::from_le_bytes(*word);
            }
        }
    }
    sums.iter().flatten().fold(0, |all, lane| all ^ lane)
}
