//! What this processor can do at most, as yardsticks beside the kernels: streaming reads, multiply-adds, and
//! reads of experts from a disk.
//!
//! The loops do nothing else than what they measure. Rates are those of all threads together.

mod arithmetic;
mod disk;
mod stream;

pub use arithmetic::{Arithmetic, arithmetic};
pub(crate) use disk::disk;
pub use stream::Stream;

use std::{
    hint::black_box,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Passes that a measurement makes at least.
const PASS_COUNT_MIN: usize = 3;
/// Passes that a measurement makes at most.
const PASS_COUNT_MAX: usize = 1000;

/// A rate, found in several passes.
#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    /// Instructions of the loop.
    pub instructions: &'static str,
    /// Threads.
    pub thread_count: usize,
    /// The fastest pass, a second: the ceiling. Whatever else runs on a machine only slows passes down.
    pub best: f64,
    /// The median pass, a second.
    pub median: f64,
    /// Passes.
    pub pass_count: usize,
}

/// Makes passes of `work(thread)` on so many threads for about `time`, each of `amount` in all.
fn rate(
    instructions: &'static str,
    thread_count: usize,
    time: Duration,
    amount: f64,
    work: impl Fn(usize) -> u64 + Sync,
) -> Rate {
    let (barrier, is_last) = (Barrier::new(thread_count), AtomicBool::new(false));
    let mut seconds = Vec::new();
    std::thread::scope(|scope| {
        for thread in 1..thread_count {
            let (barrier, is_last, work) = (&barrier, &is_last, &work);
            scope.spawn(move || {
                loop {
                    barrier.wait();
                    if is_last.load(Ordering::SeqCst) {
                        return;
                    }
                    black_box(work(thread));
                    barrier.wait();
                }
            });
        }
        let started = Instant::now();
        // The first pass wakes the threads and raises the clock.
        for pass in 0..=PASS_COUNT_MAX {
            barrier.wait();
            let before = Instant::now();
            black_box(work(0));
            barrier.wait();
            if pass > 0 {
                seconds.push(before.elapsed().as_secs_f64());
            }
            if pass >= PASS_COUNT_MIN && started.elapsed() >= time {
                break;
            }
        }
        is_last.store(true, Ordering::SeqCst);
        barrier.wait();
    });
    seconds.sort_by(f64::total_cmp);
    Rate {
        instructions,
        thread_count,
        best: amount / seconds[0],
        median: amount / seconds[seconds.len() / 2],
        pass_count: seconds.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loop_runs_on_any_number_of_threads() {
        let stream = Stream::new(4 << 20).expect("memory");
        for threads in [1, 3] {
            let read = stream.read(threads, Duration::ZERO);
            assert!(read.thread_count == threads && read.best >= read.median && read.median > 0.0);
            for kind in Arithmetic::ALL {
                let Some(rate) = arithmetic(kind, threads, Duration::ZERO) else {
                    // Only what every processor can do must be there.
                    assert!(kind == Arithmetic::Bf16, "{kind:?}");
                    continue;
                };
                assert!(rate.pass_count >= PASS_COUNT_MIN && rate.best.is_finite() && rate.best > 0.0);
            }
        }
    }
}
