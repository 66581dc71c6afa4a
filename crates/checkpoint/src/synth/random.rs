//! Random bytes from a counter and tables.
//!
//! Every element is one of 4,096 entries of its tensor's table, drawn by 12 bits; a 64-bit word serves five
//! elements. The tables hold the quantiles of the wanted distribution (4 KB for codes: they stay in the
//! first-level cache), so no element costs more than a shift and a load. Words come from a counter, so any
//! part of a tensor can be made on its own.

use std::sync::LazyLock;

use cachalot_numerics::{e2m1, e4m3};

/// Entries of a table.
pub(super) const ENTRIES: usize = 4096;
/// Elements that one word of random bits serves.
pub(super) const ELEMENTS_PER_WORD: usize = 5;

/// A table of elements of `BYTES` bytes.
pub(super) type Table<const BYTES: usize> = [[u8; BYTES]; ENTRIES];

/// Standard deviation of FP8 codes: the maximum of a 128 x 128 block of normal numbers is near 4.2 standard
/// deviations and comes to lie between 224 and 448.
pub(super) const FP8_DEVIATION: f64 = 80.0;
/// Standard deviation of FP4 codes: the maximum of 32 normal numbers is near 2.4 standard deviations and
/// comes to lie between 3 and 6.
pub(super) const FP4_DEVIATION: f64 = 1.8;

/// A stream of random words, random access.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream(u64);

impl Stream {
    /// The stream of one tensor.
    pub(super) fn of(seed: u64, name: &str) -> Stream {
        // FNV-1a over the name tells tensors apart, the mixing spreads the seed.
        let hash = name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
            (hash ^ byte as u64).wrapping_mul(0x0000_0100_0000_01B3)
        });
        Stream(mix(mix(seed) ^ hash))
    }

    /// Word `index` of the stream (SplitMix64).
    #[inline(always)]
    pub(super) fn word(self, index: u64) -> u64 {
        mix(self.0.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }
}

#[inline(always)]
const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// Fills `out` with the elements from `first_word * ELEMENTS_PER_WORD` on.
pub(super) fn fill<const BYTES: usize>(table: &Table<BYTES>, stream: Stream, first_word: u64, out: &mut [u8]) {
    const MASK: u64 = ENTRIES as u64 - 1;
    let mut groups = out.chunks_exact_mut(ELEMENTS_PER_WORD * BYTES);
    let mut index = first_word;
    for group in &mut groups {
        let word = stream.word(index);
        for (element, place) in group.chunks_exact_mut(BYTES).enumerate() {
            place.copy_from_slice(&table[(word >> (12 * element) & MASK) as usize]);
        }
        index += 1;
    }
    let word = stream.word(index);
    for (element, place) in groups.into_remainder().chunks_exact_mut(BYTES).enumerate() {
        place.copy_from_slice(&table[(word >> (12 * element) & MASK) as usize]);
    }
}

/// Quantiles of the standard normal distribution at the middles of 4,096 equal shares: up to 3.7 deviations.
pub(super) static NORMAL: LazyLock<[f64; ENTRIES]> =
    LazyLock::new(|| std::array::from_fn(|entry| normal_quantile(middle(entry))));

/// e4m3 codes of normal numbers.
pub(super) static FP8_CODES: LazyLock<Table<1>> =
    LazyLock::new(|| std::array::from_fn(|entry| [e4m3::encode((NORMAL[entry] * FP8_DEVIATION) as f32)]));

/// Pairs of e2m1 codes of normal numbers. The second of a pair steps through the quantiles by the golden
/// ratio, which keeps the two as good as independent.
pub(super) static FP4_PAIRS: LazyLock<Table<1>> = LazyLock::new(|| {
    let code = |entry: usize| (NORMAL[entry] * FP4_DEVIATION) as f32;
    // The odd number nearest to 4096 / golden ratio.
    const STEP: usize = 2531;
    std::array::from_fn(|entry| [e2m1::encode_pair(code(entry), code(entry * STEP % ENTRIES))])
});

fn middle(entry: usize) -> f64 {
    (entry as f64 + 0.5) / ENTRIES as f64
}

/// The number below which a share `p` of a standard normal distribution lies.
fn normal_quantile(p: f64) -> f64 {
    // Bisection on the distribution function: runs once for a table, and needs no magic constants.
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..60 {
        let x = (low + high) / 2.0;
        if normal_share_below(x) < p {
            low = x;
        } else {
            high = x;
        }
    }
    (low + high) / 2.0
}

/// The standard normal distribution function, by its power series.
fn normal_share_below(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    let mut divisor = 3.0;
    while term.abs() > 1e-17 && divisor < 400.0 {
        term *= x * x / divisor;
        sum += term;
        divisor += 2.0;
    }
    0.5 + sum * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_normal_distribution() {
        // From standard tables.
        for (share, quantile) in [(0.5, 0.0), (0.975, 1.959_964), (0.999, 3.090_232), (0.1, -1.281_552)] {
            assert!((normal_quantile(share) - quantile).abs() < 1e-6);
        }
    }

    #[test]
    fn tables_have_the_wanted_spread() {
        let deviation = |values: Vec<f64>| {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            assert!(mean.abs() < 0.01 * FP8_DEVIATION);
            (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt()
        };
        let fp8 = FP8_CODES.iter().map(|code| e4m3::decode(code[0]) as f64).collect();
        assert!((deviation(fp8) / FP8_DEVIATION - 1.0).abs() < 0.01);
        for high in [0, 1] {
            let fp4: Vec<f64> = FP4_PAIRS
                .iter()
                .map(|pair| e2m1::decode_pair(pair[0])[high] as f64)
                .collect();
            assert!(fp4.contains(&6.0) && fp4.contains(&-6.0));
            assert!((deviation(fp4) / FP4_DEVIATION - 1.0).abs() < 0.05);
        }
        let product: f64 = FP4_PAIRS
            .iter()
            .map(|pair| {
                e2m1::decode_pair(pair[0])
                    .iter()
                    .map(|value| *value as f64)
                    .product::<f64>()
            })
            .sum();
        assert!(
            (product / ENTRIES as f64).abs() < 0.05,
            "the two of a pair are independent"
        );
    }

    #[test]
    fn a_tensor_may_be_made_in_pieces() {
        let stream = Stream::of(7, "layers.0.attn.wq_a.weight");
        let mut whole = vec![0; 5 * 1000 + 3];
        fill(&FP8_CODES, stream, 0, &mut whole);
        let mut pieces = vec![0; whole.len()];
        let (first, second) = pieces.split_at_mut(5 * 400);
        fill(&FP8_CODES, stream, 0, first);
        fill(&FP8_CODES, stream, 400, second);
        assert_eq!(whole, pieces);
    }
}
