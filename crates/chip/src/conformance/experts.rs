//! Cases of the router, the routed experts and SwiGLU.

use cachalot_numerics::{Dtype, MatrixFormat};
use proptest::prelude::*;

use super::{
    Suite,
    case::{Argument, Case, Outputs},
    compare::{Expect, REFERENCE_RELATIVE_ERROR_MAX, floats, integers},
    row_counts, seeds, suite,
    values::{FORMATS, Values},
    widths,
};
use crate::{Experts, Route, RouteChoice, SwiGlu};

pub(super) fn route() -> Vec<Suite> {
    let parameters = || {
        (
            row_counts(),
            1usize..=300,
            1usize..=8,
            any::<bool>(),
            any::<bool>(),
            seeds(),
        )
    };
    vec![
        suite(
            32,
            parameters(),
            |(rows, experts, choices, normalise, has_ties, seed)| {
                biased_case([rows, experts, choices.min(experts)], normalise, has_ties, seed)
            },
        ),
        suite(12, parameters(), |(rows, experts, choices, normalise, _, seed)| {
            hash_case([rows, experts, choices.min(experts)], normalise, seed)
        }),
        suite(
            32,
            parameters(),
            |(rows, experts, choices, normalise, has_ties, seed)| {
                grouped_case([rows, experts, choices], normalise, has_ties, seed)
            },
        ),
    ]
}

fn biased_case([rows, experts, choices]: [usize; 3], normalise: bool, has_ties: bool, seed: u64) -> Case {
    let mut values = Values::new(seed);
    let mut logits = values.floats(rows * experts, 2.0);
    let mut bias = values.floats(experts, 0.1);
    if has_ties {
        logits.iter_mut().for_each(|logit| *logit = logit.round());
        bias.fill(0.0);
    }
    let shape = [rows, experts, choices];
    let mut arguments = route_arguments(shape, &logits);
    arguments.push(Argument::f32("bias", &[experts], &bias).weight());
    let case = Case::new(label(normalise), arguments, move |loaded| {
        Route {
            logits: loaded.tensor("logits"),
            choice: RouteChoice::Biased {
                bias: loaded.tensor("bias"),
            },
            normalise,
            scale: 1.5,
            experts: loaded.tensor("experts"),
            weights: loaded.tensor("weights"),
        }
        .into()
    });
    case.verify(move |_, outputs| {
        check_weights(shape, &logits, score, normalise, outputs)?;
        let chosen = integers(&outputs["experts"]);
        for (row, chosen) in chosen.chunks_exact(choices).enumerate() {
            let logits = &logits[row * experts..][..experts];
            let keys: Vec<f64> = logits
                .iter()
                .zip(&bias)
                .map(|(x, bias)| score(*x) + f64::from(*bias))
                .collect();
            check_choice(chosen, &keys, 1e-6, |a, b| logits[a] == logits[b] && bias[a] == bias[b])
                .map_err(|message| format!("'experts' row {row}: {message}"))?;
        }
        Ok(())
    })
}

