//! Attention of some heads of one row over unpacked keys.

use std::arch::x86_64::*;

use super::{
    dots::dots,
    stored::{LANES, load_partial},
};
use crate::{operators::Heads, vector::Vectors};

/// Heads whose outputs are in registers at a time.
const TILE_HEAD_COUNT: usize = 4;
/// Vectors of channels of each of them.
const TILE_VECTOR_COUNT: usize = 2;

/// Softmax with sink and weighted sum. `scores` is scratch for one value for each head and key.
#[target_feature(enable = "avx2,fma")]
pub(super) fn attend(heads: &Heads<'_>, keys: &[f32], scores: &mut Vec<f32>, out: &mut [f32]) {
    let width = heads.width;
    let (head_count, key_count) = (heads.sinks.len(), keys.len() / width);
    scores.resize(head_count * key_count, 0.0);
    let queries = Vectors {
        values: heads.queries,
        stride: width,
        count: head_count,
    };
    let key_vectors = Vectors {
        values: keys,
        stride: width,
        count: key_count,
    };
    dots(queries, key_vectors, width, scores, key_count);
    for (scores, sink) in scores.chunks_exact_mut(key_count).zip(heads.sinks) {
        softmax(scores, *sink, heads.scale);
    }
    let mut head = 0;
    while head < head_count {
        let tile_heads = if head_count - head >= TILE_HEAD_COUNT {
            TILE_HEAD_COUNT
        } else {
            1
        };
        let scores = &scores[head * key_count..];
        let out = &mut out[head * width..];
        if tile_heads == TILE_HEAD_COUNT {
            sum_values::<TILE_HEAD_COUNT>(scores, keys, width, key_count, out);
        } else {
            sum_values::<1>(scores, keys, width, key_count, out);
        }
        head += tile_heads;
    }
}

/// Scores to weights: `exp(s - m) / (sum exp(s - m) + exp(sink - m))`.
#[target_feature(enable = "avx2,fma")]
fn softmax(scores: &mut [f32], sink: f32, scale: f32) {
    let mut max = sink;
    for score in scores.iter_mut() {
        *score *= scale;
        max = max.max(*score);
    }
    let shift = _mm256_set1_ps(max);
    let mut sums = _mm256_setzero_ps();
    let (blocks, rest) = scores.as_chunks_mut::<LANES>();
    for block in blocks {
        // SAFETY: a block has eight values.
        unsafe {
            let weights = exp(_mm256_sub_ps(_mm256_loadu_ps(block.as_ptr()), shift));
            sums = _mm256_add_ps(sums, weights);
            _mm256_storeu_ps(block.as_mut_ptr(), weights);
        }
    }
    let mut sum = super::product::add_lanes(sums);
    for score in rest {
        *score = first_lane(exp(_mm256_set1_ps(*score - max)));
        sum += *score;
    }
    sum += (sink - max).exp();
    let inverse = sum.recip();
    scores.iter_mut().for_each(|score| *score *= inverse);
}

#[inline]
#[target_feature(enable = "avx2")]
fn first_lane(lanes: __m256) -> f32 {
    _mm256_cvtss_f32(lanes)
}

/// `e^x` for `x <= 0`, relative error below 2e-7; 0 below -87.
///
/// `x = n ln 2 + r`, a polynomial of degree 7 for `e^r` with `|r| <= ln 2 / 2`, and `2^n` put into the exponent.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn exp(x: __m256) -> __m256 {
    let is_small = _mm256_cmp_ps::<_CMP_LT_OQ>(x, _mm256_set1_ps(-87.0));
    let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm256_mul_ps(
        x,
        _mm256_set1_ps(std::f32::consts::LOG2_E),
    ));
    // ln 2 in two parts, the first of which times any n is exact.
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693_359_4), x);
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.121_944_4e-4), r);
    let mut p = _mm256_set1_ps(1.0 / 5040.0);
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(coefficient));
    }
    let power = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)));
    let value = _mm256_mul_ps(p, _mm256_castsi256_ps(power));
    // NaN compares false and stays.
    _mm256_andnot_ps(is_small, value)
}

/// `out_h = sum_k weights_h[k] key_k` for `H` heads, in the order of the keys.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn sum_values<const H: usize>(weights: &[f32], keys: &[f32], width: usize, key_count: usize, out: &mut [f32]) {
    assert!(weights.len() >= H * key_count && keys.len() >= key_count * width && out.len() >= H * width);
    const STEP: usize = TILE_VECTOR_COUNT * LANES;
    let mut channel = 0;
    while channel < width {
        let count = (width - channel).min(STEP);
        let mut sums = [[_mm256_setzero_ps(); TILE_VECTOR_COUNT]; H];
        for key in 0..key_count {
            // SAFETY: channels and keys in range as asserted; a shorter rest is loaded with a mask.
            unsafe {
                let values = keys.as_ptr().add(key * width + channel);
                let lanes = if count == STEP {
                    [_mm256_loadu_ps(values), _mm256_loadu_ps(values.add(LANES))]
                } else {
                    let second = count.saturating_sub(LANES);
                    [
                        load_partial(values, count),
                        load_partial(values.add(count - second), second),
                    ]
                };
                for (head, sums) in sums.iter_mut().enumerate() {
                    let weight = _mm256_set1_ps(*weights.get_unchecked(head * key_count + key));
                    sums[0] = _mm256_fmadd_ps(weight, lanes[0], sums[0]);
                    sums[1] = _mm256_fmadd_ps(weight, lanes[1], sums[1]);
                }
            }
        }
        for (head, sums) in sums.into_iter().enumerate() {
            let mut values = [0.0; STEP];
            // SAFETY: room for two vectors.
            unsafe {
                _mm256_storeu_ps(values.as_mut_ptr(), sums[0]);
                _mm256_storeu_ps(values.as_mut_ptr().add(LANES), sums[1]);
            }
            out[head * width + channel..][..count].copy_from_slice(&values[..count]);
        }
        channel += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_close_to_those_of_the_library() {
        if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
            return;
        }
        for step in 0..=87_000 {
            let x = -(step as f32) / 1000.0;
            // SAFETY: the processor has AVX2 and FMA.
            let found = unsafe { first_lane(exp(_mm256_set1_ps(x))) };
            let expected = f64::from(x).exp();
            assert!(
                (f64::from(found) - expected).abs() <= 2e-7 * expected,
                "exp({x}) = {found:e}"
            );
        }
        // SAFETY: as above.
        assert_eq!(unsafe { first_lane(exp(_mm256_set1_ps(-1000.0))) }, 0.0);
    }
}
