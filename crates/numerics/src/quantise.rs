//! Rounding of values to scaled groups: activations, KV rows, index keys.

use crate::{e2m1, e4m3, e8m0};

/// Smallest absolute maximum that the FP8 kernels of DeepSeek V4 assume for a group.
pub const FP8_ABSOLUTE_MAX_FLOOR: f32 = 1e-4;

/// The E8M0 scale code of a group to be stored as e4m3: `2^ceil(log2(max(|x|, 1e-4) / 448))`.
///
/// The division is a product with `fp32(1/448)`, as in the reference.
#[inline]
pub fn fp8_scale(group: &[f32]) -> u8 {
    let absolute_max = absolute_max(group).max(FP8_ABSOLUTE_MAX_FLOOR);
    e8m0::encode_ceil(absolute_max * (1.0 / 448.0))
}

/// The E8M0 scale code of a group to be stored as e2m1: `2^ceil(log2(max(|x|, 6 * 2^-126) / 6))`.
#[inline]
pub fn fp4_scale(group: &[f32]) -> u8 {
    let floor = 6.0 * f32::MIN_POSITIVE;
    e8m0::encode_ceil(absolute_max(group).max(floor) / 6.0)
}

/// Rounds one group in place as FP8 with a power-of-two scale would store it.
pub fn round_fp8_group(group: &mut [f32]) {
    let scale = e8m0::decode(fp8_scale(group));
    // The scale is a power of two, so dividing equals multiplying by its inverse.
    let inverse = scale.recip();
    group
        .iter_mut()
        .for_each(|value| *value = e4m3::round(*value * inverse) * scale);
}

/// Rounds `values` in place, group by group; the last group may be shorter.
pub fn round_fp8(values: &mut [f32], group: usize) {
    values.chunks_mut(group).for_each(round_fp8_group);
}

/// Rounds `values` in place as FP4 with one power-of-two scale for each `group` values.
pub fn round_fp4(values: &mut [f32], group: usize) {
    for group in values.chunks_mut(group) {
        let scale = e8m0::decode(fp4_scale(group));
        group
            .iter_mut()
            .for_each(|value| *value = e2m1::round(*value / scale) * scale);
    }
}

/// Stores `values` as e4m3 codes and one E8M0 code for each group.
///
/// # Panics
/// If `codes` or `scales` is shorter than needed.
pub fn encode_fp8(values: &[f32], group: usize, codes: &mut [u8], scales: &mut [u8]) {
    let groups = values.chunks(group).zip(codes.chunks_mut(group));
    for ((values, codes), scale_code) in groups.zip(scales) {
        *scale_code = fp8_scale(values);
        let inverse = e8m0::decode(*scale_code).recip();
        for (code, value) in codes.iter_mut().zip(values) {
            *code = e4m3::encode(*value * inverse);
        }
    }
}

/// Stores `values` (an even count) as packed e2m1 codes and one E8M0 code for each group.
///
/// # Panics
/// If `codes` or `scales` is shorter than needed, or `group` is odd.
pub fn encode_fp4(values: &[f32], group: usize, codes: &mut [u8], scales: &mut [u8]) {
    assert!(group.is_multiple_of(2), "FP4 groups hold pairs");
    let groups = values.chunks(group).zip(codes.chunks_mut(group / 2));
    for ((values, codes), scale_code) in groups.zip(scales) {
        *scale_code = fp4_scale(values);
        let scale = e8m0::decode(*scale_code);
        for (code, pair) in codes.iter_mut().zip(values.chunks(2)) {
            *code = e2m1::encode_pair(pair[0] / scale, pair.get(1).copied().unwrap_or(0.0) / scale);
        }
    }
}

/// The e4m3 scale code of a group to be stored as e2m1: `e4m3(max(max|x|, 6 * 2^-9) / 6)`.
#[inline]
pub fn fp4_fine_scale(group: &[f32]) -> u8 {
    const FLOOR: f32 = 6.0 / 512.0;
    e4m3::encode(absolute_max(group).max(FLOOR) / 6.0)
}

/// Stores `values` (an even count) as packed e2m1 codes and one e4m3 code for each group.
///
/// # Panics
/// If `codes` or `scales` is shorter than needed, or `group` is odd.
pub fn encode_fp4_fine(values: &[f32], group: usize, codes: &mut [u8], scales: &mut [u8]) {
    assert!(group.is_multiple_of(2), "FP4 groups hold pairs");
    let groups = values.chunks(group).zip(codes.chunks_mut(group / 2));
    for ((values, codes), scale_code) in groups.zip(scales) {
        *scale_code = fp4_fine_scale(values);
        let scale = e4m3::decode(*scale_code);
        for (code, pair) in codes.iter_mut().zip(values.chunks(2)) {
            *code = e2m1::encode_pair(pair[0] / scale, pair.get(1).copied().unwrap_or(0.0) / scale);
        }
    }
}

fn absolute_max(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |max: f32, value| max.max(value.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storing_and_rounding_agree() {
        let values: Vec<f32> = (0..128).map(|i| ((i * 73 % 211) as f32 - 105.0) * 1.7e-3).collect();
        let (mut codes, mut scales) = (vec![0u8; 128], vec![0u8; 2]);
        encode_fp8(&values, 64, &mut codes, &mut scales);
        let mut rounded = values.clone();
        round_fp8(&mut rounded, 64);
        for i in 0..128 {
            assert_eq!(e4m3::decode(codes[i]) * e8m0::decode(scales[i / 64]), rounded[i]);
        }
        let (mut codes, mut scales) = (vec![0u8; 64], vec![0u8; 4]);
        encode_fp4(&values, 32, &mut codes, &mut scales);
        let mut rounded = values.clone();
        round_fp4(&mut rounded, 32);
        for i in 0..128 {
            let pair = e2m1::decode_pair(codes[i / 2]);
            assert_eq!(pair[i % 2] * e8m0::decode(scales[i / 32]), rounded[i]);
        }
    }

    #[test]
    fn rounding_twice_changes_nothing() {
        let mut values: Vec<f32> = (0..64).map(|i| (i as f32 - 31.0).powi(3) * 0.01).collect();
        round_fp8(&mut values, 64);
        let once = values.clone();
        round_fp8(&mut values, 64);
        assert_eq!(values, once);
    }

    #[test]
    fn groups_of_zeros_stay_zero() {
        let mut values = vec![0.0; 64];
        round_fp8(&mut values, 64);
        round_fp4(&mut values, 32);
        assert!(values.iter().all(|value| *value == 0.0));
    }
}
