use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use cachalot_chip::Error;

use super::{Rate, rate};
use crate::{
    memory,
    streaming::{BLOCK, DirectFile, PIECE_BYTE_COUNT, READER_COUNT},
};

/// Reads of one pass and thread: long enough that starting them together costs nothing, short enough for several passes.
const READ_COUNT: u64 = 16;

/// Bytes a second that files give to as many readers as the expert cache has, in pieces of its size, or of the longest
/// file if that is shorter, at places by chance; none if no file has a whole block.
///
/// # Errors
/// [`Error::OutOfMemory`], [`Error::Read`].
pub(crate) fn disk(files: &[Arc<DirectFile>], time: Duration) -> Result<Option<Rate>, Error> {
    let longest = files.iter().map(|file| file.stored().byte_count).max().unwrap_or(0);
    let piece = (PIECE_BYTE_COUNT as u64).min(longest / BLOCK as u64 * BLOCK as u64);
    if piece == 0 {
        return Ok(None);
    }
    let files: Vec<_> = files.iter().filter(|file| file.stored().byte_count >= piece).collect();
    let buffers = (0..READER_COUNT).map(|_| Ok(Mutex::new(memory::allocate_pages(PIECE_BYTE_COUNT)?)));
    let buffers = buffers.collect::<Result<Vec<_>, Error>>()?;
    let states: Vec<Mutex<u64>> = (1..=READER_COUNT as u64).map(Mutex::new).collect();
    let fault = Mutex::new(None);
    let amount = (READER_COUNT as u64 * READ_COUNT * piece) as f64;
    let instructions = match files.iter().all(|file| file.is_direct()) {
        true => "direct reads",
        false => "reads through the page cache",
    };
    let found = rate(instructions, READER_COUNT, time, amount, |thread| {
        let mut state = states[thread].lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let buffer = buffers[thread].lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // SAFETY: the mapping is so long, and the lock keeps others from it.
        let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr(), PIECE_BYTE_COUNT) };
        for _ in 0..READ_COUNT {
            let file = files[(next(&mut state) % files.len() as u64) as usize];
            let block_count = (file.stored().byte_count - piece) / BLOCK as u64;
            let start = next(&mut state) % (block_count + 1) * BLOCK as u64;
            if let Err(error) = file.read("the disk's speed", start, buffer, piece as usize) {
                *fault.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(error);
                break;
            }
        }
        u64::from(buffer[0])
    });
    match fault.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
        Some(error) => Err(error),
        None => Ok(Some(found)),
    }
}

/// A number by chance (xorshift): places must differ, nothing more.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
