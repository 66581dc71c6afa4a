//! Routed experts and SwiGLU (V4 architecture, section 6).

use cachalot_chip::{Error, Experts, Mode, SwiGlu};
use cachalot_numerics::bf16;

use super::{Context, linear::quantise_input};
use crate::{
    memory::CpuMatrix,
    product::{self, Out, Product},
    vector::silu,
};

/// Elements of a task where every element stands for itself.
pub(super) const ELEMENT_BLOCK: usize = 2048;

pub(super) fn swiglu(context: &Context<'_>, operation: &SwiGlu<'_>) -> Result<(), Error> {
    let gate = context.access.f32("gate", operation.gate)?;
    let up = context.access.f32("up", operation.up)?;
    let out = context.access.f32_mut("out", operation.out)?;
    context
        .pool
        .for_each_chunk(out, ELEMENT_BLOCK, 16 * ELEMENT_BLOCK, |block, out| {
            let first = block * ELEMENT_BLOCK;
            for ((out, gate), up) in out.iter_mut().zip(&gate[first..]).zip(&up[first..]) {
                *out = clamped_swiglu(*gate, *up, operation.limit);
            }
            context.round(out);
        });
    Ok(())
}

fn clamped_swiglu(gate: f32, up: f32, limit: f32) -> f32 {
    // Unlike `min`, a comparison keeps NaN.
    let gate = if gate > limit { limit } else { gate };
    silu(gate) * up.clamp(-limit, limit)
}

/// The rows that chose one expert.
struct Group {
    expert: usize,
    /// Row and place among the row's choices.
    members: Vec<(usize, usize)>,
    /// First row of this group in the gathered buffers.
    first: usize,
}

pub(super) fn experts(context: &Context<'_>, operation: &Experts<'_>) -> Result<(), Error> {
    let (width, choice_count) = (operation.x.shape()[1], operation.chosen.shape()[1]);
    let x = context.access.f32("x", operation.x)?;
    let chosen = context.access.i32("chosen", operation.chosen)?;
    let weights = context.access.f32("weights", operation.weights)?;
    let out = context.access.f32_mut("out", operation.out)?;
    let groups = group_rows(context, chosen, choice_count, operation.experts.len())?;
    let inner = operation.experts[0].w1.rows();
    let x = quantise_input(context, x, width);
    let gathered: Vec<f32> = groups
        .iter()
        .flat_map(|group| &group.members)
        .flat_map(|(row, _)| &x[row * width..][..width])
        .copied()
        .collect();

    let mut hidden = gate_and_up(context, operation, &groups, &gathered, inner)?;
    // The routing weight is multiplied in before the down projection, as in the reference.
    for group in &groups {
        for (index, (row, place)) in group.members.iter().enumerate() {
            let hidden = &mut hidden[(group.first + index) * inner..][..inner];
            let weight = weights[row * choice_count + place];
            hidden.iter_mut().for_each(|value| *value *= weight);
            context.round(hidden);
        }
    }
    let hidden = quantise_input(context, &hidden, inner);
    let down = down(context, operation, &groups, &hidden, width)?;

    out.fill(0.0);
    // Groups ascend by expert, so every row's sum does too.
    for group in &groups {
        for (index, (row, _)) in group.members.iter().enumerate() {
            let down = &down[(group.first + index) * width..][..width];
            out[row * width..][..width]
                .iter_mut()
                .zip(down)
                .for_each(|(out, value)| *out += value);
        }
    }
    Ok(())
}

/// The rows of each chosen expert, experts ascending.
fn group_rows(
    context: &Context<'_>,
    chosen: &[i32],
    choice_count: usize,
    expert_count: usize,
) -> Result<Vec<Group>, Error> {
    let mut members = vec![Vec::new(); expert_count];
    for (index, expert) in chosen.iter().enumerate() {
        let expert = context.index("chosen", i64::from(*expert), expert_count)?;
        members[expert].push((index / choice_count, index % choice_count));
    }
    let mut first = 0;
    let mut groups = Vec::new();
    for (expert, members) in members
        .into_iter()
        .enumerate()
        .filter(|(_, members)| !members.is_empty())
    {
        let count = members.len();
        groups.push(Group { expert, members, first });
        first += count;
    }
    Ok(groups)
}

/// `silu(min(w1 x, limit)) * clamp(w3 x)` of every gathered row.
fn gate_and_up(
    context: &Context<'_>,
    operation: &Experts<'_>,
    groups: &[Group],
    gathered: &[f32],
    inner: usize,
) -> Result<Vec<f32>, Error> {
    let width = operation.x.shape()[1];
    let row_count = gathered.len() / width;
    let mut gate = vec![0.0; row_count * inner];
    let mut up = vec![0.0; row_count * inner];
    let (gate_out, up_out) = (Out::new(&mut gate, inner), Out::new(&mut up, inner));
    let mut products = Vec::with_capacity(2 * groups.len());
    for group in groups {
        let expert = &operation.experts[group.expert];
        for (matrix, out) in [(&expert.w1, gate_out), (&expert.w3, up_out)] {
            products.push(Product {
                matrix: CpuMatrix::of(matrix)?,
                first_row: 0,
                row_count: inner,
                x: &gathered[group.first * width..],
                x_stride: width,
                x_count: group.members.len(),
                out: out.shifted(group.first * inner),
            });
        }
    }
    product::run(context.pool, context.chosen(), &products);
    let official = context.mode == Mode::Official;
    context
        .pool
        .for_each_chunk(&mut gate, ELEMENT_BLOCK, 16 * ELEMENT_BLOCK, |block, gate| {
            for (gate, up) in gate.iter_mut().zip(&up[block * ELEMENT_BLOCK..]) {
                let (rounded_gate, rounded_up) = if official {
                    (bf16::round(*gate), bf16::round(*up))
                } else {
                    (*gate, *up)
                };
                *gate = clamped_swiglu(rounded_gate, rounded_up, operation.limit);
            }
        });
    Ok(gate)
}

/// `w2 hidden` of every gathered row.
fn down(
    context: &Context<'_>,
    operation: &Experts<'_>,
    groups: &[Group],
    hidden: &[f32],
    width: usize,
) -> Result<Vec<f32>, Error> {
    let inner = operation.experts[0].w1.rows();
    let mut down = vec![0.0; hidden.len() / inner.max(1) * width];
    let out = Out::new(&mut down, width);
    let mut products = Vec::with_capacity(groups.len());
    for group in groups {
        products.push(Product {
            matrix: CpuMatrix::of(&operation.experts[group.expert].w2)?,
            first_row: 0,
            row_count: width,
            x: &hidden[group.first * inner..],
            x_stride: inner,
            x_count: group.members.len(),
            out: out.shifted(group.first * width),
        });
    }
    product::run(context.pool, context.chosen(), &products);
    context.round(&mut down);
    Ok(down)
}
