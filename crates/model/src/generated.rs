//! State that was made up instead of computed, to measure speed at long contexts.

use cachalot_chip::{RowFormat, Tensor};
use cachalot_numerics::Dtype;

use crate::{Error, Sequence, StatePool, memory::RowLayout};

/// Numbers of a seed, one after another (SplitMix64).
struct Random(u64);

impl StatePool {
    /// A sequence of `length` tokens that nobody fed: its window rows, open rows, entries and index keys are ordinary
    /// random values, a function of `seed`, every page with its own.
    ///
    /// A step on it reads, scores and selects as much as a step on a sequence of real tokens; its logits mean nothing.
    /// Filling takes about a second for each gigabyte of state, where feeding the tokens would take hours.
    ///
    /// # Errors
    /// [`Error::Context`], [`Error::Sequences`], [`Error::Pages`], or an error of the chip.
    pub fn new_generated_sequence(&self, length: usize, seed: u64) -> Result<Sequence, Error> {
        if length > self.sizes.context {
            return Err(Error::Context {
                length,
                context: self.sizes.context,
            });
        }
        let mut sequence = self.new_sequence()?;
        self.reserve(&mut sequence, length)?;
        let mut random = Random(seed);
        for tail in &self.tensors.tails {
            let ring = tail.ring.narrow(sequence.slot as usize, 1);
            self.fill_rows(&ring, tail.layout, &mut random)?;
        }
        for pool in &self.tensors.pools {
            for page in &sequence.pages {
                self.fill_rows(&pool.entries.narrow(*page as usize, 1), pool.layout, &mut random)?;
            }
        }
        (sequence.length, sequence.written) = (length, length);
        sequence.forget_taps();
        Ok(sequence)
    }

    /// Fills a tensor whose innermost dimension is a row.
    fn fill_rows(&self, tensor: &Tensor, layout: RowLayout, random: &mut Random) -> Result<(), Error> {
        debug_assert!(matches!(tensor.dtype(), Dtype::U8 | Dtype::F32 | Dtype::I32));
        let mut bytes = vec![0; tensor.byte_count()];
        let row_byte_count = layout.byte_count();
        for row in bytes.chunks_exact_mut(row_byte_count) {
            random.fill_row(layout, row);
        }
        Ok(self.chip.write(tensor, &bytes)?)
    }
}

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        value ^ (value >> 31)
    }

    /// Calls `put` for each chunk of at most 8 bytes with a new number.
    fn each<const N: usize>(&mut self, bytes: &mut [u8], put: impl Fn(u64) -> [u8; N]) {
        for chunk in bytes.chunks_mut(N) {
            let values = put(self.next());
            chunk.copy_from_slice(&values[..chunk.len()]);
        }
    }

    /// Values whose magnitudes lie between 1/4 and 2, of either sign.
    fn fill_row(&mut self, layout: RowLayout, row: &mut [u8]) {
        match layout.format {
            // Exponents 125 to 127, that is 1/4 to 2.
            RowFormat::F32 => self.each(row, |random| {
                let exponent = 125 + (random >> 40) as u32 % 3;
                let bits = (random as u32 & 0x807F_FFFF) | exponent << 23;
                bits.to_le_bytes()
            }),
            RowFormat::Bf16 => self.each(row, bf16_values),
            RowFormat::Fp8Tail => {
                let plain = layout.width - layout.tail;
                let (codes, rest) = row.split_at_mut(plain);
                let (tail, scales) = rest.split_at_mut(2 * layout.tail);
                self.each(codes, fp8_values);
                self.each(tail, bf16_values);
                scales.fill(0);
                scales[..plain.div_ceil(RowFormat::FP8_GROUP)].fill(127);
            }
            RowFormat::Fp8 => {
                let (codes, scales) = row.split_at_mut(layout.width);
                self.each(codes, fp8_values);
                scales.fill(127);
            }
            RowFormat::Fp4Fine => {
                let (codes, scales) = row.split_at_mut(layout.width.div_ceil(2));
                self.each(codes, u64::to_le_bytes);
                // 1/2 as e4m3.
                scales.fill(0x30);
            }
            RowFormat::Fp4Hadamard | RowFormat::Fp4 => {
                let (codes, scales) = row.split_at_mut(layout.width.div_ceil(2));
                self.each(codes, u64::to_le_bytes);
                scales.fill(126);
            }
        }
    }
}

/// Eight e4m3 values with exponents 5 to 7: bits 3 to 6.
fn fp8_values(random: u64) -> [u8; 8] {
    random.to_le_bytes().map(|byte| {
        let exponent = 5 + (byte >> 3 & 0xF) % 3;
        byte & 0x87 | exponent << 3
    })
}

/// Four bf16 values between 1/4 and 2.
fn bf16_values(random: u64) -> [u8; 8] {
    let mut bytes = random.to_le_bytes();
    for value in bytes.chunks_exact_mut(2) {
        let bits = u16::from_le_bytes([value[0], value[1]]);
        let exponent = 125 + (bits >> 7 & 0xFF) % 3;
        value.copy_from_slice(&(bits & 0x807F | exponent << 7).to_le_bytes());
    }
    bytes
}
