//! One suite that every chip must pass, operator by operator, against the CPU's portable kernels.
//!
//! A chip crate enables the feature `conformance` among its dev-dependencies and calls [`conformance_tests!`] in an
//! integration test; every operator becomes a test of its own. For generated shapes and data, in all three modes:
//! * results agree with the reference chip within the tolerances below;
//! * rows computed alone give the same bits as in a batch;
//! * nothing is written beyond an output, inputs stay as they are, and outputs do not depend on what they held;
//! * arguments of wrong shape or type, overlapping outputs, bad indices, bad scales and tensors of other chips are
//!   refused with the right [`Error`](crate::Error), and the chip goes on working.
//!
//! The data are the same on every machine and in every run. Failures name the operator, the shapes, the first element
//! that differs and both values.

mod attention;
mod blocks;
mod case;
mod compare;
mod engram;
mod experts;
mod faults;
mod hyper;
mod index;
mod latent;
mod linear;
mod ragged;
mod rope;
mod rows;
mod shared;
mod single_pass;
mod tails;
mod values;

pub use compare::{CODE_FLIP_RATIO_MAX, FAST_ERROR_RATIO_MAX, OFFICIAL_STEP, REFERENCE_RELATIVE_ERROR_MAX};

use proptest::{
    prelude::*,
    strategy::BoxedStrategy,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};

use self::{
    case::{Case, execute},
    compare::{Expected, compare, compare_bytes},
};
use crate::{Chip, Mode, OperationKind, Support};

/// Tests every operator of a chip: `conformance_tests!(candidate, reference)` in a module of its own.
///
/// Both are expressions of a type that implements [`Chip`](crate::Chip); they are evaluated in each test.
#[macro_export]
macro_rules! conformance_tests {
    ($candidate:expr, $reference:expr) => {
        $crate::conformance_tests! {
            @list $candidate, $reference,
            embed Embed, hyper_mix HyperMix, hyper_post HyperPost, hyper_head HyperHead,
            hyper_weights HyperWeights, hyper_collapse HyperCollapse, ngram_rows NgramRows, engram_gate EngramGate,
            rms_norm RmsNorm, linear Linear, grouped_linear GroupedLinear, rope_angles RopeAngles, rope Rope,
            rope_halves RopeHalves, pack_rows PackRows,
            write_tail WriteTail, compress Compress, index_query IndexQuery, select_entries SelectEntries,
            attention Attention, store_keys StoreKeys, latent_query LatentQuery,
            latent_attention LatentAttention, pool_windows PoolWindows, store_entries StoreEntries,
            select_blocks SelectBlocks, select_in_blocks SelectInBlocks, route Route, experts Experts, swiglu SwiGlu,
            add Add, gather_rows GatherRows, copy_tensor CopyTensor,
        }
    };
    (@list $candidate:expr, $reference:expr, $($name:ident $kind:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                $crate::conformance::check($crate::OperationKind::$kind, &$candidate, &$reference);
            }
        )*

        #[test]
        fn every_operator_has_a_test() {
            assert_eq!([$($crate::OperationKind::$kind),*].as_slice(), $crate::OperationKind::ALL);
        }
    };
}

/// Checks one operator of `candidate` against `reference`.
///
/// # Panics
/// With a description of the first difference, after shrinking its shapes.
pub fn check(kind: OperationKind, candidate: &dyn Chip, reference: &dyn Chip) {
    for_each_case(kind, 1, |case| check_case(kind, candidate, reference, case));
    faults::check(kind, candidate);
}

/// Checks that two chips (the same one with other numbers of threads, say) give the same bits in all modes.
///
/// # Panics
/// With a description of the first difference.
pub fn check_same_bits(kind: OperationKind, first: &dyn Chip, second: &dyn Chip) {
    for_each_case(kind, 4, |case| {
        for mode in Mode::ALL {
            let [found, expected] = [second, first].map(|chip| execute(chip, mode, case));
            let found = found.map_err(|failure| format!("{mode} mode: {failure}"))?;
            let expected = expected.map_err(|failure| format!("{mode} mode: {failure}"))?;
            for argument in case.arguments.iter().filter(|argument| argument.expect().is_some()) {
                compare_bytes(argument, &found[argument.name], &expected[argument.name])
                    .map_err(|message| format!("{mode} mode, second chip against first: {message}"))?;
            }
        }
        Ok(())
    });
}

/// A family of cases.
struct Suite {
    case_count: u32,
    strategy: BoxedStrategy<Case>,
}

