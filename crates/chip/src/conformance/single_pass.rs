//! Cases of the hyper-connections of V4.1.

use cachalot_numerics::Dtype;

use super::{
    Suite,
    case::{Argument, Case},
    compare::{Expect, floats},
    row_counts, seeds, suite,
    values::Values,
    widths,
};
use crate::{HyperCollapse, HyperWeights, Mode};

pub(super) fn weights() -> Vec<Suite> {
    vec![suite(
        32,
        (row_counts(), 1usize..=5, widths(), 1usize..=20, seeds()),
        weights_case,
    )]
}

fn weights_case((row_count, n, d, iterations, seed): (usize, usize, usize, usize, u64)) -> Case {
    let mut values = Values::new(seed);
    let mix_count = (2 + n) * n;
    let streams = values.floats(row_count * n * d, 3.0);
    let function = values.floats(mix_count * n * d, 1.0 / ((n * d) as f32).sqrt());
    let base = values.floats(mix_count, 1.0);
    let arguments = vec![
        Argument::f32("streams", &[row_count, n, d], &streams).by_row(),
        Argument::f32("function", &[mix_count, n * d], &function).weight(),
        Argument::f32("scale", &[3], &[0.5, 1.5, 1.0]).weight(),
        Argument::f32("base", &[mix_count], &base).weight(),
        Argument::output("pre", Dtype::F32, &[row_count, n], Expect::FLOATS).by_row(),
        Argument::output("post", Dtype::F32, &[row_count, n], Expect::FLOATS).by_row(),
        Argument::output("comb", Dtype::F32, &[row_count, n, n], Expect::FLOATS).by_row(),
    ];
    let case = Case::new(format!("{iterations} iterations"), arguments, move |loaded| {
        HyperWeights {
            streams: loaded.tensor("streams"),
            function: loaded.tensor("function"),
            scale: loaded.tensor("scale"),
            base: loaded.tensor("base"),
            sinkhorn_iterations: iterations,
            epsilon: 1e-6,
            norm_epsilon: 1e-20,
            pre: loaded.tensor("pre"),
            post: loaded.tensor("post"),
            comb: loaded.tensor("comb"),
        }
        .into()
    });
    case.verify(move |_, outputs| {
        let (pre, post) = (floats(&outputs["pre"]), floats(&outputs["post"]));
        for (row, streams) in streams.chunks_exact(n * d).enumerate() {
            let squares: f64 = streams.iter().map(|value| f64::from(*value).powi(2)).sum();
            let rms = (squares / (n * d) as f64 + 1e-20).sqrt();
            let mixed = |index: usize| {
                let terms = streams.iter().zip(&function[index * n * d..]);
                terms.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() / rms
            };
            let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
            for i in 0..n {
                let expected = [
                    sigmoid(mixed(i) * 0.5 + f64::from(base[i])) + 1e-6,
                    2.0 * sigmoid(mixed(n + i) * 1.5 + f64::from(base[n + i])),
                ];
                for (found, expected) in [pre[row * n + i], post[row * n + i]].into_iter().zip(expected) {
                    if (f64::from(found) - expected).abs() > 1e-4 {
                        return Err(format!("row {row}, stream {i}: found {found}, expected {expected}"));
                    }
                }
            }
        }
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

pub(super) fn collapse() -> Vec<Suite> {
    vec![suite(
        24,
        (row_counts(), 1usize..=5, widths(), seeds()),
        |(row_count, n, d, seed)| {
            let mut values = Values::new(seed);
            let streams = values.floats(row_count * n * d, 3.0);
            let pre = values.floats(row_count * n, 1.0);
            let expect = Expect::magnitudes(vec![3.0; row_count]);
            let arguments = vec![
                Argument::f32("streams", &[row_count, n, d], &streams).by_row(),
                Argument::f32("pre", &[row_count, n], &pre).by_row(),
                Argument::output("out", Dtype::F32, &[row_count, d], expect).by_row(),
            ];
            let case = Case::new("", arguments, |loaded| {
                HyperCollapse {
                    streams: loaded.tensor("streams"),
                    pre: loaded.tensor("pre"),
                    out: loaded.tensor("out"),
                }
                .into()
            });
            case.verify(move |mode, outputs| {
                let tolerance = if mode == Mode::Official { 0.1 } else { 1e-4 };
                for (index, found) in floats(&outputs["out"]).into_iter().enumerate() {
                    let (row, channel) = (index / d, index % d);
                    let terms = (0..n).map(|i| pre[row * n + i] * streams[(row * n + i) * d + channel]);
                    let expected: f32 = terms.sum();
                    if (found - expected).abs() > tolerance {
                        return Err(format!(
                            "row {row}, channel {channel}: found {found}, expected {expected}"
                        ));
                    }
                }
                Ok(())
            })
        },
    )]
}
