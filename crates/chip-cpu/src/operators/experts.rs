//! Routed experts and SwiGLU (V4 architecture, section 6).

use std::cell::RefCell;

use cachalot_chip::{Error, Expected, ExpertMatrices, Experts, Mode, SwiGlu};
use cachalot_numerics::bf16;

use super::{Context, linear::quantise_input};
use crate::{
    access::Access,
    memory::CpuMatrix,
    pool::Chunks,
    product::{self, Out, Product},
    streaming,
    vector::{self, silu},
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
            if context.mode == Mode::Fast {
                return vector::swiglu(out, &gate[first..], &up[first..], operation.limit);
            }
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
    /// First row of this group among those of all groups.
    first: usize,
}

/// Tells the cache of streamed experts what it will be asked for. What is wrong with the arguments is left to the operator.
pub(crate) fn expect_experts(access: &Access<'_>, experts: &[ExpertMatrices], expected: Expected<'_>) {
    let mut is_chosen = vec![false; experts.len()];
    let mut choose = |expert: i64| {
        let chosen = usize::try_from(expert)
            .ok()
            .and_then(|expert| is_chosen.get_mut(expert));
        chosen.into_iter().for_each(|chosen| *chosen = true);
    };
    let is_certain = match expected {
        Expected::Rows(row_count) => return streaming::expect_likely(experts, row_count),
        Expected::Chosen(chosen) => {
            let Ok(chosen) = access.i32("chosen", chosen) else {
                return;
            };
            chosen.iter().for_each(|expert| choose(i64::from(*expert)));
            true
        }
        Expected::Hash { table, tokens } => {
            let choice_count = table.shape().last().copied().unwrap_or(0);
            let (Ok(table), Ok(tokens)) = (access.i64("table", table), access.i32("tokens", tokens)) else {
                return;
            };
            for token in tokens {
                let row = usize::try_from(*token)
                    .ok()
                    .and_then(|token| token.checked_mul(choice_count));
                let choices = row.and_then(|row| table.get(row..row + choice_count));
                choices.into_iter().flatten().for_each(|expert| choose(*expert));
            }
            false
        }
    };
    let chosen = is_chosen.iter().enumerate().filter(|(_, is_chosen)| **is_chosen);
    streaming::expect(experts, chosen.map(|(expert, _)| expert), is_certain);
}

pub(super) fn experts(context: &Context<'_>, operation: &Experts<'_>) -> Result<(), Error> {
    let (width, choice_count) = (operation.x.shape()[1], operation.chosen.shape()[1]);
    let x = context.access.f32("x", operation.x)?;
    let chosen = context.access.i32("chosen", operation.chosen)?;
    let weights = context.access.f32("weights", operation.weights)?;
    let out = context.access.f32_mut("out", operation.out)?;
    let groups = group_rows(context, chosen, choice_count, operation.experts.len())?;
    let x = quantise_input(context, x, width, operation.input_group);
    let rows = ExpertRows {
        x: &x,
        width,
        inner: operation.experts[0].w1.rows(),
        weights,
        choice_count,
        limit: operation.limit,
        input_group: operation.input_group,
    };
    out.fill(0.0);
    if streaming::is_streamed(operation.experts) {
        let uses = groups.iter().map(|group| (group.expert, group.members.len()));
        let mut arrivals = streaming::want(operation.experts, uses, operation.x.shape()[0], choice_count)?;
        // Experts arrive in any order, so their rows wait for each other.
        let mut down = vec![0.0; chosen.len() * width];
        loop {
            let batch = arrivals.next()?;
            if batch.is_empty() {
                break;
            }
            let batch: Vec<_> = batch
                .iter()
                .map(|(place, lease)| (&groups[*place], lease.matrices.each_ref()))
                .collect();
            compute(context, &rows, &batch, 0, &mut down);
        }
        add_rows(context, &groups, &down, width, out);
        return Ok(());
    }
    let mut down = Vec::new();
    let mut left = &groups[..];
    while !left.is_empty() {
        let (now, later) = left.split_at(batch_group_count(left));
        left = later;
        let mut batch = Vec::with_capacity(now.len());
        for group in now {
            let ExpertMatrices { w1, w2, w3 } = &operation.experts[group.expert];
            batch.push((group, [CpuMatrix::of(w1)?, CpuMatrix::of(w2)?, CpuMatrix::of(w3)?]));
        }
        let row_count: usize = now.iter().map(|group| group.members.len()).sum();
        let down = resized(&mut down, row_count * width);
        compute(context, &rows, &batch, now[0].first, down);
        add_rows(context, now, down, width, out);
    }
    Ok(())
}

/// How many of the first groups are computed together: enough rows to keep all threads busy, few enough for what lies
/// between the products to stay in the caches.
fn batch_group_count(groups: &[Group]) -> usize {
    const BATCH_ROW_COUNT: usize = 512;
    let first = groups[0].first;
    let fitting = groups
        .iter()
        .take_while(|group| group.first + group.members.len() - first <= BATCH_ROW_COUNT);
    fitting.count().max(1)
}

/// Adds the rows of some groups to those of `out` that chose them. `down` starts with the first group.
///
/// Groups ascend by expert, so every row's sum does too.
fn add_rows(context: &Context<'_>, groups: &[Group], down: &[f32], width: usize, out: &mut [f32]) {
    /// Columns of a task.
    const BLOCK_COLUMN_COUNT: usize = 1024;
    let Some(first) = groups.first().map(|group| group.first) else {
        return;
    };
    let rows = Chunks::new(out, width);
    let work_count = down.len() / width * BLOCK_COLUMN_COUNT.min(width);
    context
        .pool
        .run(width.div_ceil(BLOCK_COLUMN_COUNT), work_count, &|block| {
            let start = block * BLOCK_COLUMN_COUNT;
            let count = BLOCK_COLUMN_COUNT.min(width - start);
            for group in groups {
                for (index, (row, _)) in group.members.iter().enumerate() {
                    let down = &down[(group.first - first + index) * width + start..][..count];
                    // SAFETY: every block of columns belongs to one task.
                    vector::add(unsafe { rows.part(*row, start, count) }, down);
                }
            }
        });
}

