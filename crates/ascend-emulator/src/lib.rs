//! An emulator of Huawei's `libascendcl.so`, for tests of programs that open it with `dlopen`. It is not hardware, says so
//! on standard error when opened, and opens only when `CACHALOT_ASCEND_EMULATOR` names a chip: `910B3`, `910C` or `950PR`.
//!
//! Links named `libnnopbase.so`, `libopapi_nn.so` … to the one file share its state, as the real libraries share theirs.
//! * `memory`: device addresses that the host cannot read, poisoned on allocation and release.
//! * `machine`: streams that run as late as possible (when somebody synchronises), events, descriptors, executors.
//! * `runtime`, `opbase`, `operators`: the C interface.
//!
//! It must know no other crate of this workspace: an error shared with the program under test would go unseen.
#![allow(non_snake_case, reason = "the C interface's names")]

mod capture;
mod elements;
mod guard;
mod machine;
mod memory;
mod opbase;
mod operators;
mod runtime;
mod signature;
