//! Ids of responses and calls.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Thirty-two hexadecimal digits, different at each call and in each process, that cannot be guessed from others.
pub fn unique_suffix() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // Each state has keys of its own, drawn from the system's randomness at the thread's first.
    let half = || RandomState::new().hash_one(count);
    format!("{:016x}{:016x}", half(), half())
}

#[cfg(test)]
mod tests {
    #[test]
    fn suffixes_differ() {
        let suffixes: std::collections::HashSet<String> = (0..1000).map(|_| super::unique_suffix()).collect();
        assert_eq!(suffixes.len(), 1000);
        assert!(suffixes.iter().all(|suffix| suffix.len() == 32));
    }
}
