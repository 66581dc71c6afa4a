//! The router (V4 architecture, section 6).

use cachalot_chip::{Error, Route, RouteChoice};

use super::{Context, top::largest};
use crate::vector::softplus;

pub(super) fn route(context: &Context<'_>, operation: &Route<'_>) -> Result<(), Error> {
    let (expert_count, choice_count) = (operation.logits.shape()[1], operation.experts.shape()[1]);
    let logits = context.access.f32("logits", operation.logits)?;
    let experts = context.access.i32_mut("experts", operation.experts)?;
    let weights = context.access.f32_mut("weights", operation.weights)?;
    let choice = Choice::new(context, &operation.choice)?;
    let rows = logits.chunks_exact(expert_count);
    let outputs = experts
        .chunks_exact_mut(choice_count)
        .zip(weights.chunks_exact_mut(choice_count));
    for (row, (logits, (experts, weights))) in rows.zip(outputs).enumerate() {
        let scores: Vec<f32> = logits.iter().map(|logit| choice.score(*logit)).collect();
        choice.choose(context, row, &scores, experts)?;
        experts.sort_unstable();
        for (weight, expert) in weights.iter_mut().zip(experts.iter()) {
            *weight = scores[*expert as usize];
        }
        let divisor = match operation.normalise {
            // Sigmoids may all underflow, and V3 adds this much.
            true if matches!(choice, Choice::Grouped { .. }) => weights.iter().sum::<f32>() + 1e-20,
            true => weights.iter().sum(),
            false => 1.0,
        };
        weights
            .iter_mut()
            .for_each(|weight| *weight = *weight / divisor * operation.scale);
    }
    Ok(())
}

enum Choice<'a> {
    Biased(&'a [f32]),
    Grouped {
        bias: &'a [f32],
        group_count: usize,
        kept_group_count: usize,
    },
    Hash {
        table: &'a [i64],
        tokens: &'a [i32],
    },
}

impl<'a> Choice<'a> {
    fn new(context: &Context<'a>, choice: &RouteChoice<'_>) -> Result<Self, Error> {
        Ok(match choice {
            RouteChoice::Biased { bias } => Choice::Biased(context.access.f32("bias", bias)?),
            RouteChoice::Grouped {
                bias,
                group_count,
                kept_group_count,
            } => Choice::Grouped {
                bias: context.access.f32("bias", bias)?,
                group_count: *group_count,
                kept_group_count: *kept_group_count,
            },
            RouteChoice::Hash { table, tokens } => Choice::Hash {
                table: context.access.i64("table", table)?,
                tokens: context.access.i32("tokens", tokens)?,
            },
        })
    }

    fn score(&self, logit: f32) -> f32 {
        match self {
            Choice::Grouped { .. } => 1.0 / (1.0 + (-logit).exp()),
            Choice::Biased(_) | Choice::Hash { .. } => softplus(logit).sqrt(),
        }
    }

    fn choose(&self, context: &Context<'_>, row: usize, scores: &[f32], experts: &mut [i32]) -> Result<(), Error> {
        match self {
            Choice::Biased(bias) => {
                let biased: Vec<f32> = scores.iter().zip(*bias).map(|(score, bias)| score + bias).collect();
                largest(&biased, experts);
            }
            Choice::Grouped {
                bias,
                group_count,
                kept_group_count,
            } => {
                let mut biased: Vec<f32> = scores.iter().zip(*bias).map(|(score, bias)| score + bias).collect();
                keep_best_groups(&mut biased, *group_count, *kept_group_count);
                largest(&biased, experts);
            }
            Choice::Hash { table, tokens } => {
                let row_count = table.len() / experts.len();
                let token = context.index("tokens", i64::from(tokens[row]), row_count)?;
                let choices = &table[token * experts.len()..][..experts.len()];
                for (expert, id) in experts.iter_mut().zip(choices) {
                    *expert = context.index("table", *id, scores.len())? as i32;
                }
            }
        }
        Ok(())
    }
}

/// Puts all but the best groups out of reach. A group counts as the sum of its two largest scores.
fn keep_best_groups(scores: &mut [f32], group_count: usize, kept_group_count: usize) {
    let group_size = scores.len() / group_count;
    let counts: Vec<f32> = scores
        .chunks_exact(group_size)
        .map(|group| {
            let mut best = [0; 2];
            let best = &mut best[..group_size.min(2)];
            largest(group, best);
            best.iter().map(|index| group[*index as usize]).sum()
        })
        .collect();
    let mut kept = vec![0; kept_group_count];
    largest(&counts, &mut kept);
    for (group, scores) in scores.chunks_exact_mut(group_size).enumerate() {
        if !kept.contains(&(group as i32)) {
            scores.fill(f32::NEG_INFINITY);
        }
    }
}