/// Groups of V3: sigmoids, the two largest of a group, the best groups, the best of those.
fn grouped_case([rows, experts, choices]: [usize; 3], normalise: bool, has_ties: bool, seed: u64) -> Case {
    let mut values = Values::new(seed);
    let group_count = 1 + values.below(8);
    let kept_group_count = 1 + values.below(group_count);
    let group_size = (experts / group_count).max(2);
    let experts = group_count * group_size;
    let choices = choices.min(group_size * kept_group_count);
    let mut logits = values.floats(rows * experts, 2.0);
    let mut bias = values.floats(experts, 0.1);
    if has_ties {
        logits.iter_mut().for_each(|logit| *logit = logit.round());
        bias.fill(0.0);
    }
    let shape = [rows, experts, choices];
    let mut arguments = route_arguments(shape, &logits);
    arguments.push(Argument::f32("bias", &[experts], &bias).weight());
    let label = format!("{kept_group_count} of {group_count} groups, {}", label(normalise));
    let case = Case::new(label, arguments, move |loaded| {
        Route {
            logits: loaded.tensor("logits"),
            choice: RouteChoice::Grouped {
                bias: loaded.tensor("bias"),
                group_count,
                kept_group_count,
            },
            normalise,
            scale: 1.5,
            experts: loaded.tensor("experts"),
            weights: loaded.tensor("weights"),
        }
        .into()
    });
    case.verify(move |_, outputs| {
        check_weights(shape, &logits, sigmoid, normalise, outputs)?;
        for (row, chosen) in integers(&outputs["experts"]).chunks_exact(choices).enumerate() {
            let logits = &logits[row * experts..][..experts];
            let keys: Vec<f64> = logits
                .iter()
                .zip(&bias)
                .map(|(x, bias)| sigmoid(*x) + f64::from(*bias))
                .collect();
            check_groups(chosen, &keys, group_size, kept_group_count)
                .map_err(|message| format!("'experts' row {row}: {message}"))?;
        }
        Ok(())
    })
}

/// Checks that the experts come from groups that may be the best ones, and that they are the best of those groups.
fn check_groups(chosen: &[i32], keys: &[f64], group_size: usize, kept_group_count: usize) -> Result<(), String> {
    const TOLERANCE: f64 = 1e-6;
    let sums: Vec<f64> = keys
        .chunks_exact(group_size)
        .map(|group| {
            let mut sorted = group.to_vec();
            sorted.sort_by(|a, b| b.total_cmp(a));
            sorted[0] + sorted[1]
        })
        .collect();
    let mut order: Vec<usize> = (0..sums.len()).collect();
    // Stable: of equal groups the lower one comes first.
    order.sort_by(|a, b| sums[*b].total_cmp(&sums[*a]));
    let border = sums[order[kept_group_count - 1]];
    let is_unsure = order
        .get(kept_group_count)
        .is_some_and(|next| sums[*next] != border && sums[*next] > border - TOLERANCE);
    if is_unsure {
        let bad = chosen
            .iter()
            .find(|expert| sums[**expert as usize / group_size] < border - TOLERANCE);
        return bad.map_or(Ok(()), |expert| {
            Err(format!("{expert} is of a group that is not among the best"))
        });
    }
    let kept = &order[..kept_group_count];
    let masked: Vec<f64> = keys
        .iter()
        .enumerate()
        .map(|(expert, key)| match kept.contains(&(expert / group_size)) {
            true => *key,
            false => f64::NEG_INFINITY,
        })
        .collect();
    check_choice(chosen, &masked, TOLERANCE, |a, b| masked[a] == masked[b])
}

fn sigmoid(logit: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(logit)).exp())
}

fn hash_case([rows, experts, choices]: [usize; 3], normalise: bool, seed: u64) -> Case {
    let mut values = Values::new(seed);
    let logits = values.floats(rows * experts, 2.0);
    let vocabulary = 1 + values.below(20);
    let table: Vec<i64> = (0..vocabulary)
        .flat_map(|_| {
            values
                .permutation(experts)
                .into_iter()
                .take(choices)
                .map(|expert| expert as i64)
        })
        .collect();
    let tokens: Vec<i32> = (0..rows).map(|_| values.below(vocabulary) as i32).collect();
    let table_bytes = table.iter().flat_map(|expert| expert.to_le_bytes()).collect();
    let shape = [rows, experts, choices];
    let mut arguments = route_arguments(shape, &logits);
    // Nothing else says how many experts there are.
    arguments[0].is_last_free = true;
    arguments.push(Argument::new("table", Dtype::I64, &[vocabulary, choices], table_bytes).weight());
    arguments.push(Argument::i32("tokens", &[rows], &tokens).by_row());
    let case = Case::new(format!("hash, {}", label(normalise)), arguments, move |loaded| {
        Route {
            logits: loaded.tensor("logits"),
            choice: RouteChoice::Hash {
                table: loaded.tensor("table"),
                tokens: loaded.tensor("tokens"),
            },
            normalise,
            scale: 1.5,
            experts: loaded.tensor("experts"),
            weights: loaded.tensor("weights"),
        }
        .into()
    });
    let case = case.refuses("tokens", 0, vocabulary as i64).refuses("tokens", 0, -1);
    case.verify(move |_, outputs| {
        check_weights(shape, &logits, score, normalise, outputs)?;
        for (row, chosen) in integers(&outputs["experts"]).chunks_exact(choices).enumerate() {
            let mut expected = table[tokens[row] as usize * choices..][..choices].to_vec();
            expected.sort_unstable();
            if chosen
                .iter()
                .map(|expert| i64::from(*expert))
                .ne(expected.iter().copied())
            {
                return Err(format!("'experts' row {row}: found {chosen:?}, expected {expected:?}"));
            }
        }
        Ok(())
    })
}

