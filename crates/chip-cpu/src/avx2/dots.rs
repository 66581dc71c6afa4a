//! Dot products of many vectors with many vectors, all `f32`.

#![expect(
    clippy::needless_range_loop,
    reason = "closures of adaptors are not reliably inlined with target features"
)]

use std::arch::x86_64::*;

use super::{
    product::add_lanes,
    stored::{LANES, load_partial},
};
use crate::vector::Vectors;

/// `out[i * out_stride + j] = a_i . b_j`; the order of a sum depends on the width only.
#[target_feature(enable = "avx2,fma")]
pub(super) fn dots(a: Vectors<'_>, b: Vectors<'_>, width: usize, out: &mut [f32], out_stride: usize) {
    assert!(a.holds(width) && b.holds(width), "vectors in range");
    let mut j = 0;
    while j < b.count {
        let x_count = (b.count - j).min(3);
        let mut i = 0;
        while i < a.count {
            let rows = if a.count - i >= 4 { 4 } else { 1 };
            let (a_at, b_at) = (&a.values[i * a.stride..], &b.values[j * b.stride..]);
            let out = &mut out[i * out_stride + j..];
            // SAFETY: `rows` and `x_count` vectors are left, each `width` long, as asserted.
            unsafe {
                match (rows, x_count) {
                    (4, 1) => tile::<4, 1>(
                        [a_at.as_ptr(), b_at.as_ptr()],
                        [a.stride, b.stride],
                        width,
                        out,
                        out_stride,
                    ),
                    (4, 2) => tile::<4, 2>(
                        [a_at.as_ptr(), b_at.as_ptr()],
                        [a.stride, b.stride],
                        width,
                        out,
                        out_stride,
                    ),
                    (4, _) => tile::<4, 3>(
                        [a_at.as_ptr(), b_at.as_ptr()],
                        [a.stride, b.stride],
                        width,
                        out,
                        out_stride,
                    ),
                    (_, 1) => tile::<1, 1>(
                        [a_at.as_ptr(), b_at.as_ptr()],
                        [a.stride, b.stride],
                        width,
                        out,
                        out_stride,
                    ),
                    (_, 2) => tile::<1, 2>(
                        [a_at.as_ptr(), b_at.as_ptr()],
                        [a.stride, b.stride],
                        width,
                        out,
                        out_stride,
                    ),
                    _ => tile::<1, 3>(
                        [a_at.as_ptr(), b_at.as_ptr()],
                        [a.stride, b.stride],
                        width,
                        out,
                        out_stride,
                    ),
                }
            }
            i += rows;
        }
        j += x_count;
    }
}

/// # Safety
/// AVX2 and FMA; `A` and `B` vectors of `width` values at the pointers, `strides` apart.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const A: usize, const B: usize>(
    [a, b]: [*const f32; 2],
    [a_stride, b_stride]: [usize; 2],
    width: usize,
    out: &mut [f32],
    out_stride: usize,
) {
    let mut sums = [[_mm256_setzero_ps(); B]; A];
    let mut lanes = [_mm256_setzero_ps(); B];
    let whole = width / LANES * LANES;
    // SAFETY: inside the vectors.
    unsafe {
        let mut index = 0;
        while index < whole {
            for j in 0..B {
                lanes[j] = _mm256_loadu_ps(b.add(j * b_stride + index));
            }
            for i in 0..A {
                let a = _mm256_loadu_ps(a.add(i * a_stride + index));
                for j in 0..B {
                    sums[i][j] = _mm256_fmadd_ps(a, lanes[j], sums[i][j]);
                }
            }
            index += LANES;
        }
        if whole < width {
            for j in 0..B {
                lanes[j] = load_partial(b.add(j * b_stride + whole), width - whole);
            }
            for i in 0..A {
                let a = load_partial(a.add(i * a_stride + whole), width - whole);
                for j in 0..B {
                    sums[i][j] = _mm256_fmadd_ps(a, lanes[j], sums[i][j]);
                }
            }
        }
    }
    for i in 0..A {
        for j in 0..B {
            out[i * out_stride + j] = add_lanes(sums[i][j]);
        }
    }
}
