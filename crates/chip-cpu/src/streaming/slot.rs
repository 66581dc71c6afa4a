//! Memory for one expert at a time.

use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
};

use cachalot_chip::Error;
use memmap2::MmapRaw;

use crate::memory;

/// Pieces of memory of equal size that are used again and again: fresh pages would have to be zeroed first.
#[derive(Debug, Default)]
pub(super) struct SlotPool {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    free: Vec<MmapRaw>,
    taken_count: usize,
}

/// Memory of one expert; goes back to its pool when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    memory: Option<MmapRaw>,
    pool: Arc<SlotPool>,
}

impl SlotPool {
    /// A slot of at least `byte_count` bytes if fewer than `count_max` are taken. Slots beyond that number, and those
    /// that are too short, are given back to the system.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn take(self: &Arc<Self>, byte_count: usize, count_max: usize) -> Result<Option<Slot>, Error> {
        let mut inner = self.lock();
        if inner.taken_count >= count_max {
            inner.free.clear();
            return Ok(None);
        }
        let free_count_max = count_max - inner.taken_count;
        inner.free.truncate(free_count_max);
        let memory = match inner.free.pop() {
            Some(memory) if memory.len() >= byte_count => memory,
            _ => fresh(byte_count)?,
        };
        inner.taken_count += 1;
        Ok(Some(Slot {
            memory: Some(memory),
            pool: Arc::clone(self),
        }))
    }

    /// Gives free slots back to the system until at most `count_max` remain, the taken ones included.
    pub fn shrink(&self, count_max: usize) {
        let mut inner = self.lock();
        let free_count_max = count_max.saturating_sub(inner.taken_count);
        inner.free.truncate(free_count_max);
    }

    /// Slots in use.
    pub fn taken_count(&self) -> usize {
        self.lock().taken_count
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Memory in large pages where the system has them: a slot is filled as a whole, and faults of 4 KiB cost more than reading
/// from a fast disk.
fn fresh(byte_count: usize) -> Result<MmapRaw, Error> {
    let memory = memory::allocate_pages(byte_count)?;
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    Ok(memory)
}

impl Slot {
    /// Bytes `range`, to be filled.
    ///
    /// # Safety
    /// As long as the slice lives, the slot is not dropped, and nobody else has a slice that overlaps `range`.
    ///
    /// # Panics
    /// If the range is out of bounds.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn bytes_mut(&self, range: Range<usize>) -> &mut [u8] {
        let memory = self.memory();
        assert!(
            range.start <= range.end && range.end <= memory.len(),
            "{range:?} of a slot"
        );
        // SAFETY: in bounds; the caller guarantees the rest.
        unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr().add(range.start), range.len()) }
    }

    fn memory(&self) -> &MmapRaw {
        self.memory.as_ref().expect("only a drop takes it")
    }
}

impl AsRef<[u8]> for Slot {
    fn as_ref(&self) -> &[u8] {
        let memory = self.memory();
        // SAFETY: the mapping lives as long as the slot. Slices are taken once all reads into it have ended.
        unsafe { std::slice::from_raw_parts(memory.as_ptr(), memory.len()) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut inner = self.pool.lock();
        inner.taken_count -= 1;
        inner.free.extend(self.memory.take());
    }
}