fn label(normalise: bool) -> &'static str {
    if normalise { "normalised" } else { "not normalised" }
}

fn route_arguments([rows, experts, choices]: [usize; 3], logits: &[f32]) -> Vec<Argument> {
    vec![
        Argument::f32("logits", &[rows, experts], logits).by_row(),
        Argument::output("experts", Dtype::I32, &[rows, choices], Expect::Verified).by_row(),
        Argument::output("weights", Dtype::F32, &[rows, choices], Expect::Verified).by_row(),
    ]
}

fn score(logit: f32) -> f64 {
    let logit = f64::from(logit);
    (logit.max(0.0) + (-logit.abs()).exp().ln_1p()).sqrt()
}

/// The weights must be those of the experts that were chosen, whichever they are.
fn check_weights(
    [_, experts, choices]: [usize; 3],
    logits: &[f32],
    score: fn(f32) -> f64,
    normalise: bool,
    outputs: &Outputs,
) -> Result<(), String> {
    let (chosen, weights) = (integers(&outputs["experts"]), floats(&outputs["weights"]));
    for (row, chosen) in chosen.chunks_exact(choices).enumerate() {
        if chosen.iter().any(|expert| *expert < 0 || *expert as usize >= experts) {
            return Err(format!("'experts' row {row}: {chosen:?} of {experts}"));
        }
        let scores: Vec<f64> = chosen
            .iter()
            .map(|expert| score(logits[row * experts + *expert as usize]))
            .collect();
        let sum: f64 = if normalise { scores.iter().sum() } else { 1.0 };
        for (place, score) in scores.iter().enumerate() {
            let (found, expected) = (f64::from(weights[row * choices + place]), score / sum * 1.5);
            let is_close = (found - expected).abs() <= expected * f64::from(REFERENCE_RELATIVE_ERROR_MAX);
            if !is_close {
                return Err(format!(
                    "'weights' element [{row}, {place}]: found {found:e}, expected {expected:e}"
                ));
            }
        }
    }
    Ok(())
}

/// Checks a top-k choice: ascending, no better candidate left out, equal candidates by index.
///
/// `keys` may be wrong by `tolerance`; `equal` says which candidates tie exactly.
pub(super) fn check_choice(
    chosen: &[i32],
    keys: &[f64],
    tolerance: f64,
    equal: impl Fn(usize, usize) -> bool,
) -> Result<(), String> {
    if !chosen.is_sorted_by(|a, b| a < b) || chosen.iter().any(|index| *index < 0 || *index as usize >= keys.len()) {
        return Err(format!("{chosen:?} is not an ascending choice of {}", keys.len()));
    }
    let mut is_chosen = vec![false; keys.len()];
    chosen.iter().for_each(|index| is_chosen[*index as usize] = true);
    for taken in (0..keys.len()).filter(|index| is_chosen[*index]) {
        for left in (0..keys.len()).filter(|index| !is_chosen[*index]) {
            if keys[left] > keys[taken] + tolerance {
                return Err(format!(
                    "chose {taken} ({:e}) and left out {left} ({:e}), tolerance {tolerance:e}",
                    keys[taken], keys[left]
                ));
            }
            if left < taken && equal(left, taken) {
                return Err(format!("chose {taken} and left out {left}, which ties and comes first"));
            }
        }
    }
    Ok(())
}

