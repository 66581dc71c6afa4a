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
        let scores: Vec<f32> = logits.iter().map(|logit| softplus(*logit).sqrt()).collect();
        choice.choose(context, row, &scores, experts)?;
        experts.sort_unstable();
        for (weight, expert) in weights.iter_mut().zip(experts.iter()) {
            *weight = scores[*expert as usize];
        }
        let divisor: f32 = if operation.normalise { weights.iter().sum() } else { 1.0 };
        weights
            .iter_mut()
            .for_each(|weight| *weight = *weight / divisor * operation.scale);
    }
    Ok(())
}

enum Choice<'a> {
    Biased(&'a [f32]),
    Hash { table: &'a [i64], tokens: &'a [i32] },
}

impl<'a> Choice<'a> {
    fn new(context: &Context<'a>, choice: &RouteChoice<'_>) -> Result<Self, Error> {
        Ok(match choice {
            RouteChoice::Biased { bias } => Choice::Biased(context.access.f32("bias", bias)?),
            RouteChoice::Hash { table, tokens } => Choice::Hash {
                table: context.access.i64("table", table)?,
                tokens: context.access.i32("tokens", tokens)?,
            },
        })
    }

    fn choose(&self, context: &Context<'_>, row: usize, scores: &[f32], experts: &mut [i32]) -> Result<(), Error> {
        match self {
            Choice::Biased(bias) => {
                let biased: Vec<f32> = scores.iter().zip(*bias).map(|(score, bias)| score + bias).collect();
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
