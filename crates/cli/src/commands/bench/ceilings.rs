//! The machine's ceilings, with the same loops that the planner's probe uses.

use std::time::Duration;

use cachalot_chip_cpu::ceiling::{Arithmetic, Rate, Stream, arithmetic};

use super::results::{Ceiling, Ceilings};
use crate::{error::Error, interrupt::Cooperation, machine, progress::LateBar};

/// Memory that is read from end to end, if the machine has four times as much to spare.
const STREAM_BYTES: usize = 1 << 30;
const READ_TIME: Duration = Duration::from_millis(600);
const ARITHMETIC_TIME: Duration = Duration::from_millis(250);

pub fn measure(threads: usize, cooperation: &Cooperation) -> Result<Ceilings, Error> {
    let counts = thread_counts(threads);
    let bar = LateBar::counting("measuring the machine", "ceilings");
    let total = (counts.len() + Arithmetic::ALL.len()) as u64;
    let mut done = 0;
    let mut step = || {
        bar.set(done, total);
        done += 1;
        match cooperation.is_raised() {
            true => Err(Error::interrupted()),
            false => Ok(()),
        }
    };
    step()?;
    let stream = Stream::new(stream_bytes())?;
    let mut read = Vec::new();
    for count in counts {
        read.push(ceiling("read", &stream.read(count, READ_TIME)));
        step()?;
    }
    drop(stream);
    let mut found = Vec::new();
    for kind in Arithmetic::ALL {
        found.extend(arithmetic(kind, threads, ARITHMETIC_TIME).map(|rate| ceiling(kind.name(), &rate)));
        step()?;
    }
    Ok(Ceilings {
        read,
        arithmetic: found,
    })
}

/// 1, 2, 4 ... and all.
fn thread_counts(threads: usize) -> Vec<usize> {
    let mut counts: Vec<usize> = (0..)
        .map(|power| 1 << power)
        .take_while(|count| *count < threads)
        .collect();
    counts.push(threads);
    counts
}

fn stream_bytes() -> usize {
    let spare = machine::available_bytes().map_or(STREAM_BYTES as u64, |bytes| bytes / 4);
    STREAM_BYTES.min(spare as usize)
}

fn ceiling(name: &str, rate: &Rate) -> Ceiling {
    Ceiling {
        name: name.to_owned(),
        instructions: rate.instructions.to_owned(),
        threads: rate.thread_count,
        best: rate.best,
        median: rate.median,
    }
}