pub(super) fn experts() -> Vec<Suite> {
    let count = FORMATS.len();
    let formats = move |seed: u64| [FORMATS[seed as usize % count], FORMATS[seed as usize / count % count]];
    let small = (row_counts(), 1usize..=6, 1usize..=3, widths(), widths(), seeds());
    let released = (
        row_counts(),
        2usize..=4,
        2usize..=2,
        Just(256usize),
        Just(128usize),
        seeds(),
    );
    vec![
        suite(40, small, move |(rows, experts, choices, width, inner, seed)| {
            experts_case(
                [rows, experts, choices.min(experts)],
                [width, inner],
                formats(seed),
                seed,
            )
        }),
        suite(6, released, |(rows, experts, choices, width, inner, seed)| {
            experts_case([rows, experts, choices], [width, inner], [MatrixFormat::FP4; 2], seed)
        }),
    ]
}

fn experts_case(
    [rows, experts, choices]: [usize; 3],
    [width, inner]: [usize; 2],
    [up_format, down_format]: [MatrixFormat; 2],
    seed: u64,
) -> Case {
    let mut values = Values::new(seed);
    let mut chosen = Vec::new();
    for _ in 0..rows {
        let mut row: Vec<i32> = values
            .permutation(experts)
            .into_iter()
            .take(choices)
            .map(|e| e as i32)
            .collect();
        row.sort_unstable();
        chosen.extend(row);
    }
    let weights: Vec<f32> = (0..rows * choices).map(|_| values.signed().abs() + 0.1).collect();
    let expect = Expect::Floats {
        // A rounding to FP8 inside may go either way: 2^-4 of one of `inner` terms.
        official_noise: 0.02,
        magnitudes: Some(vec![0.3; rows]),
    };
    let arguments = vec![
        Argument::f32("x", &[rows, width], &values.floats(rows * width, 1.0)).by_row(),
        Argument::i32("chosen", &[rows, choices], &chosen).by_row(),
        Argument::f32("weights", &[rows, choices], &weights).by_row(),
        Argument::output("out", Dtype::F32, &[rows, width], expect).by_row(),
    ];
    let input_group = [128, 32][values.below(2)];
    let mut case = Case::new(
        format!("w2 {down_format}, groups of {input_group}"),
        arguments,
        move |loaded| {
            Experts {
                x: loaded.tensor("x"),
                chosen: loaded.tensor("chosen"),
                weights: loaded.tensor("weights"),
                experts: loaded.experts(),
                limit: 1.5,
                input_group,
                out: loaded.tensor("out"),
            }
            .into()
        },
    );
    let matrices = (0..experts).map(|_| {
        [
            values.matrix(inner, width, up_format),
            values.matrix(width, inner, down_format),
            values.matrix(inner, width, up_format),
        ]
    });
    case.experts = matrices.collect();
    case.refuses("chosen", 0, -1)
        .refuses("chosen", (rows * choices).saturating_sub(1), experts as i64)
}

pub(super) fn swiglu() -> Vec<Suite> {
    vec![suite(32, (row_counts(), widths(), seeds()), |(rows, width, seed)| {
        let mut values = Values::new(seed);
        let limit = [0.5, 10.0][values.below(2)];
        let shape = [rows, width];
        let arguments = vec![
            Argument::f32("gate", &shape, &values.floats(rows * width, 6.0)).by_row(),
            Argument::f32("up", &shape, &values.floats(rows * width, 6.0)).by_row(),
            Argument::output("out", Dtype::F32, &shape, Expect::magnitudes(vec![1.0; rows])).by_row(),
        ];
        Case::new(format!("limit {limit}"), arguments, move |loaded| {
            SwiGlu {
                gate: loaded.tensor("gate"),
                up: loaded.tensor("up"),
                limit,
                out: loaded.tensor("out"),
            }
            .into()
        })
    })]
}
