//! An emulator of Huawei's `libascendcl.so`, for tests of programs that open it with `dlopen`. It is not hardware, says so
//! on standard error when opened, and opens only when `CACHALOT_ASCEND_EMULATOR` names a chip: `910B3`, `910C` or `950PR`.
//!
//! Links named `libnnopbase.so`, `libopapi_nn.so` … to the one file share its state, as the real libraries share theirs;
//! the program `ascend-emulator DIRECTORY` lays them out, with `--joined` and `--without NAME` for other installations.
//! `examples/cust_opapi.rs` is the custom package's library: names that the mainline libraries have too, other arguments.
//! * `memory`, `guard`: device addresses that the host cannot read, poisoned on allocation and release.
//! * `machine`: streams that run as late as possible (when somebody synchronises), events, descriptors, executors.
//! * `capture`: graphs and what is forbidden while one is recorded.
//! * `collectives`: HCCL among processes of one host.
//! * `runtime`, `contexts`, `variants`, `opbase`, `arrays`: the C interface. `signature`, `elements`, `operators`: both phases of each operator.
//!
//! Variables, all beginning with `CACHALOT_ASCEND_EMULATOR`:
//! * `_HBM_BYTES`: memory of the device in place of the chip's own.
//! * `_STREAMS=eager`: tasks run when given, in place of as late as possible.
//! * `_FAIL_ALLOCATION=N`, `_FAIL_LAUNCH=N`: the N-th of them fails.
//! * `_SUMS=backwards`: products of matrices are summed from the last term to the first.
//! * `_WITHOUT=aclnnTopk,…`: operators for which no kernel is found.
//! * `_TIMEOUT_S`: how long a rank waits for the others, 30 by default. `_LOSE_RANK_AT=N`: this rank leaves at its N-th
//!   collective. `_SHUFFLE=1`: sums are taken in another order of ranks each time.
//!
//! What is not emulated is refused in the first phase, by name: no operator computes something else instead.
//!
//! It must know no other crate of this workspace: an error shared with the program under test would go unseen.
#![allow(non_snake_case, reason = "the C interface's names")]

mod arrays;
mod capture;
mod collectives;
mod contexts;
mod elements;
mod guard;
mod machine;
mod memory;
mod opbase;
mod operators;
mod runtime;
mod signature;
mod variants;
