//! The CPU as a chip: the portable reference of every operator, and SIMD kernels chosen at run time.
//!
//! | module | holds |
//! | --- | --- |
//! | [`CpuChip`] | the implementation of [`cachalot_chip::Chip`] |
//! | `memory`, `access` | pages and mapped files; the slices that one operator may touch |
//! | `pool` | threads that spin between operators and park when idle |
//! | `product` | matrix products: one parallel region for a list of them, portable and SIMD |
//! | `avx2`, `avx512`, `amx` | SIMD kernels for x86-64, and its tile unit |
//! | `streaming`, `account` | routed experts that are read from files when needed, within a memory limit |
//! | `operators` | everything else, one file a topic |
//! | [`ceiling`] | yardsticks: what the processor reads and computes at most |
//!
//! Weights stay where they are: a mapped checkpoint is computed on in its stored format and never copied.
//! This crate must not know models.
//!
//! ```
//! use cachalot_chip::{Add, Chip, ChipTransfer, Mode};
//! use cachalot_chip_cpu::{CpuChip, CpuOptions};
//! use cachalot_numerics::Dtype;
//!
//! let chip = CpuChip::new(CpuOptions::default());
//! let [a, out] = [0, 1].map(|_| chip.allocate(Dtype::F32, &[2]).unwrap());
//! chip.write_f32(&a, &[1.0, 2.0]).unwrap();
//! chip.enqueue(Mode::Reference, &Add { a: &a, b: &a, out: &out }.into()).unwrap();
//! assert_eq!(chip.read_f32(&out).unwrap(), [2.0, 4.0]);
//! ```

#[cfg(target_endian = "big")]
compile_error!("the CPU kernels read little-endian checkpoints in place");

mod access;
mod account;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod ceiling;
mod chip;
mod division;
mod kernels;
mod memory;
mod operators;
mod pool;
mod product;
mod streaming;
mod vector;

pub use chip::{CpuChip, CpuOptions};
pub use kernels::{Kernels, UnknownKernels};
