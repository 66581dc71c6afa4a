//! From any weights to the low-bit formats of [`crate::integer`], with the scale that errs least.
//!
//! For each group of 32 weights all scales between the one that just reaches the largest weight and one that cuts it
//! off are tried, with both signs, and the one with the smallest sum of squared errors stays. Scales have four values
//! an octave, so ten trials are a full search.

use crate::integer::{GROUP, IntegerWidth, decode_scale};

/// Scale codes of one octave.
const CODES_PER_OCTAVE: u8 = 4;

/// Stores one row of weights as codes and scales; whether all fit in the format's range.
///
/// Finite weights of any size give codes; `false` says that some are larger than the largest scale allows and were cut
/// off. The result is the same on every machine.
///
/// # Panics
/// If the lengths do not fit the row: `codes` has [`IntegerWidth::row_byte_count`] bytes, `scales` one for each group
/// of 32 weights, and `weights` are whole groups.
pub fn encode_row(width: IntegerWidth, weights: &[f32], codes: &mut [u8], scales: &mut [u8]) -> bool {
    let (groups, rest) = weights.as_chunks::<GROUP>();
    assert!(rest.is_empty(), "whole groups of {GROUP}");
    assert_eq!(codes.len(), width.row_byte_count(weights.len()), "a row of codes");
    assert_eq!(scales.len(), groups.len(), "one scale for each group");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { encode_groups_avx2(width, groups, codes, scales) };
    }
    encode_groups(width, groups, codes, scales)
}

/// The same code for wider registers: the compiler never fuses or reorders floating-point operations, so both give the
/// same bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn encode_groups_avx2(width: IntegerWidth, groups: &[[f32; GROUP]], codes: &mut [u8], scales: &mut [u8]) -> bool {
    encode_groups(width, groups, codes, scales)
}

#[inline(always)]
fn encode_groups(width: IntegerWidth, groups: &[[f32; GROUP]], codes: &mut [u8], scales: &mut [u8]) -> bool {
    let group_byte_count = width.row_byte_count(GROUP);
    let mut all_fit = true;
    for ((weights, codes), scale) in groups.iter().zip(codes.chunks_exact_mut(group_byte_count)).zip(scales) {
        let (best, fits) = best_scale(width, weights);
        all_fit &= fits;
        *scale = best;
        let integers = integers(width, weights, best);
        pack(width, &integers, codes);
    }
    all_fit
}

/// The scale code with the smallest error, and whether the largest weight is in its range.
#[inline(always)]
fn best_scale(width: IntegerWidth, weights: &[f32; GROUP]) -> (u8, bool) {
    let largest = largest(weights);
    let (reach, fits) = reaching_scale(width, largest);
    let (step, trials, signs): (u8, u8, &[u8]) = match width {
        // Down to half of what reaches the largest weight: fewer integers cannot be worth a finer step.
        IntegerWidth::Int4 => (1, 5, &[0, 0x80]),
        IntegerWidth::Int6 => (1, 3, &[0, 0x80]),
        IntegerWidth::Int8 => (CODES_PER_OCTAVE, 2, &[0]),
    };
    let mut best = (f32::INFINITY, reach);
    for trial in 0..trials {
        let Some(magnitude) = reach.checked_sub(trial * step) else {
            break;
        };
        for sign in signs {
            let error = squared_error(width, weights, magnitude | sign);
            if error < best.0 {
                best = (error, magnitude | sign);
            }
        }
    }
    (best.1, fits)
}

/// Lanes in which sums and maxima are kept until a group ends. Written as loops over arrays: closures are not reliably
/// inlined into functions with target features, and then nothing becomes vector instructions.
const LANES: usize = 8;

#[inline(always)]
fn largest(weights: &[f32; GROUP]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for block in weights.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            let magnitude = block[lane].abs();
            lanes[lane] = if magnitude > lanes[lane] {
                magnitude
            } else {
                lanes[lane]
            };
        }
    }
    let mut largest = 0.0;
    for lane in lanes {
        largest = if lane > largest { lane } else { largest };
    }
    largest
}

/// The smallest positive scale under which `largest` is no larger than the largest integer of either sign.
#[inline(always)]
fn reaching_scale(width: IntegerWidth, largest: f32) -> (u8, bool) {
    let wanted = largest / f32::from(width.offset() - 1);
    // The bits of positive floats ascend with them, and a scale code is the upper bits of one.
    let lowest = decode_scale(0).to_bits();
    let code = (wanted.to_bits().max(lowest) - lowest).div_ceil(1 << 21);
    let code = match width {
        IntegerWidth::Int8 => code.next_multiple_of(u32::from(CODES_PER_OCTAVE)),
        _ => code,
    };
    let highest = match width {
        IntegerWidth::Int8 => 0x80 - u32::from(CODES_PER_OCTAVE),
        _ => 0x7F,
    };
    (code.min(highest) as u8, code <= highest)
}

