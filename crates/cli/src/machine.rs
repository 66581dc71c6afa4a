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

/// How often this process has waited for a page from a disk; 0 where the system does not tell.
pub fn major_fault_count() -> u64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in brackets, may hold anything; what follows is numbers.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields
        .split_whitespace()
        .nth(9)
        .and_then(|count| count.parse().ok())
        .unwrap_or(0)
}

/// A line of Linux's table.
fn meminfo(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kibibytes.checked_mul(1024)
}
