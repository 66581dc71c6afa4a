//! Sums and products of `f32` slices in a fixed order, so that a row's result depends on nothing but the row.

use crate::kernels::Chosen;

const LANES: usize = 16;

/// Vectors that start `stride` values apart.
#[derive(Clone, Copy)]
pub(crate) struct Vectors<'a> {
    pub values: &'a [f32],
    pub stride: usize,
    pub count: usize,
}

impl<'a> Vectors<'a> {
    /// Vectors of `width` values, one after the other.
    pub fn new(values: &'a [f32], width: usize) -> Self {
        Vectors {
            values,
            stride: width,
            count: values.len() / width.max(1),
        }
    }

    /// Whether all vectors have `width` values.
    pub fn holds(&self, width: usize) -> bool {
        self.count == 0 || (self.count - 1) * self.stride + width <= self.values.len()
    }
}

/// `out[i * out_stride + j] = a_i . b_j`. The order of a sum depends on the width only.
///
/// # Panics
/// If a vector or an output is out of range.
pub(crate) fn cross_dots(
    kernels: Chosen,
    a: Vectors<'_>,
    b: Vectors<'_>,
    width: usize,
    out: &mut [f32],
    out_stride: usize,
) {
    assert!(a.holds(width) && b.holds(width), "vectors in range");
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = kernels.avx2() {
        return avx2.dots(a, b, width, out, out_stride);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let Chosen {} = kernels;
    for i in 0..a.count {
        for j in 0..b.count {
            let (a, b) = (&a.values[i * a.stride..][..width], &b.values[j * b.stride..][..width]);
            out[i * out_stride + j] = dot(a, b);
        }
    }
}

/// `sum_i a_i * b_i`, in 16 lanes that are added pairwise at the end.
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "dot product of slices of different lengths");
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        add_products(&mut lanes, a, b);
    }
    finish(lanes, a_rest, b_rest)
}

/// [`dot`] of four slices with one other: the same bits, fewer loads.
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
pub(crate) fn dot_four(a: [&[f32]; 4], b: &[f32]) -> [f32; 4] {
    assert!(
        a.iter().all(|a| a.len() == b.len()),
        "dot products of slices of different lengths"
    );
    let [a0, a1, a2, a3] = a.map(|a| a.as_chunks::<LANES>().0);
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    // Written out: lanes in an array of arrays stay in memory.
    let [mut lanes0, mut lanes1, mut lanes2, mut lanes3] = [[0.0; LANES]; 4];
    for ((((a0, a1), a2), a3), b) in a0.iter().zip(a1).zip(a2).zip(a3).zip(b_blocks) {
        add_products(&mut lanes0, a0, b);
        add_products(&mut lanes1, a1, b);
        add_products(&mut lanes2, a2, b);
        add_products(&mut lanes3, a3, b);
    }
    let [rest0, rest1, rest2, rest3] = a.map(|a| a.as_chunks::<LANES>().1);
    [
        finish(lanes0, rest0, b_rest),
        finish(lanes1, rest1, b_rest),
        finish(lanes2, rest2, b_rest),
        finish(lanes3, rest3, b_rest),
    ]
}

#[inline(always)]
fn add_products(lanes: &mut [f32; LANES], a: &[f32; LANES], b: &[f32; LANES]) {
    for lane in 0..LANES {
        lanes[lane] += a[lane] * b[lane];
    }
}

/// Adds the values behind the last whole block, then the lanes.
#[inline(always)]
fn finish(mut lanes: [f32; LANES], a_rest: &[f32], b_rest: &[f32]) -> f32 {
    for (lane, (a, b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane += a * b;
    }
    add_lanes(lanes)
}

/// `sum_i a_i^2` in the order of [`dot`].
#[inline]
pub(crate) fn square_sum(a: &[f32]) -> f32 {
    dot(a, a)
}

/// `out_i += factor * a_i`.
#[inline]
pub(crate) fn add_scaled(out: &mut [f32], factor: f32, a: &[f32]) {
    for (out, a) in out.iter_mut().zip(a) {
        *out += factor * a;
    }
}

#[inline]
fn add_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// `1 / (1 + e^-x)`.
#[inline]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// `x * sigmoid(x)`.
#[inline]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

/// `ln(1 + e^x)` without overflow.
#[inline]
pub(crate) fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_covers_blocks_and_rest() {
        for length in [0, 1, 15, 16, 17, 100] {
            let a: Vec<f32> = (0..length).map(|i| i as f32).collect();
            let expected: f32 = (0..length).map(|i| (i * i) as f32).sum();
            assert_eq!(dot(&a, &a), expected);
        }
    }

    #[test]
    fn softplus_does_not_overflow() {
        assert_eq!(softplus(200.0), 200.0);
        assert!((softplus(0.0) - std::f32::consts::LN_2).abs() < 1e-7);
        assert!(softplus(-200.0) >= 0.0);
    }
}
