//! The multipliers of Engram's hashes: numbers that NumPy's generator draws from a seed, `default_rng(10007 * layer)`.
//!
//! They are nowhere in a checkpoint, so the generator (PCG64, seeded by a `SeedSequence`) is here as far as it is needed.

use super::EngramConfig;

/// Factor from a layer's number to its seed.
const SEED_FACTOR: u64 = 10_007;

impl EngramConfig {
    /// The multipliers of a layer with a table, one for each token of the longest group: odd, and so small that their
    /// products with folded token ids fit in 63 bits.
    pub fn multipliers(&self, layer: usize) -> Vec<i64> {
        let bound = i64::MAX as u64 / self.compressed_vocab_size as u64 / 2;
        let mut random = Pcg64::new(SEED_FACTOR * layer as u64);
        let numbers = (0..self.max_ngram_size).map(|_| random.below(bound.max(1)));
        numbers.map(|number| 2 * number as i64 + 1).collect()
    }
}

/// PCG XSL RR 128/64.
struct Pcg64 {
    state: u128,
    increment: u128,
}

impl Pcg64 {
    const MULTIPLIER: u128 = 0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645;

    fn new(seed: u64) -> Self {
        let [a, b, c, d] = seed_words(seed);
        let wide = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
        let mut random = Pcg64 {
            state: 0,
            increment: wide(c, d) << 1 | 1,
        };
        random.step();
        random.state = random.state.wrapping_add(wide(a, b));
        random.step();
        random
    }

    fn step(&mut self) {
        self.state = self.state.wrapping_mul(Self::MULTIPLIER).wrapping_add(self.increment);
    }

    fn next(&mut self) -> u64 {
        self.step();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    /// A number below `bound`, which is above 2^32: Lemire's way, as NumPy draws 64-bit integers.
    fn below(&mut self, bound: u64) -> u64 {
        let rejected = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.next()) * u128::from(bound);
            if product as u64 >= rejected {
                return (product >> 64) as u64;
            }
        }
    }
}

/// What `SeedSequence(seed).generate_state(4, uint64)` gives.
fn seed_words(seed: u64) -> [u64; 4] {
    const POOL: usize = 4;
    let hash = |value: u32, constant: &mut u32, multiplier: u32| {
        let mixed = value ^ *constant;
        *constant = constant.wrapping_mul(multiplier);
        let mixed = mixed.wrapping_mul(*constant);
        mixed ^ mixed >> 16
    };
    let mut constant = 0x43B0_D7E5;
    let mut scatter = |value: u32| hash(value, &mut constant, 0x931E_8875);
    let entropy = [seed as u32, (seed >> 32) as u32, 0, 0];
    let mut pool = entropy.map(&mut scatter);
    for source in 0..POOL {
        for place in (0..POOL).filter(|place| *place != source) {
            let value = scatter(pool[source]);
            let mixed = pool[place]
                .wrapping_mul(0xCA01_F9DD)
                .wrapping_sub(value.wrapping_mul(0x4973_F715));
            pool[place] = mixed ^ mixed >> 16;
        }
    }
    let mut constant = 0x8B51_F9DD;
    let words: [u32; 2 * POOL] = std::array::from_fn(|i| hash(pool[i % POOL], &mut constant, 0x58F3_8DED));
    std::array::from_fn(|i| u64::from(words[2 * i + 1]) << 32 | u64::from(words[2 * i]))
}
