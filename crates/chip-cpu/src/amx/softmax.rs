//! Scores of keys by heads to bf16 weights of heads by keys, sixteen heads in the lanes of a vector.

use std::arch::x86_64::*;

use super::keys::{ROWS, Tile, transpose};

/// What a softmax that goes over keys in chunks knows so far, in base 2, one lane for each of sixteen heads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    /// The largest scaled score, or the sink.
    max: [f32; ROWS],
    /// The sum of the weights relative to it, without the sink's.
    sum: [f32; ROWS],
}

impl Running {
    /// `sinks` holds up to sixteen logits.
    pub fn new(sinks: &[f32]) -> Self {
        let mut max = [0.0; ROWS];
        max.iter_mut()
            .zip(sinks)
            .for_each(|(max, sink)| *max = sink * std::f32::consts::LOG2_E);
        Running { max, sum: [0.0; ROWS] }
    }

    /// Takes the scores of a chunk, tiles of 16 keys by 16 heads, and writes weights relative to the new maximum as
    /// tiles of 16 heads by 32 keys. Returns what earlier weights have to be multiplied by.
    ///
    /// `factor` (positive) turns scores into logits of base 2.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq")]
    pub fn add(&mut self, scores: &[Tile], factor: f32, weights: &mut [Tile]) -> [f32; ROWS] {
        assert_eq!(
            scores.len(),
            2 * weights.len(),
            "two tiles of scores become one of weights"
        );
        let factor = _mm512_set1_ps(factor);
        let old_max = load(&self.max);
        let max = _mm512_max_ps(old_max, _mm512_mul_ps(maximum(scores), factor));
        let shift = _mm512_sub_ps(_mm512_setzero_ps(), max);
        let rescale = exp2(_mm512_sub_ps(old_max, max));
        let mut sums = [_mm512_setzero_ps(); 4];
        for (weights, scores) in weights.iter_mut().zip(scores.as_chunks::<2>().0) {
            let mut pairs = [_mm512_setzero_si512(); ROWS];
            for pair in 0..ROWS {
                let (tile, row) = (&scores[2 * pair / ROWS], 2 * pair % ROWS);
                let weight = |row: usize| {
                    let score = _mm512_castsi512_ps(tile.row(row));
                    exp2(_mm512_fmadd_ps(score, factor, shift))
                };
                let (even, odd) = (weight(row), weight(row + 1));
                let sum = pair % 2 * 2;
                sums[sum] = _mm512_add_ps(sums[sum], even);
                sums[sum + 1] = _mm512_add_ps(sums[sum + 1], odd);
                pairs[pair] = bf16_pair(even, odd);
            }
            for (row, values) in transpose(pairs).into_iter().enumerate() {
                weights.set_row(row, values);
            }
        }
        let sum = _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3]));
        let sum = _mm512_fmadd_ps(load(&self.sum), rescale, sum);
        store(&mut self.sum, sum);
        store(&mut self.max, max);
        let mut out = [0.0; ROWS];
        store(&mut out, rescale);
        out
    }

    /// One over the sum of all weights and the sink's.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq")]
    pub fn inverse_sums(&self, sinks: &[f32]) -> [f32; ROWS] {
        let mut logits = [0.0; ROWS];
        logits
            .iter_mut()
            .zip(sinks)
            .for_each(|(logit, sink)| *logit = sink * std::f32::consts::LOG2_E);
        let sink = exp2(_mm512_sub_ps(load(&logits), load(&self.max)));
        let mut out = [0.0; ROWS];
        let sum = _mm512_add_ps(load(&self.sum), sink);
        store(&mut out, _mm512_div_ps(_mm512_set1_ps(1.0), sum));
        out
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(values: &[f32; ROWS]) -> __m512 {
    // SAFETY: sixteen values.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(values: &mut [f32; ROWS], lanes: __m512) {
    // SAFETY: sixteen values.
    unsafe { _mm512_storeu_ps(values.as_mut_ptr(), lanes) }
}

/// The largest row of all tiles, lane by lane.
#[target_feature(enable = "avx512f")]
fn maximum(tiles: &[Tile]) -> __m512 {
    let mut max = [_mm512_set1_ps(f32::NEG_INFINITY); 4];
    for tile in tiles {
        for row in 0..ROWS {
            max[row % 4] = _mm512_max_ps(max[row % 4], _mm512_castsi512_ps(tile.row(row)));
        }
    }
    _mm512_max_ps(_mm512_max_ps(max[0], max[1]), _mm512_max_ps(max[2], max[3]))
}

/// `2^x` for `x <= 0`, relative error below 3e-6; 0 below -100, which covers masked keys.
///
/// `x = n + r` with `r` in 0 .. 1, and the polynomial of degree 4 with the least relative error for `2^r`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn exp2(x: __m512) -> __m512 {
    const FLOOR: i32 = 0x09;
    // NaN is not less and stays.
    let is_large = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, _mm512_set1_ps(-100.0));
    let r = _mm512_reduce_ps::<FLOOR>(x);
    let mut p = _mm512_set1_ps(0.013_534_168);
    for coefficient in [0.052_011_46, 0.241_442_75, 0.693_003_83, 1.000_002_6] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(coefficient));
    }
    _mm512_maskz_scalef_ps(is_large, p, x)
}

/// Two vectors as bf16 in the halves of each lane, rounded to nearest. NaN may get lost: the sums keep it.
#[inline]
#[target_feature(enable = "avx512f")]
fn bf16_pair(even: __m512, odd: __m512) -> __m512i {
    let half = _mm512_set1_epi32(0x8000);
    let even = _mm512_srli_epi32::<16>(_mm512_add_epi32(_mm512_castps_si512(even), half));
    let odd = _mm512_add_epi32(_mm512_castps_si512(odd), half);
    // From `odd` where the mask is set, else from `even`.
    const SELECT: i32 = 0xCA;
    _mm512_ternarylogic_epi32::<SELECT>(_mm512_set1_epi32(0xFFFF_0000u32 as i32), odd, even)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amx::Amx;

    #[test]
    fn powers_are_close_to_those_of_the_library() {
        if Amx::detect().is_none() {
            return;
        }
        let power = |x: f32| {
            let mut out = [0.0; ROWS];
            // SAFETY: the processor has AVX-512.
            unsafe { store(&mut out, exp2(_mm512_set1_ps(x))) };
            out[0]
        };
        for step in 0..=100_000 {
            let x = -(step as f32) / 1000.0;
            let (found, expected) = (f64::from(power(x)), f64::from(x).exp2());
            assert!((found - expected).abs() <= 3e-6 * expected, "2^{x} = {found:e}");
        }
        assert_eq!([-101.0, f32::NEG_INFINITY].map(power), [0.0; 2]);
        assert!(power(f32::NAN).is_nan());
    }
}
