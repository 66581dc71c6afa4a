//! Cases of the hyper-connections.

use cachalot_numerics::Dtype;

use super::{
    Suite,
    case::{Argument, Case},
    compare::{Expect, floats},
    row_counts, seeds, suite,
    values::Values,
    widths,
};
use crate::{HyperHead, HyperMix, HyperPost};

pub(super) fn mix() -> Vec<Suite> {
    vec![suite(
        40,
        (row_counts(), 1usize..=5, widths(), 1usize..=20, seeds()),
        mix_case,
    )]
}

fn mix_case((row_count, n, d, iterations, seed): (usize, usize, usize, usize, u64)) -> Case {
    let mut values = Values::new(seed);
    let mix_count = (2 + n) * n;
    let function = values.floats(mix_count * n * d, 1.0 / ((n * d) as f32).sqrt());
    let arguments = vec![
        Argument::f32("streams", &[row_count, n, d], &values.floats(row_count * n * d, 3.0)).by_row(),
        Argument::f32("function", &[mix_count, n * d], &function).weight(),
        Argument::f32("scale", &[3], &[0.5, 1.5, 1.0]).weight(),
        Argument::f32("base", &[mix_count], &values.floats(mix_count, 1.0)).weight(),
        Argument::output("input", Dtype::F32, &[row_count, d], Expect::FLOATS).by_row(),
        Argument::output("post", Dtype::F32, &[row_count, n], Expect::FLOATS).by_row(),
        Argument::output("comb", Dtype::F32, &[row_count, n, n], Expect::FLOATS).by_row(),
    ];
    let case = Case::new(format!("{iterations} iterations"), arguments, move |loaded| {
        HyperMix {
            streams: loaded.tensor("streams"),
            function: loaded.tensor("function"),
            scale: loaded.tensor("scale"),
            base: loaded.tensor("base"),
            sinkhorn_iterations: iterations,
            epsilon: 1e-6,
            norm_epsilon: 1e-6,
            input: loaded.tensor("input"),
            post: loaded.tensor("post"),
            comb: loaded.tensor("comb"),
        }
        .into()
    });
    case.verify(move |_, outputs| {
        // The last step divides each column by its sum, whatever came before.
        for comb in floats(&outputs["comb"]).chunks_exact(n * n) {
            for column in 0..n {
                let sum: f32 = comb.iter().skip(column).step_by(n).sum();
                if (sum - 1.0).abs() > 1e-3 {
                    return Err(format!("column {column} of 'comb' sums to {sum}"));
                }
            }
        }
        Ok(())
    })
}

pub(super) fn post() -> Vec<Suite> {
    vec![suite(
        32,
        (row_counts(), 1usize..=5, widths(), seeds()),
        |(row_count, n, d, seed)| {
            let mut values = Values::new(seed);
            let streams = Argument::f32("streams", &[row_count, n, d], &values.floats(row_count * n * d, 3.0));
            let arguments = vec![
                Argument::f32("y", &[row_count, d], &values.floats(row_count * d, 1.0)).by_row(),
                Argument::f32("post", &[row_count, n], &values.floats(row_count * n, 1.0)).by_row(),
                Argument::f32("comb", &[row_count, n, n], &values.floats(row_count * n * n, 0.5)).by_row(),
                streams.by_row().in_place(Expect::magnitudes(vec![3.0; row_count])),
            ];
            Case::new("", arguments, |loaded| {
                HyperPost {
                    y: loaded.tensor("y"),
                    post: loaded.tensor("post"),
                    comb: loaded.tensor("comb"),
                    streams: loaded.tensor("streams"),
                }
                .into()
            })
        },
    )]
}

pub(super) fn head() -> Vec<Suite> {
    vec![suite(
        32,
        (row_counts(), 1usize..=5, widths(), seeds()),
        |(row_count, n, d, seed)| {
            let mut values = Values::new(seed);
            let function = values.floats(n * n * d, 1.0 / ((n * d) as f32).sqrt());
            let arguments = vec![
                Argument::f32("streams", &[row_count, n, d], &values.floats(row_count * n * d, 3.0)).by_row(),
                Argument::f32("function", &[n, n * d], &function).weight(),
                Argument::f32("scale", &[1], &[0.7]).weight(),
                Argument::f32("base", &[n], &values.floats(n, 1.0)).weight(),
                Argument::output(
                    "out",
                    Dtype::F32,
                    &[row_count, d],
                    Expect::magnitudes(vec![3.0; row_count]),
                )
                .by_row(),
            ];
            Case::new("", arguments, |loaded| {
                HyperHead {
                    streams: loaded.tensor("streams"),
                    function: loaded.tensor("function"),
                    scale: loaded.tensor("scale"),
                    base: loaded.tensor("base"),
                    epsilon: 1e-6,
                    norm_epsilon: 1e-6,
                    out: loaded.tensor("out"),
                }
                .into()
            })
        },
    )]
}
