//! The suite of all chips, for every kernel set of the CPU that this machine can run. A set that it cannot run is
//! skipped by running the best lower one in its place, which a test names.

use cachalot_chip::OperationKind;
use cachalot_chip_cpu::{CpuChip, CpuOptions, Kernels};

fn chip(kernels: Kernels, threads: usize) -> CpuChip {
    let kernels = kernels.min(Kernels::detect());
    CpuChip::new(CpuOptions {
        threads,
        kernels,
        ..CpuOptions::default()
    })
}

/// The reference against itself: rules, outside checks and refusals, not distances.
mod portable {
    use super::*;
    cachalot_chip::conformance_tests!(chip(Kernels::Portable, 2), chip(Kernels::Portable, 1));
}

mod avx2 {
    use super::*;
    cachalot_chip::conformance_tests!(chip(Kernels::Avx2, 2), chip(Kernels::Portable, 1));
}

mod avx512 {
    use super::*;
    cachalot_chip::conformance_tests!(chip(Kernels::Avx512, 2), chip(Kernels::Portable, 1));
}

mod amx {
    use super::*;
    cachalot_chip::conformance_tests!(chip(Kernels::Amx, 2), chip(Kernels::Portable, 1));
}

#[test]
fn kernel_sets_are_those_that_were_asked_for() {
    for kernels in Kernels::ALL {
        if kernels.is_available() {
            assert_eq!(chip(kernels, 1).kernels(), kernels);
        } else {
            eprintln!("skipped: this machine cannot run the kernels {}", kernels.name());
        }
        assert_eq!(kernels.name().parse(), Ok(kernels));
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for kernels in Kernels::ALL {
        let [one, three] = [1, 3].map(|threads| chip(kernels, threads));
        for kind in OperationKind::ALL {
            cachalot_chip::conformance::check_same_bits(*kind, &one, &three);
        }
    }
}
