//! Packed KV rows and index keys as `f32`, exactly.

use std::arch::x86_64::*;

use cachalot_chip::RowFormat;
use cachalot_numerics::{e2m1, e4m3, e8m0};

use super::stored::{LANES, decode_bf16, decode_fp4, decode_fp8, fp4_magnitudes, fp8_factor};
use crate::operators::Packing;

/// Unpacks a row; false where the portable code has to (plain `f32`, or widths that are no whole vectors).
#[target_feature(enable = "avx2,f16c")]
pub(super) fn unpack(packing: &Packing, row: &[u8], out: &mut [f32]) -> bool {
    let (width, plain) = (packing.width, packing.width - packing.tail);
    assert!(
        row.len() == packing.row_byte_count() && out.len() == width,
        "a whole row"
    );
    let is_whole = width.is_multiple_of(LANES) && packing.tail.is_multiple_of(LANES);
    if !is_whole {
        return false;
    }
    match packing.format {
        RowFormat::F32 => return false,
        RowFormat::Fp4Fine => {
            let (codes, scales) = row.split_at(width / 2);
            let groups = out
                .chunks_mut(RowFormat::FP4_FINE_GROUP)
                .zip(codes.chunks(RowFormat::FP4_FINE_GROUP / 2));
            for ((out, codes), scale) in groups.zip(scales) {
                // SAFETY: four bytes and eight values a step.
                unsafe {
                    let factor = _mm256_set1_ps(e4m3::decode(*scale));
                    let magnitudes = _mm256_mul_ps(_mm256_loadu_ps(e2m1::VALUES.as_ptr()), factor);
                    for (out, codes) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(codes.as_chunks::<4>().0) {
                        _mm256_storeu_ps(out.as_mut_ptr(), decode_fp4(codes.as_ptr(), magnitudes));
                    }
                }
            }
        }
        RowFormat::Bf16 => unpack_bf16(row, out),
        RowFormat::Fp8Tail => {
            let (plain_out, tail_out) = out.split_at_mut(plain);
            let (codes, rest) = row.split_at(plain);
            let (tail_codes, scales) = rest.split_at(2 * packing.tail);
            unpack_fp8(codes, scales, RowFormat::FP8_GROUP, plain_out);
            unpack_bf16(tail_codes, tail_out);
        }
        RowFormat::Fp8 => {
            let (codes, scales) = row.split_at(width);
            unpack_fp8(codes, scales, RowFormat::FP8_SMALL_GROUP, out);
        }
        RowFormat::Fp4Hadamard | RowFormat::Fp4 => {
            let (codes, scales) = row.split_at(width / 2);
            let groups = out
                .chunks_mut(RowFormat::FP4_GROUP)
                .zip(codes.chunks(RowFormat::FP4_GROUP / 2));
            for ((out, codes), scale) in groups.zip(scales) {
                // SAFETY: four bytes and eight values a step.
                unsafe {
                    let magnitudes = fp4_magnitudes(*scale);
                    for (out, codes) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(codes.as_chunks::<4>().0) {
                        _mm256_storeu_ps(out.as_mut_ptr(), decode_fp4(codes.as_ptr(), magnitudes));
                    }
                }
            }
        }
    }
    true
}

/// Codes with a scale for each `group` of them.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn unpack_fp8(codes: &[u8], scales: &[u8], group: usize, out: &mut [f32]) {
    for ((out, codes), scale) in out.chunks_mut(group).zip(codes.chunks(group)).zip(scales) {
        // SAFETY: eight codes and eight values a step.
        unsafe {
            let factor = fp8_factor(e8m0::decode(*scale));
            for (out, codes) in out
                .as_chunks_mut::<LANES>()
                .0
                .iter_mut()
                .zip(codes.as_chunks::<LANES>().0)
            {
                _mm256_storeu_ps(out.as_mut_ptr(), _mm256_mul_ps(decode_fp8(codes.as_ptr()), factor));
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn unpack_bf16(codes: &[u8], out: &mut [f32]) {
    for (out, codes) in out
        .as_chunks_mut::<LANES>()
        .0
        .iter_mut()
        .zip(codes.as_chunks::<{ 2 * LANES }>().0)
    {
        // SAFETY: eight codes and eight values.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), decode_bf16(codes.as_ptr())) };
    }
}
