//! Device memory: one sparse file mapped twice. Callers get addresses of a view without access, operators use the other.

use std::collections::BTreeMap;
use std::ptr::null_mut;

use crate::guard;

/// What fresh and released memory holds.
pub const POISON: u8 = 0xA5;

/// Why an allocation was refused.
pub enum AllocationError {
    Empty,
    Full,
}

pub struct Memory {
    /// Base of the view without access: device address = base + offset.
    base: usize,
    alias: usize,
    capacity: usize,
    /// Extra bytes that kernels may read behind a buffer.
    room: usize,
    /// Offset to size as asked for.
    live: BTreeMap<usize, usize>,
    used: usize,
}

impl Memory {
    /// Maps `capacity` bytes; `None` when the host refuses.
    pub fn new(capacity: usize, room: usize) -> Option<Self> {
        // SAFETY: plain system calls on a file descriptor of our own; both results are checked.
        unsafe {
            let file = libc::memfd_create(c"ascend-emulator".as_ptr(), libc::MFD_CLOEXEC);
            if file < 0 || libc::ftruncate(file, capacity as libc::off_t) != 0 {
                return None;
            }
            let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
            let base = libc::mmap(null_mut(), capacity, libc::PROT_NONE, flags, file, 0);
            let alias = libc::mmap(null_mut(), capacity, libc::PROT_READ | libc::PROT_WRITE, flags, file, 0);
            libc::close(file);
            if base == libc::MAP_FAILED || alias == libc::MAP_FAILED {
                return None;
            }
            guard::watch(base as usize, capacity);
            Some(Self {
                base: base as usize,
                alias: alias as usize,
                capacity,
                room,
                live: BTreeMap::new(),
                used: 0,
            })
        }
    }

    fn reserved(&self, size: usize) -> usize {
        (size.next_multiple_of(32) + self.room).next_multiple_of(64)
    }

    /// First fit on 64 bytes.
    pub fn allocate(&mut self, size: usize) -> Result<usize, AllocationError> {
        if size == 0 {
            return Err(AllocationError::Empty);
        }
        if size > self.capacity {
            return Err(AllocationError::Full);
        }
        let need = self.reserved(size);
        let mut offset = 0;
        for (&start, &len) in &self.live {
            if start - offset >= need {
                break;
            }
            offset = start + self.reserved(len);
        }
        if offset + need > self.capacity {
            return Err(AllocationError::Full);
        }
        self.live.insert(offset, size);
        self.used += need;
        self.fill(offset, need);
        Ok(self.base + offset)
    }

    /// False when `address` is not the start of a live allocation.
    pub fn release(&mut self, address: usize) -> bool {
        let Some(offset) = address.checked_sub(self.base) else {
            return false;
        };
        let Some(size) = self.live.remove(&offset) else {
            return false;
        };
        let need = self.reserved(size);
        self.used -= need;
        self.fill(offset, need);
        true
    }

    fn fill(&mut self, offset: usize, len: usize) {
        // SAFETY: callers pass ranges inside the mapped capacity.
        unsafe { std::ptr::write_bytes((self.alias + offset) as *mut u8, POISON, len) };
    }

    /// Whether the address lies in the device's range, allocated or not.
    pub fn is_device(&self, address: usize) -> bool {
        address >= self.base && address < self.base + self.capacity
    }

    /// The bytes of a range inside one live allocation.
    pub fn range(&mut self, address: usize, len: usize) -> Option<&mut [u8]> {
        let offset = address.checked_sub(self.base)?;
        let (&start, &size) = self.live.range(..=offset).next_back()?;
        if offset.checked_add(len)? > start + size {
            return None;
        }
        // SAFETY: the range is inside the mapped file, and `&mut self` keeps a second slice from being made.
        Some(unsafe { std::slice::from_raw_parts_mut((self.alias + offset) as *mut u8, len) })
    }

    pub fn free_and_total(&self) -> (usize, usize) {
        (self.capacity - self.used, self.capacity)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        guard::watch(0, 0);
        // SAFETY: both views were mapped with this length, and nothing that borrows them outlives `self`.
        unsafe {
            libc::munmap(self.base as *mut _, self.capacity);
            libc::munmap(self.alias as *mut _, self.capacity);
        }
    }
}
