//! The machine's ceilings, with the same loops that the planner's probe uses.

use std::time::Duration;

use cachalot_chip_cpu::{
    CpuChip, CpuOptions,
    ceiling::{Arithmetic, Rate, Stream, arithmetic},
};
use cachalot_planner::engine;

use super::results::{Ceiling, Ceilings};
use crate::{error::Error, interrupt::Cooperation, machine, progress::LateBar};

/// Memory that is read from end to end, if the machine has four times as much to spare.
const STREAM_BYTES: usize = 1 << 30;
/// The same for a probe, which should be over soon.
const PROBE_BYTES: usize = 1 << 29;
const READ_TIME: Duration = Duration::from_millis(600);
const ARITHMETIC_TIME: Duration = Duration::from_millis(250);
const DISK_TIME: Duration = Duration::from_secs(1);

/// All ceilings; `options.kernels` say which arithmetic is in use. The disk's is that of the files from which `chip`
/// streams experts.
pub fn measure(options: CpuOptions, chip: &CpuChip, cooperation: &Cooperation) -> Result<Ceilings, Error> {
    let counts = thread_counts(options.threads);
    let bar = LateBar::counting("measuring the machine", "ceilings");
    let total = (counts.len() + Arithmetic::ALL.len() + 1) as u64;
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
    let stream = Stream::new(spare_bytes(STREAM_BYTES))?;
    let mut read = Vec::new();
    for count in counts {
        read.push(ceiling("read", &stream.read(count, READ_TIME)));
        step()?;
    }
    drop(stream);
    let mut found = Vec::new();
    for kind in Arithmetic::ALL {
        found.extend(arithmetic(kind, options.threads, ARITHMETIC_TIME).map(|rate| ceiling(kind.name(), &rate)));
        step()?;
    }
    let disk = chip.disk_ceiling(DISK_TIME)?;
    step()?;
    let used = options.kernels.arithmetic().name();
    let best = |ceiling: Option<&Ceiling>| ceiling.map_or(f64::NAN, |ceiling| ceiling.best);
    Ok(Ceilings {
        used: used.to_owned(),
        read_bytes_per_second: best(read.last()),
        operations_per_second: best(found.iter().find(|ceiling| ceiling.name == used)),
        read,
        arithmetic: found,
        disk: disk.map(|rate| ceiling("disk", &rate)),
    })
}

/// The two ceilings that predictions need, in about a second.
pub fn probe(options: CpuOptions) -> Option<engine::Ceilings> {
    let stream = Stream::new(spare_bytes(PROBE_BYTES)).ok()?;
    Some(engine::Ceilings {
        read_bytes_per_second: stream.read(options.threads, READ_TIME).best,
        operations_per_second: arithmetic(options.kernels.arithmetic(), options.threads, ARITHMETIC_TIME)?.best,
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

/// So many bytes, or a quarter of the memory that is free.
fn spare_bytes(wanted: usize) -> usize {
    let spare = machine::available_bytes().map_or(wanted as u64, |bytes| bytes / 4);
    wanted.min(spare as usize)
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
