//! Matrix products with a weight.

use std::borrow::Cow;

use cachalot_chip::{Error, GroupedLinear, Linear, LinearRounding, Mode};
use cachalot_numerics::quantise;

use super::Context;
use crate::{
    memory::CpuMatrix,
    product::{self, Out, Product},
};

/// Channels that share an activation scale in V3 and V4.
const ACTIVATION_GROUP: usize = 128;
/// The same in V4.1.
const FINE_ACTIVATION_GROUP: usize = 32;

pub(super) fn linear(context: &Context<'_>, operation: &Linear<'_>) -> Result<(), Error> {
    let matrix = CpuMatrix::of(operation.weight)?;
    let x_count = operation.x.shape()[0];
    let x = context.access.f32("x", operation.x)?;
    let out = context.access.f32_mut("out", operation.out)?;
    let x = match operation.rounding {
        LinearRounding::QuantisedInput => quantise_input(context, x, matrix.columns, ACTIVATION_GROUP),
        LinearRounding::FineQuantisedInput => quantise_input(context, x, matrix.columns, FINE_ACTIVATION_GROUP),
        LinearRounding::Bf16 | LinearRounding::F32 => Cow::Borrowed(x),
    };
    let product = Product {
        matrix,
        first_row: 0,
        row_count: matrix.rows,
        x: &x,
        x_stride: matrix.columns,
        x_count,
        term_count: match operation.rounding {
            // The official mode keeps 4 bits.
            LinearRounding::QuantisedInput | LinearRounding::FineQuantisedInput => 1,
            LinearRounding::Bf16 | LinearRounding::F32 => 2,
        },
        out: Out::new(out, matrix.rows),
    };
    product::run(context.pool, context.chosen(), &[product]);
    if operation.rounding != LinearRounding::F32 {
        context.round(out);
    }
    Ok(())
}

pub(super) fn grouped_linear(context: &Context<'_>, operation: &GroupedLinear<'_>) -> Result<(), Error> {
    let matrix = CpuMatrix::of(operation.weight)?;
    let [x_count, group_count] = [operation.x.shape()[0], operation.x.shape()[1]];
    let x = context.access.f32("x", operation.x)?;
    let out = context.access.f32_mut("out", operation.out)?;
    let row_count = matrix.rows / group_count;
    if x_count > 0 {
        let all = Out::new(out, matrix.rows);
        let products: Vec<_> = (0..group_count)
            .map(|group| Product {
                matrix,
                first_row: group * row_count,
                row_count,
                x: &x[group * matrix.columns..],
                x_stride: group_count * matrix.columns,
                x_count,
                term_count: 1,
                out: all.shifted(group * row_count),
            })
            .collect();
        product::run(context.pool, context.chosen(), &products);
    }
    context.round(out);
    Ok(())
}

/// In official mode the activations rounded to FP8, row by row in groups of `group` channels; else as they are.
pub(super) fn quantise_input<'x>(context: &Context<'_>, x: &'x [f32], width: usize, group: usize) -> Cow<'x, [f32]> {
    if context.mode != Mode::Official {
        return Cow::Borrowed(x);
    }
    let mut rounded = x.to_vec();
    rounded
        .chunks_exact_mut(width)
        .for_each(|row| quantise::round_fp8(row, group));
    Cow::Owned(rounded)
}
