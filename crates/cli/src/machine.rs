//! What the system says about this machine's memory.

use std::fs;

/// Bytes of memory; none where the system does not tell.
pub fn memory_bytes() -> Option<u64> {
    meminfo("MemTotal:")
}

/// Bytes of memory that programs can still take without pushing others out.
pub fn available_bytes() -> Option<u64> {
    meminfo("MemAvailable:")
}

/// A line of Linux's table.
fn meminfo(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kibibytes.checked_mul(1024)
}