/// Cases from parameters that `strategy` draws and `case` turns into data.
fn suite<S>(case_count: u32, strategy: S, case: impl Fn(S::Value) -> Case + 'static) -> Suite
where
    S: Strategy + 'static,
    S::Value: 'static,
{
    Suite {
        case_count,
        strategy: strategy.prop_map(case).boxed(),
    }
}

fn suites(kind: OperationKind) -> Vec<Suite> {
    match kind {
        OperationKind::Embed => rows::embed(),
        OperationKind::HyperMix => hyper::mix(),
        OperationKind::HyperPost => hyper::post(),
        OperationKind::HyperHead => hyper::head(),
        OperationKind::HyperWeights => single_pass::weights(),
        OperationKind::HyperCollapse => single_pass::collapse(),
        OperationKind::NgramRows => engram::ngram_rows(),
        OperationKind::EngramGate => engram::gate(),
        OperationKind::PoolWindows => shared::pool_windows(),
        OperationKind::StoreEntries => shared::store_entries(),
        OperationKind::SelectBlocks => blocks::select_blocks(),
        OperationKind::SelectInBlocks => blocks::select_in_blocks(),
        OperationKind::RmsNorm => rows::rms_norm(),
        OperationKind::Linear => linear::linear(),
        OperationKind::GroupedLinear => linear::grouped_linear(),
        OperationKind::RopeAngles => rope::angles(),
        OperationKind::Rope => rope::rope(),
        OperationKind::RopeHalves => rope::halves(),
        OperationKind::PackRows => tails::pack_rows(),
        OperationKind::WriteTail => tails::write_tail(),
        OperationKind::Compress => tails::compress(),
        OperationKind::IndexQuery => index::query(),
        OperationKind::SelectEntries => index::select_entries(),
        OperationKind::Attention => attention::attention(),
        OperationKind::StoreKeys => latent::store_keys(),
        OperationKind::LatentQuery => latent::query(),
        OperationKind::LatentAttention => latent::attention(),
        OperationKind::Route => experts::route(),
        OperationKind::Experts => experts::experts(),
        OperationKind::SwiGlu => experts::swiglu(),
        OperationKind::Add => rows::add(),
        OperationKind::GatherRows => rows::gather(),
        OperationKind::CopyTensor => rows::copy(),
    }
}

/// Runs `check` on every `1 / thinning` of an operator's cases.
fn for_each_case(kind: OperationKind, thinning: u32, check: impl Fn(&Case) -> Result<(), String>) {
    for suite in suites(kind) {
        let config = Config {
            cases: suite.case_count.div_ceil(thinning),
            failure_persistence: None,
            max_shrink_iters: 256,
            ..Config::default()
        };
        let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let outcome = runner.run(&suite.strategy, |case| check(&case).map_err(TestCaseError::fail));
        match outcome {
            Ok(()) => {}
            Err(TestError::Fail(reason, case)) => panic!("{kind}: {reason}\n  case: {case:?}"),
            Err(TestError::Abort(reason)) => panic!("{kind}: {reason}"),
        }
    }
}

fn check_case(kind: OperationKind, candidate: &dyn Chip, reference: &dyn Chip, case: &Case) -> Result<(), String> {
    let run =
        |mode| execute(reference, mode, case).map_err(|failure| format!("reference chip, {mode} mode: {failure}"));
    let expected = Expected {
        reference: run(Mode::Reference)?,
        official: run(Mode::Official)?,
    };
    for mode in Mode::ALL {
        if candidate.support(kind, mode) == Support::Missing {
            faults::check_unsupported(kind, candidate, mode, case)?;
            continue;
        }
        check_mode(candidate, mode, case, &expected).map_err(|message| format!("{mode} mode: {message}"))?;
    }
    Ok(())
}

fn check_mode(candidate: &dyn Chip, mode: Mode, case: &Case, expected: &Expected) -> Result<(), String> {
    let found = execute(candidate, mode, case).map_err(|failure| failure.to_string())?;
    for argument in case.arguments.iter().filter(|argument| argument.expect().is_some()) {
        compare(mode, argument, &found[argument.name], expected)?;
    }
    if let Some(verify) = &case.verify {
        verify(mode, &found)?;
    }
    for piece in case.pieces() {
        let alone = execute(candidate, mode, &piece.case).map_err(|failure| format!("{:?}: {failure}", piece.case))?;
        for (name, whole, part) in &piece.equal {
            let mut argument = case.argument(name).clone();
            argument.shape = vec![part.len() / argument.dtype.byte_count()];
            compare_bytes(&argument, &alone[name][part.clone()], &found[name][whole.clone()])
                .map_err(|message| format!("alone and in the batch: {message} ({})", piece.case.label))?;
        }
    }
    Ok(())
}

/// Rows of a step: none, one, few, more than a tile.
fn row_counts() -> impl Strategy<Value = usize> {
    prop_oneof![1 => Just(0usize), 3 => Just(1usize), 6 => 2usize..=9, 2 => 17usize..=35]
}

/// Widths below, at and between multiples of 16, 32 and 128.
fn widths() -> impl Strategy<Value = usize> {
    prop_oneof![
        2 => 1usize..=15,
        2 => 16usize..=70,
        2 => 120usize..=136,
        1 => 250usize..=300,
        1 => Just(128usize),
        1 => Just(512usize),
    ]
}

fn seeds() -> impl Strategy<Value = u64> {
    any::<u64>().no_shrink()
}
