//! Threads that split one operator at a time.
//!
//! A join through a general task scheduler costs about 20 µs and a decode step has hundreds, so the workers spin for a
//! short while between operators and only then park: an idle chip takes no CPU.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

/// Below this many multiply-adds an operator is not worth waking another thread.
const WORK_COUNT_PARALLEL_MIN: usize = 1 << 15;
/// How long a worker spins for the next operator before it parks.
const SPIN_TIME: Duration = Duration::from_micros(200);

/// A fixed set of threads. The caller of [`Pool::run`] is one of them.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    /// One region at a time.
    region: Mutex<()>,
}

struct Worker {
    handle: Option<JoinHandle<()>>,
    thread: Thread,
}

struct Shared {
    /// Raised by one for each parallel region.
    epoch: AtomicUsize,
    job: Mutex<Option<Job>>,
    next: AtomicUsize,
    busy: AtomicUsize,
    parked: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
}

/// A region's body with its lifetime erased: `run` does not return before every worker has let go of it.
#[derive(Clone, Copy)]
struct Job {
    body: &'static (dyn Fn(usize) + Sync),
    count: usize,
}

impl Pool {
    /// A pool of `threads` threads in all, the caller included.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            job: Mutex::new(None),
            next: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            parked: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let workers = (1..threads.max(1))
            .filter_map(|index| {
                let shared = Arc::clone(&shared);
                // A thread that cannot be started is one thread less, not an error.
                let handle = thread::Builder::new()
                    .name(format!("cachalot-cpu-{index}"))
                    .spawn(move || work(&shared))
                    .ok()?;
                Some(Worker {
                    thread: handle.thread().clone(),
                    handle: Some(handle),
                })
            })
            .collect();
        Pool {
            shared,
            workers,
            region: Mutex::new(()),
        }
    }

    /// Threads in all, the caller included.
    pub fn thread_count(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body` once with every index below `count`, on all threads; returns when all calls have returned.
    ///
    /// `work_count` is the number of multiply-adds of one call: small regions stay on the calling thread.
    ///
    /// # Panics
    /// If `body` panicked on any thread.
    pub fn run(&self, count: usize, work_count: usize, body: &(dyn Fn(usize) + Sync)) {
        if count < 2 || self.workers.is_empty() || count.saturating_mul(work_count) < WORK_COUNT_PARALLEL_MIN {
            (0..count).for_each(body);
            return;
        }
        let _region = self.region.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let shared = &*self.shared;
        // SAFETY: the reference outlives its use: a worker touches the body only after it found the job posted, which
        // raises `busy`; this function takes the job down and waits until `busy` is zero, panic or not.
        let body: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(body) };
        let job = Job { body, count };
        shared.next.store(0, Ordering::Relaxed);
        shared.post(Some(job));
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        if shared.parked.load(Ordering::SeqCst) > 0 {
            self.workers.iter().for_each(|worker| worker.thread.unpark());
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| shared.take_indices(job)));
        // Who has not come yet (it may sleep, or another program may have its core) is not waited for.
        shared.post(None);
        let mut spins = 0u32;
        while shared.busy.load(Ordering::Acquire) != 0 {
            // With more threads than free cores the others need the core that spins here.
            spins += 1;
            if spins > 1000 {
                thread::yield_now()
            } else {
                std::hint::spin_loop()
            }
        }
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        assert!(
            !shared.panicked.swap(false, Ordering::Relaxed),
            "an operator panicked on a worker thread"
        );
    }

    /// Splits `values` into pieces of `width` (the last may be shorter) and calls `body` with each index and piece.
    pub fn for_each_chunk<T: Send>(
        &self,
        values: &mut [T],
        width: usize,
        work_count: usize,
        body: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let chunks = Chunks::new(values, width);
        self.run(chunks.count(), work_count, &|index| {
            // SAFETY: `run` hands out every index once.
            body(index, unsafe { chunks.get(index) });
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        for worker in &mut self.workers {
            worker.thread.unpark();
            if let Some(handle) = worker.handle.take() {
                // A worker catches panics of its jobs, so joining cannot fail in a way that matters here.
                let _ = handle.join();
            }
        }
    }
}

impl Shared {
    fn post(&self, job: Option<Job>) {
        *self.job.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = job;
    }

    /// Joins the posted region, if it is still there. Whoever gets a job lowers `busy` when done.
    fn join(&self) -> Option<Job> {
        let job = self.job.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if job.is_some() {
            // Under the lock: after `post(None)` nobody joins any more, so `busy` only falls.
            self.busy.fetch_add(1, Ordering::Relaxed);
        }
        *job
    }

    fn take_indices(&self, job: Job) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= job.count {
                return;
            }
            (job.body)(index);
        }
    }

    /// Waits until the epoch differs from `seen`: spinning first, then parked.
    fn wait(&self, seen: usize) -> usize {
        let start = Instant::now();
        loop {
            for _ in 0..256 {
                let epoch = self.epoch.load(Ordering::Acquire);
                if epoch != seen {
                    return epoch;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() < SPIN_TIME {
                continue;
            }
            self.parked.fetch_add(1, Ordering::SeqCst);
            while self.epoch.load(Ordering::SeqCst) == seen {
                thread::park();
            }
            self.parked.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn work(shared: &Shared) {
    let mut seen = 0;
    loop {
        seen = shared.wait(seen);
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let Some(job) = shared.join() else { continue };
        if catch_unwind(AssertUnwindSafe(|| shared.take_indices(job))).is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        shared.busy.fetch_sub(1, Ordering::Release);
    }
}

/// A mutable slice cut into pieces that different threads may hold at once.
pub(crate) struct Chunks<'a, T> {
    values: *mut T,
    length: usize,
    width: usize,
    lifetime: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: pieces are disjoint, and `get` is unsafe with the duty to ask for each piece once at a time.
unsafe impl<T: Send> Sync for Chunks<'_, T> {}

impl<'a, T> Chunks<'a, T> {
    /// Pieces of `width` values; the last may be shorter.
    pub fn new(values: &'a mut [T], width: usize) -> Self {
        let width = width.max(1);
        Chunks {
            values: values.as_mut_ptr(),
            length: values.len(),
            width,
            lifetime: std::marker::PhantomData,
        }
    }

    /// Number of pieces.
    pub fn count(&self) -> usize {
        self.length.div_ceil(self.width)
    }

    /// Piece `index`.
    ///
    /// # Safety
    /// No two callers may hold the same piece at the same time.
    ///
    /// # Panics
    /// If `index` is out of range.
    #[expect(
        clippy::mut_from_ref,
        reason = "disjoint pieces of one exclusive borrow; the caller keeps them apart"
    )]
    pub unsafe fn get(&self, index: usize) -> &mut [T] {
        // SAFETY: the caller's duty.
        unsafe { self.range(index, 1) }
    }

    /// Values `first .. first + count` of piece `index`.
    ///
    /// # Safety
    /// No two callers may hold the same values at the same time.
    ///
    /// # Panics
    /// If the values are out of range.
    #[expect(
        clippy::mut_from_ref,
        reason = "disjoint parts of one exclusive borrow; the caller keeps them apart"
    )]
    pub unsafe fn part(&self, index: usize, first: usize, count: usize) -> &mut [T] {
        let start = index * self.width + first;
        assert!(
            first + count <= self.width && start + count <= self.length,
            "part of piece {index}"
        );
        // SAFETY: within the slice that `new` borrowed exclusively; the caller keeps parts apart.
        unsafe { std::slice::from_raw_parts_mut(self.values.add(start), count) }
    }

    /// Pieces `first .. first + count` in one slice.
    ///
    /// # Safety
    /// No two callers may hold the same piece at the same time.
    ///
    /// # Panics
    /// If `first` is out of range.
    #[expect(
        clippy::mut_from_ref,
        reason = "disjoint pieces of one exclusive borrow; the caller keeps them apart"
    )]
    pub unsafe fn range(&self, first: usize, count: usize) -> &mut [T] {
        let start = first * self.width;
        assert!(start < self.length, "piece {first} of {}", self.count());
        let length = (count * self.width).min(self.length - start);
        // SAFETY: within the slice that `new` borrowed exclusively; the caller keeps pieces apart.
        unsafe { std::slice::from_raw_parts_mut(self.values.add(start), length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn every_index_is_called_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            for count in [0, 1, 2, 7, 1000] {
                let calls: Vec<AtomicU32> = (0..count).map(|_| AtomicU32::new(0)).collect();
                pool.run(count, WORK_COUNT_PARALLEL_MIN, &|index| {
                    calls[index].fetch_add(1, Ordering::Relaxed);
                });
                assert!(calls.iter().all(|calls| calls.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(3);
        for _ in 0..20 {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                pool.run(64, WORK_COUNT_PARALLEL_MIN, &|index| assert!(index != 63, "on purpose"));
            }));
            assert!(outcome.is_err());
        }
        let mut values = vec![0u32; 100];
        pool.for_each_chunk(&mut values, 7, WORK_COUNT_PARALLEL_MIN, |index, chunk| {
            chunk.fill(index as u32)
        });
        assert_eq!(values[99], 14);
    }

    #[test]
    fn parked_workers_wake_up() {
        let pool = Pool::new(2);
        for _ in 0..3 {
            thread::sleep(10 * SPIN_TIME);
            let sum = AtomicUsize::new(0);
            pool.run(100, WORK_COUNT_PARALLEL_MIN, &|index| {
                sum.fetch_add(index, Ordering::Relaxed);
            });
            assert_eq!(sum.load(Ordering::Relaxed), 4950);
        }
    }
}
