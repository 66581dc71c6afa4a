//! The suite of all chips, for the CPU's portable and SIMD kernels.

use cachalot_chip::OperationKind;
use cachalot_chip_cpu::{CpuChip, CpuOptions, Kernels};

fn chip(kernels: Kernels, threads: usize) -> CpuChip {
    CpuChip::new(CpuOptions { threads, kernels })
}

/// The reference against itself: rules, outside checks and refusals, not distances.
mod portable {
    use super::*;
    cachalot_chip::conformance_tests!(chip(Kernels::Portable, 2), chip(Kernels::Portable, 1));
}

/// The best kernels of this machine against the reference.
mod detected {
    use super::*;
    cachalot_chip::conformance_tests!(chip(Kernels::detect(), 2), chip(Kernels::Portable, 1));
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let [one, three] = [1, 3].map(|threads| chip(Kernels::detect(), threads));
    for kind in OperationKind::ALL {
        cachalot_chip::conformance::check_same_bits(*kind, &one, &three);
    }
}