/// The first `count` values of a buffer that keeps its memory; what they are is undefined.
fn resized(values: &mut Vec<f32>, count: usize) -> &mut [f32] {
    if values.len() < count {
        values.resize(count, 0.0);
    }
    &mut values[..count]
}

/// What all experts of an operator compute on.
struct ExpertRows<'a> {
    /// Rows of `width`.
    x: &'a [f32],
    width: usize,
    /// Channels between the projections.
    inner: usize,
    /// `choice_count` routing weights for each row.
    weights: &'a [f32],
    choice_count: usize,
    limit: f32,
    input_group: usize,
}

/// A group with `w1`, `w2` and `w3` of its expert.
type GroupWeights<'a> = (&'a Group, [&'a CpuMatrix; 3]);

/// What lies between the products. Kept, so that memory is not asked for in every step.
#[derive(Default)]
struct Scratch {
    gathered: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    hidden: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Some groups, from their rows of `x` to their rows of `down`, which starts with row `down_first` of all groups' rows.
fn compute(
    context: &Context<'_>,
    rows: &ExpertRows<'_>,
    batch: &[GroupWeights<'_>],
    down_first: usize,
    down: &mut [f32],
) {
    SCRATCH.with_borrow_mut(|scratch| {
        let members: Vec<_> = batch.iter().flat_map(|(group, _)| &group.members).copied().collect();
        gather(context, rows, &members, &mut scratch.gathered);
        gate_and_up(context, rows, batch, &members, scratch);
        project_down(context, rows, batch, &scratch.hidden, down_first, down);
    });
}

/// The activations of `members`.
fn gather(context: &Context<'_>, rows: &ExpertRows<'_>, members: &[(usize, usize)], gathered: &mut Vec<f32>) {
    let width = rows.width;
    let gathered = resized(gathered, members.len() * width);
    context.pool.for_each_chunk(gathered, width, width, |index, out| {
        out.copy_from_slice(&rows.x[members[index].0 * width..][..width]);
    });
}

/// `w2 h` of every row of `hidden`.
fn project_down(
    context: &Context<'_>,
    rows: &ExpertRows<'_>,
    batch: &[GroupWeights<'_>],
    hidden: &[f32],
    down_first: usize,
    down: &mut [f32],
) {
    let ExpertRows {
        width,
        inner,
        input_group,
        ..
    } = *rows;
    let row_count: usize = batch.iter().map(|(group, _)| group.members.len()).sum();
    let hidden = quantise_input(context, &hidden[..row_count * inner], inner, input_group);
    let out = Out::new(down, width);
    let mut first = 0;
    let mut products = Vec::with_capacity(batch.len());
    for (group, [_, w2, _]) in batch {
        products.push(Product {
            matrix: w2,
            first_row: 0,
            row_count: width,
            x: &hidden[first * inner..],
            x_stride: inner,
            x_count: group.members.len(),
            term_count: 1,
            out: out.shifted((group.first - down_first) * width),
        });
        first += group.members.len();
    }
    product::run(context.pool, context.chosen(), &products);
    for (group, _) in batch {
        context.round(&mut down[(group.first - down_first) * width..][..group.members.len() * width]);
    }
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

/// `silu(min(w1 x, limit)) * clamp(w3 x)` of every gathered row, times its routing weight, into `scratch.hidden`.
fn gate_and_up(
    context: &Context<'_>,
    rows: &ExpertRows<'_>,
    batch: &[GroupWeights<'_>],
    members: &[(usize, usize)],
    scratch: &mut Scratch,
) {
    let ExpertRows {
        width, inner, limit, ..
    } = *rows;
    let count = members.len() * inner;
    let (gate, up) = (resized(&mut scratch.gate, count), resized(&mut scratch.up, count));
    let (gate_out, up_out) = (Out::new(gate, inner), Out::new(up, inner));
    let mut first = 0;
    let mut products = Vec::with_capacity(2 * batch.len());
    for (group, [w1, _, w3]) in batch {
        for (matrix, out) in [(w1, gate_out), (w3, up_out)] {
            products.push(Product {
                matrix,
                first_row: 0,
                row_count: inner,
                x: &scratch.gathered[first * width..],
                x_stride: width,
                x_count: group.members.len(),
                term_count: 1,
                out: out.shifted(first * inner),
            });
        }
        first += group.members.len();
    }
    product::run(context.pool, context.chosen(), &products);
    let hidden = resized(&mut scratch.hidden, count);
    context.pool.for_each_chunk(hidden, inner, 16 * inner, |index, hidden| {
        let (gate, up) = (&gate[index * inner..][..inner], &up[index * inner..][..inner]);
        if context.mode == Mode::Fast {
            vector::swiglu(hidden, gate, up, limit);
        } else {
            let official = context.mode == Mode::Official;
            let rounded = |value: f32| if official { bf16::round(value) } else { value };
            for ((hidden, gate), up) in hidden.iter_mut().zip(gate).zip(up) {
                *hidden = clamped_swiglu(rounded(*gate), rounded(*up), limit);
            }
        }
        // The routing weight is multiplied in before the down projection, as in the reference.
        let (row, place) = members[index];
        vector::scale(hidden, rows.weights[row * rows.choice_count + place]);
        context.round(hidden);
    });
}
