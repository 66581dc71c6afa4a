//! Cases of the matrix products.

use bytes::Bytes;
use cachalot_numerics::{Dtype, MatrixFormat, decode_matrix};
use proptest::prelude::*;

use super::{
    Suite,
    case::{Argument, Case},
    compare::{Expect, floats},
    row_counts, seeds, suite,
    values::{FORMATS, Values},
    widths,
};
use crate::{GroupedLinear, Linear, LinearRounding, MatrixSource, Mode};

pub(super) fn linear() -> Vec<Suite> {
    let roundings = prop_oneof![
        Just(LinearRounding::QuantisedInput),
        Just(LinearRounding::FineQuantisedInput),
        Just(LinearRounding::Bf16),
        Just(LinearRounding::F32)
    ];
    let mut suites = Vec::new();
    for format in FORMATS {
        let parameters = (row_counts(), widths(), widths(), roundings.clone(), seeds());
        suites.push(suite(
            14,
            parameters,
            move |(row_count, outputs, columns, rounding, seed)| {
                let mut values = Values::new(seed);
                let matrix = values.matrix(outputs, columns, format);
                let x = values.floats(row_count * columns, 1.0);
                linear_case(row_count, matrix, &x, rounding)
            },
        ));
        suites.push(suite(2, seeds(), move |seed| identity_case(format, seed)));
    }
    suites
}

fn linear_case(row_count: usize, matrix: MatrixSource, x: &[f32], rounding: LinearRounding) -> Case {
    let (outputs, columns) = (matrix.rows, matrix.columns);
    let magnitudes = product_magnitudes(&matrix, x, row_count);
    let arguments = vec![
        Argument::f32("x", &[row_count, columns], x).by_row(),
        Argument::output("out", Dtype::F32, &[row_count, outputs], Expect::magnitudes(magnitudes)).by_row(),
    ];
    let case = Case::new(format!("{rounding:?}"), arguments, move |loaded| {
        Linear {
            x: loaded.tensor("x"),
            weight: loaded.matrix("weight"),
            rounding,
            out: loaded.tensor("out"),
        }
        .into()
    });
    case.matrix("weight", matrix)
}

/// For every row of `x` the typical size of its products: `|x| |w| / sqrt(columns)` with the longest weight row.
pub(super) fn product_magnitudes(matrix: &MatrixSource, x: &[f32], row_count: usize) -> Vec<f32> {
    let length = |values: &[f32]| values.iter().map(|value| value * value).sum::<f32>().sqrt();
    let weights = decode_matrix(
        matrix.format,
        &matrix.weights,
        &matrix.scales,
        matrix.rows,
        matrix.columns,
    );
    let rows = weights.chunks_exact(matrix.columns);
    let longest = rows.map(length).fold(0.0, f32::max) / (matrix.columns as f32).sqrt();
    let width = x.len() / row_count.max(1);
    (0..row_count)
        .map(|row| length(&x[row * width..][..width]) * longest)
        .collect()
}

/// The product with unit vectors, which gives back every weight: all codes of a format, decoded exactly.
fn identity_case(format: MatrixFormat, seed: u64) -> Case {
    const COLUMNS: usize = 160;
    let mut values = Values::new(seed);
    let mut matrix = values.matrix(7, COLUMNS, format);
    if let MatrixFormat::Fp8Block { .. } | MatrixFormat::Fp4Group { .. } | MatrixFormat::Integer(_) = format {
        // All codes in a row; those of NaN become zero.
        let codes = (0..matrix.weights.len()).map(|index| index as u8);
        let is_fp8 = format.dtype() == Dtype::F8E4m3;
        let codes = codes.map(|code| if is_fp8 && code & 0x7F == 0x7F { 0 } else { code });
        matrix.weights = codes.collect::<Bytes>();
    }
    let weights = decode_matrix(format, &matrix.weights, &matrix.scales, 7, COLUMNS);
    let mut x = vec![0.0; COLUMNS * COLUMNS];
    x.iter_mut().step_by(COLUMNS + 1).for_each(|value| *value = 1.0);
    let case = linear_case(COLUMNS, matrix, &x, LinearRounding::F32);
    case.verify(move |mode, outputs| {
        if mode == Mode::Official {
            return Ok(());
        }
        for (index, found) in floats(&outputs["out"]).iter().enumerate() {
            let (column, row) = (index / 7, index % 7);
            let expected = weights[row * COLUMNS + column];
            if *found != expected {
                return Err(format!(
                    "weight [{row}, {column}] decodes to {found:e} instead of {expected:e}"
                ));
            }
        }
        Ok(())
    })
}

pub(super) fn grouped_linear() -> Vec<Suite> {
    let groups = prop_oneof![Just(1usize), Just(2usize), Just(3usize), Just(8usize)];
    let parameters = move || (row_counts(), groups.clone(), 1usize..=40, widths(), seeds());
    FORMATS
        .map(|format| suite(8, parameters(), grouped_case(format)))
        .into()
}

fn grouped_case(format: MatrixFormat) -> impl Fn((usize, usize, usize, usize, u64)) -> Case {
    move |(row_count, group_count, group_outputs, columns, seed)| {
        let mut values = Values::new(seed);
        let outputs = group_count * group_outputs;
        let matrix = values.matrix(outputs, columns, format);
        let x = values.floats(row_count * group_count * columns, 1.0);
        let magnitudes = product_magnitudes(&matrix, &x, row_count);
        let arguments = vec![
            Argument::f32("x", &[row_count, group_count, columns], &x).by_row(),
            Argument::output("out", Dtype::F32, &[row_count, outputs], Expect::magnitudes(magnitudes)).by_row(),
        ];
        let case = Case::new("", arguments, |loaded| {
            GroupedLinear {
                x: loaded.tensor("x"),
                weight: loaded.matrix("weight"),
                out: loaded.tensor("out"),
            }
            .into()
        });
        case.matrix("weight", matrix)
    }
}