/// Added and subtracted again it rounds an `f32` below 2^22 to the nearest integer, ties to even. Its lowest byte is
/// zero.
const ROUNDER: f32 = 1.5 * (1 << 23) as f32;

/// The nearest integer to `weight / scale` within the limits, plus [`ROUNDER`].
#[inline(always)]
fn biased(weight: f32, inverse: f32, limits: [f32; 2]) -> f32 {
    let exact = weight * inverse;
    // Cut off before rounding, so that the sum stays in range.
    let above = if exact > limits[0] { exact } else { limits[0] };
    let cut = if above < limits[1] { above } else { limits[1] };
    cut + ROUNDER
}

#[inline(always)]
fn limits(width: IntegerWidth) -> [f32; 2] {
    let offset = f32::from(width.offset());
    [-offset, offset - 1.0]
}

#[inline(always)]
fn squared_error(width: IntegerWidth, weights: &[f32; GROUP], scale_code: u8) -> f32 {
    let (scale, limits) = (decode_scale(scale_code), limits(width));
    let inverse = scale.recip();
    let mut squares = [0.0f32; GROUP];
    for (square, weight) in squares.iter_mut().zip(weights) {
        let error = (biased(*weight, inverse, limits) - ROUNDER) * scale - weight;
        *square = error * error;
    }
    // By halves: one after the other the sums would take as long as all the rest.
    let mut half = GROUP / 2;
    while half > 0 {
        for lane in 0..half {
            squares[lane] += squares[lane + half];
        }
        half /= 2;
    }
    squares[0]
}

/// Codes, one a byte.
#[inline(always)]
fn integers(width: IntegerWidth, weights: &[f32; GROUP], scale_code: u8) -> [u8; GROUP] {
    let (inverse, limits) = (decode_scale(scale_code).recip(), limits(width));
    let mut codes = [0; GROUP];
    for (code, weight) in codes.iter_mut().zip(weights) {
        // The lowest byte of the sum's bits is that of the integer.
        *code = (biased(*weight, inverse, limits).to_bits() as u8).wrapping_add(width.offset());
    }
    codes
}

#[inline(always)]
fn pack(width: IntegerWidth, codes: &[u8; GROUP], out: &mut [u8]) {
    match width {
        IntegerWidth::Int4 => {
            for (byte, [low, high]) in out.iter_mut().zip(codes.as_chunks::<2>().0) {
                *byte = low | high << 4;
            }
        }
        IntegerWidth::Int6 => {
            for (bytes, [a, b, c, d]) in out.as_chunks_mut::<3>().0.iter_mut().zip(codes.as_chunks::<4>().0) {
                *bytes = [a | b << 6, b >> 2 | c << 4, c >> 4 | d << 2];
            }
        }
        IntegerWidth::Int8 => out.copy_from_slice(codes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_format_holds_comes_back() {
        for width in IntegerWidth::ALL {
            // All integers of int4 and as many of the others, times a scale that all widths have.
            let weights: Vec<f32> = (0..64).map(|i| ((i * 5) % 16 - 8) as f32 * 0.25).collect();
            let (mut codes, mut scales) = (vec![0; width.row_byte_count(64)], vec![0; 2]);
            assert!(encode_row(width, &weights, &mut codes, &mut scales));
            let mut back = vec![0.0; 64];
            width.decode_row(&codes, &scales, &mut back);
            assert_eq!(back, weights, "{width}");
        }
    }

    #[test]
    fn both_signs_of_the_largest_weight_are_served() {
        // -8 to 7 reaches 8 with a scale below zero.
        for largest in [8.0, -8.0] {
            let mut weights = [0.0; GROUP];
            (weights[0], weights[1]) = (largest, -largest / 8.0);
            let (mut codes, mut scales) = ([0; 16], [0]);
            encode_row(IntegerWidth::Int4, &weights, &mut codes, &mut scales);
            assert_eq!(decode_scale(scales[0]), -largest / 8.0);
        }
    }

    #[test]
    fn weights_out_of_range_are_told() {
        for width in IntegerWidth::ALL {
            let (mut codes, mut scales) = (vec![0; width.row_byte_count(GROUP)], [0]);
            for (weight, fits) in [(0.0, true), (1e-30, true), (400.0, true), (1e30, false)] {
                let found = encode_row(width, &[weight; GROUP], &mut codes, &mut scales);
                assert_eq!(found, fits, "{width}: {weight}");
                assert!(width.has_scale(scales[0]));
            }
        }
    }
}
