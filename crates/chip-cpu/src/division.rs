//! Division of a list of blocks between threads.
//!
//! A thread works through neighbouring blocks, which lie behind each other in memory, and knows the next one while it
//! computes one. Who is done first helps the others from where they are.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::pool::Pool;

/// A number of blocks that cost the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub block_count: usize,
    /// In any unit, the same for all runs.
    pub block_cost: usize,
}

/// The threads' shares of a list of runs. Kept between uses for its memory.
#[derive(Default)]
pub(crate) struct Division {
    /// First block of each run, and the number of all.
    first_blocks: Vec<usize>,
    shares: Vec<Share>,
}

/// Blocks of a thread, on cache lines of its own.
#[repr(align(128))]
struct Share {
    next: AtomicUsize,
    end: usize,
}

impl Division {
    /// Divides runs between threads so that shares cost the same.
    pub fn divide(&mut self, runs: impl Iterator<Item = Run> + Clone, thread_count: usize) {
        self.first_blocks.clear();
        self.shares.clear();
        let total: usize = runs.clone().map(|run| run.block_count * run.block_cost).sum();
        let (mut first_block, mut first_cost, mut start) = (0, 0, 0);
        for run in runs {
            self.first_blocks.push(first_block);
            let cost = run.block_count * run.block_cost;
            // Borders inside this run.
            while self.shares.len() + 1 < thread_count {
                let border = total * (self.shares.len() + 1) / thread_count;
                if border >= first_cost + cost {
                    break;
                }
                let end = first_block + (border - first_cost).div_ceil(run.block_cost.max(1));
                self.shares.push(Share::new(start, end));
                start = end;
            }
            first_block += run.block_count;
            first_cost += cost;
        }
        self.first_blocks.push(first_block);
        self.shares.push(Share::new(start, first_block));
    }

    /// Calls `body` once with every block, as its run and its place there, and with the block that probably follows on
    /// the same thread. `start` makes what a thread keeps from block to block.
    ///
    /// Once only for each division.
    pub fn run<S>(
        &self,
        pool: &Pool,
        work_count: usize,
        start: impl Fn() -> S + Sync,
        body: impl Fn(&mut S, [usize; 2], Option<[usize; 2]>) + Sync,
    ) {
        let share_count = self.shares.len();
        pool.run(share_count, work_count / share_count, &|first| {
            let mut state = start();
            for index in 0..share_count {
                let share = &self.shares[(first + index) % share_count];
                while let Some(block) = share.take() {
                    let next = (block + 1 < share.end).then(|| self.place(block + 1));
                    body(&mut state, self.place(block), next);
                }
            }
        });
    }

    fn place(&self, block: usize) -> [usize; 2] {
        let run = self.first_blocks.partition_point(|first| *first <= block) - 1;
        [run, block - self.first_blocks[run]]
    }
}

impl Share {
    fn new(start: usize, end: usize) -> Self {
        Share {
            next: AtomicUsize::new(start),
            end,
        }
    }

    fn take(&self) -> Option<usize> {
        // Read first: threads that look for work would push the number up without end.
        if self.next.load(Ordering::Relaxed) >= self.end {
            return None;
        }
        let block = self.next.fetch_add(1, Ordering::Relaxed);
        (block < self.end).then_some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_is_taken_once_whatever_the_costs() {
        let lists: [&[[usize; 2]]; 6] = [
            &[],
            &[[1, 5]],
            &[[3, 0], [2, 0]],
            &[[0, 7], [10, 1], [0, 3], [1, 1000], [4, 2]],
            &[[100, 1], [1, 1]],
            &[[1, 1], [1, 1], [1, 1]],
        ];
        for list in lists {
            for threads in [1, 2, 3, 7] {
                let pool = Pool::new(threads);
                let mut division = Division::default();
                let runs = list.iter().map(|[block_count, block_cost]| Run {
                    block_count: *block_count,
                    block_cost: *block_cost,
                });
                division.divide(runs, threads);
                let calls: Vec<Vec<AtomicUsize>> = list
                    .iter()
                    .map(|[count, _]| (0..*count).map(|_| AtomicUsize::new(0)).collect())
                    .collect();
                division.run(
                    &pool,
                    usize::MAX / 2,
                    || (),
                    |(), [run, block], _| {
                        calls[run][block].fetch_add(1, Ordering::Relaxed);
                    },
                );
                assert!(
                    calls.iter().flatten().all(|calls| calls.load(Ordering::Relaxed) == 1),
                    "{list:?} on {threads} threads"
                );
            }
        }
    }

    #[test]
    fn shares_cost_the_same() {
        let mut division = Division::default();
        let runs = [[4, 10], [40, 1], [2, 20]].map(|[block_count, block_cost]| Run {
            block_count,
            block_cost,
        });
        division.divide(runs.into_iter(), 3);
        let ends: Vec<usize> = division.shares.iter().map(|share| share.end).collect();
        assert_eq!(ends, [4, 44, 46]);
    }
}
