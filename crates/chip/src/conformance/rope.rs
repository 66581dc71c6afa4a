//! Cases of the rotary embedding.

use cachalot_numerics::Dtype;
use proptest::prelude::*;

use super::{
    Suite,
    case::{Argument, Case},
    compare::{Expect, floats},
    latent::random_angles,
    row_counts, seeds, suite,
    values::Values,
};
use crate::{Mode, Rope, RopeAngles, RopeDirection, RopeHalves};

pub(super) fn angles() -> Vec<Suite> {
    vec![suite(
        32,
        (row_counts(), 1usize..=40, seeds()),
        |(row_count, pair_count, seed)| {
            let mut values = Values::new(seed);
            let positions: Vec<i32> = (0..row_count)
                .map(|_| (values.bits() >> (values.below(30) + 34)) as i32)
                .collect();
            let frequencies: Vec<f32> = (0..pair_count)
                .map(|i| 10000f32.powf(-(i as f32) / pair_count as f32))
                .collect();
            let shape = [row_count, pair_count, 2];
            // Sine and cosine are at most one.
            let expect = Expect::magnitudes(vec![1.0; row_count]);
            let arguments = vec![
                Argument::i32("positions", &[row_count], &positions).by_row(),
                Argument::f32("frequencies", &[pair_count], &frequencies).weight(),
                Argument::output("out", Dtype::F32, &shape, expect).by_row(),
            ];
            let case = Case::new("", arguments, |loaded| {
                RopeAngles {
                    positions: loaded.tensor("positions"),
                    frequencies: loaded.tensor("frequencies"),
                    out: loaded.tensor("out"),
                }
                .into()
            });
            case.verify(move |_, outputs| {
                for (index, pair) in floats(&outputs["out"]).as_chunks::<2>().0.iter().enumerate() {
                    let (row, i) = (index / pair_count, index % pair_count);
                    let (sin, cos) = f64::from(positions[row] as f32 * frequencies[i]).sin_cos();
                    let is_close = (f64::from(pair[0]) - cos).abs() < 1e-6 && (f64::from(pair[1]) - sin).abs() < 1e-6;
                    if !is_close {
                        return Err(format!("angle {i} of position {}: {pair:?}", positions[row]));
                    }
                }
                Ok(())
            })
        },
    )]
}

pub(super) fn rope() -> Vec<Suite> {
    let directions = prop_oneof![Just(RopeDirection::Forward), Just(RopeDirection::Inverse)];
    let parameters = (row_counts(), 1usize..=6, 1usize..=40, 0usize..=70, directions, seeds());
    vec![suite(
        40,
        parameters,
        |(row_count, heads, pair_count, plain, direction, seed)| {
            let mut values = Values::new(seed);
            let shape = [row_count, heads, plain + 2 * pair_count];
            let x = values.floats(shape.iter().product(), 1.0);
            let angles: Vec<f32> = (0..row_count * pair_count)
                .flat_map(|_| {
                    let (sin, cos) = (values.signed() * 3.0).sin_cos();
                    [cos, sin]
                })
                .collect();
            let arguments = vec![
                Argument::f32("x", &shape, &x)
                    .by_row()
                    .last_free()
                    .in_place(Expect::FLOATS),
                Argument::f32("angles", &[row_count, pair_count, 2], &angles).by_row(),
            ];
            let case = Case::new(format!("{direction:?}"), arguments, move |loaded| {
                Rope {
                    x: loaded.tensor("x"),
                    angles: loaded.tensor("angles"),
                    direction,
                }
                .into()
            });
            case.verify(move |_, outputs| {
                let width = plain + 2 * pair_count;
                for (index, (found, x)) in floats(&outputs["x"]).iter().zip(&x).enumerate() {
                    if index % width < plain && found != x {
                        return Err(format!("channel {} is not rotary but changed", index % width));
                    }
                }
                Ok(())
            })
        },
    )]
}

pub(super) fn halves() -> Vec<Suite> {
    let parameters = (row_counts(), 1usize..=6, 1usize..=40, 0usize..=70, seeds());
    vec![suite(32, parameters, |(row_count, heads, pair_count, plain, seed)| {
        let mut values = Values::new(seed);
        let width = plain + 2 * pair_count;
        let shape = [row_count, heads, width];
        let x = values.floats(shape.iter().product(), 1.0);
        let angles = random_angles(&mut values, row_count * pair_count);
        let arguments = vec![
            Argument::f32("x", &shape, &x)
                .by_row()
                .last_free()
                .in_place(Expect::FLOATS),
            Argument::f32("angles", &[row_count, pair_count, 2], &angles).by_row(),
        ];
        let case = Case::new("", arguments, move |loaded| {
            RopeHalves {
                x: loaded.tensor("x"),
                angles: loaded.tensor("angles"),
            }
            .into()
        });
        case.verify(move |mode, outputs| {
            let found = floats(&outputs["x"]);
            let tolerance = if mode == Mode::Official { 0.008 } else { 1e-6 };
            for (head, (found, x)) in found.chunks_exact(width).zip(x.chunks_exact(width)).enumerate() {
                if found[2 * pair_count..] != x[2 * pair_count..] {
                    return Err(format!("channels of head {head} that are not rotary changed"));
                }
                for pair in 0..pair_count {
                    let angle = 2 * (head / heads * pair_count + pair);
                    let (cos, sin) = (angles[angle], angles[angle + 1]);
                    let (a, b) = (x[pair], x[pair + pair_count]);
                    let expected = [a * cos - b * sin, a * sin + b * cos];
                    let size = a.abs() + b.abs();
                    for (found, expected) in [found[pair], found[pair + pair_count]].into_iter().zip(expected) {
                        let is_close = (found - expected).abs() <= tolerance * size;
                        if !is_close {
                            return Err(format!("head {head}, pair {pair}: {found:e}, expected {expected:e}"));
                        }
                    }
                }
            }
            Ok(())
        })
    })]
}
