//! Sums and products of `f32` slices in a fixed order, so that a row's result depends on nothing but the row.

#[cfg(target_arch = "x86_64")]
use crate::avx512::Avx512;
use crate::kernels::Chosen;

const LANES: usize = 16;

/// Functions whose plain Rust is compiled three times, for wider registers too. The compiler never fuses or reorders
/// floating-point operations, so all give the same bits.
macro_rules! wide {
    ($($(#[$documentation:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block)*) => {$(
        $(#[$documentation])*
        pub(crate) fn $name($($argument: $type),*) $(-> $result)? {
            #[inline(always)]
            fn plain($($argument: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($argument: $type),*) $(-> $result)? {
                    plain($($argument),*)
                }

                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $type),*) $(-> $result)? {
                    plain($($argument),*)
                }

                if Avx512::detect().is_some() {
                    // SAFETY: the processor has AVX-512.
                    return unsafe { avx512($($argument),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has AVX2.
                    return unsafe { avx2($($argument),*) };
                }
            }
            plain($($argument),*)
        }
    )*};
}

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

wide! {
    /// `sum_i a_i^2` in the order of [`dot`].
    fn square_sum(a: &[f32]) -> f32 {
        dot(a, a)
    }

    /// `out_i += factor * a_i`.
    fn add_scaled(out: &mut [f32], factor: f32, a: &[f32]) {
        for (out, a) in out.iter_mut().zip(a) {
            *out += factor * a;
        }
    }

    /// `out_i += a_i`.
    fn add(out: &mut [f32], a: &[f32]) {
        for (out, a) in out.iter_mut().zip(a) {
            *out += a;
        }
    }

    /// `out_i = factor * a_i`.
    fn set_scaled(out: &mut [f32], factor: f32, a: &[f32]) {
        for (out, a) in out.iter_mut().zip(a) {
            *out = factor * a;
        }
    }

    /// `stream_j = post_j * y + sum_i comb[i][j] * stream_i`, summed in the order of [`set_scaled`] and [`add_scaled`].
    fn mix_four(streams: &mut [&mut [f32]; 4], comb: &[f32], post: &[f32], y: &[f32]) {
        let comb: &[f32; 16] = comb.try_into().expect("four times four factors");
        let post: &[f32; 4] = post.try_into().expect("four factors");
        let [s0, s1, s2, s3] = streams;
        let streams = s0.iter_mut().zip(s1.iter_mut()).zip(s2.iter_mut()).zip(s3.iter_mut());
        for ((((s0, s1), s2), s3), y) in streams.zip(y) {
            let old = [*s0, *s1, *s2, *s3];
            let new = |j: usize| {
                let mut sum = post[j] * *y;
                for (i, old) in old.iter().enumerate() {
                    sum += comb[4 * i + j] * *old;
                }
                sum
            };
            (*s0, *s1, *s2, *s3) = (new(0), new(1), new(2), new(3));
        }
    }

    /// `values_i *= factor`.
    fn scale(values: &mut [f32], factor: f32) {
        values.iter_mut().for_each(|value| *value *= factor);
    }

    /// `values_i = weights_i * (values_i * factor)`.
    fn scale_each(values: &mut [f32], factor: f32, weights: &[f32]) {
        for (value, weight) in values.iter_mut().zip(weights) {
            *value = weight * (*value * factor);
        }
    }

    /// Rotates adjacent pairs of values by `(cos, sin)` pairs; `sign` is that of the angle.
    fn rotate_pairs(values: &mut [f32], angles: &[f32], sign: f32) {
        for (pair, angle) in values.as_chunks_mut::<2>().0.iter_mut().zip(angles.as_chunks::<2>().0) {
            let ([a, b], [cos, sin]) = (*pair, [angle[0], angle[1] * sign]);
            *pair = [a * cos - b * sin, a * sin + b * cos];
        }
    }

    /// `out_i = silu(min(gate_i, limit)) * clamp(up_i, -limit, limit)` with exponentials that vectors can compute:
    /// relative error below 1e-6.
    fn swiglu(out: &mut [f32], gate: &[f32], up: &[f32], limit: f32) {
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            // Unlike `min`, comparisons keep NaN.
            let gate = if *gate > limit { limit } else { *gate };
            let up = if *up > limit { limit } else { *up };
            let up = if up < -limit { -limit } else { up };
            *out = gate / (1.0 + exp(-gate)) * up;
        }
    }
}

/// `e^x` without branches or calls, relative error below 3e-7; at most e^88, at least e^-87.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Adding it leaves the nearest integer in the low bits.
    const ROUNDER: f32 = 12_582_912.0;
    let limited = if x > 88.0 { 88.0 } else { x };
    let limited = if limited < -87.0 { -87.0 } else { limited };
    let rounded = limited * std::f32::consts::LOG2_E + ROUNDER;
    let n = rounded - ROUNDER;
    // ln 2 in two parts, the first of which times any n is exact.
    let r = (limited - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let mut p = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + coefficient;
    }
    let power = f32::from_bits(p.to_bits().wrapping_add(rounded.to_bits() << 23));
    if x.is_nan() { x } else { power }
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
    fn exponentials_are_close_to_those_of_the_library() {
        for step in -87_000..=88_000 {
            let x = step as f32 / 1000.0;
            let expected = f64::from(x).exp();
            assert!(
                (f64::from(exp(x)) - expected).abs() <= 3e-7 * expected,
                "exp({x}) = {:e}",
                exp(x)
            );
        }
        assert!(exp(f32::NAN).is_nan() && exp(f32::INFINITY) > 1e38 && exp(f32::NEG_INFINITY) < 1e-37);
    }

    #[test]
    fn softplus_does_not_overflow() {
        assert_eq!(softplus(200.0), 200.0);
        assert!((softplus(0.0) - std::f32::consts::LN_2).abs() < 1e-7);
        assert!(softplus(-200.0) >= 0.0);
    }
}
