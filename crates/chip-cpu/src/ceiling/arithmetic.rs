use std::{hint::black_box, time::Duration};

use super::{Rate, rate};
use crate::Kernels;

/// Operands of multiply-adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// `f32` operands and sums.
    F32,
    /// 8-bit operands, 32-bit sums.
    Int8,
    /// bf16 operands, `f32` sums. Not every processor has it.
    Bf16,
}

impl Kernels {
    /// The arithmetic that products of many rows run on, which is their ceiling.
    pub const fn arithmetic(self) -> Arithmetic {
        match self {
            Kernels::Portable | Kernels::Avx2 | Kernels::Avx512 => Arithmetic::F32,
            Kernels::Amx => Arithmetic::Bf16,
        }
    }
}

impl Arithmetic {
    /// All of them.
    pub const ALL: [Arithmetic; 3] = [Arithmetic::F32, Arithmetic::Int8, Arithmetic::Bf16];

    /// Name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Arithmetic::F32 => "f32",
            Arithmetic::Int8 => "int8",
            Arithmetic::Bf16 => "bf16",
        }
    }
}

/// Rounds of a pass of one thread: some milliseconds.
const ROUND_COUNT: usize = 1 << 18;
/// Sums that are updated in turns, enough to hide the latency of a multiply-add on two ports.
const SUM_COUNT: usize = 12;

/// A loop whose rounds do nothing but multiply-adds.
struct Loop {
    instructions: &'static str,
    /// Multiply-adds of a round.
    round_multiply_add_count: usize,
    /// # Safety
    /// The processor must have the instructions, which whoever makes a value has checked.
    run: unsafe fn(usize) -> u64,
}

/// Operations a second, two for a multiply-add, with the best instructions that this processor and these loops have;
/// none where there are none for the operands.
pub fn arithmetic(kind: Arithmetic, thread_count: usize, time: Duration) -> Option<Rate> {
    let thread_count = thread_count.max(1);
    let chosen = best(kind)?;
    let amount = 2.0 * (thread_count * ROUND_COUNT * chosen.round_multiply_add_count) as f64;
    Some(rate(chosen.instructions, thread_count, time, amount, |_| {
        // SAFETY: `best` offers only loops that this processor can run.
        unsafe { (chosen.run)(ROUND_COUNT) }
    }))
}

fn best(kind: Arithmetic) -> Option<Loop> {
    #[cfg(target_arch = "x86_64")]
    if let Some(found) = x86::best(kind) {
        return Some(found);
    }
    let (lane_count, run): (usize, unsafe fn(usize) -> u64) = match kind {
        Arithmetic::F32 => (8, portable_f32),
        Arithmetic::Int8 => (8, portable_int8),
        Arithmetic::Bf16 => return None,
    };
    Some(Loop {
        instructions: "portable",
        round_multiply_add_count: SUM_COUNT * lane_count,
        run,
    })
}

fn portable_f32(round_count: usize) -> u64 {
    let (a, b) = (black_box([0.5f32; 8]), black_box([1.0f32; 8]));
    let mut sums = [[0.0f32; 8]; SUM_COUNT];
    for _ in 0..round_count {
        for sum in &mut sums {
            for lane in 0..8 {
                sum[lane] = sum[lane] * a[lane] + b[lane];
            }
        }
    }
    sums.iter().flatten().sum::<f32>() as u64
}

fn portable_int8(round_count: usize) -> u64 {
    let (a, b) = (black_box([3i8; 8]), black_box([5i8; 8]));
    let mut sums = [[0i32; 8]; SUM_COUNT];
    for round in 0..round_count {
        for sum in &mut sums {
            for lane in 0..8 {
                // The round keeps the product from being taken out of the loop.
                sum[lane] = sum[lane].wrapping_add(i32::from(a[lane] ^ round as i8) * i32::from(b[lane]));
            }
        }
    }
    sums.iter().flatten().fold(0, |all, lane| all ^ *lane) as u64
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::{arch::x86_64::*, hint::black_box};

    use super::{Arithmetic, Loop, SUM_COUNT};
    use crate::amx::{self, Amx, tile};

    pub fn best(kind: Arithmetic) -> Option<Loop> {
        let of_rounds = |instructions, round_multiply_add_count, run: unsafe fn(usize) -> u64| {
            Some(Loop {
                instructions,
                round_multiply_add_count,
                run,
            })
        };
        // One instruction, or as many as replace it, for each sum.
        let loop_of = |instructions, lane_count, run| of_rounds(instructions, SUM_COUNT * lane_count, run);
        // The condition in front of a loop is what `Loop::run` asks for.
        match kind {
            Arithmetic::F32 if is_x86_feature_detected!("avx512f") => loop_of("AVX-512 multiply-add", 16, f32_avx512),
            Arithmetic::F32 if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") => {
                loop_of("AVX2 multiply-add", 8, f32_avx2)
            }
            Arithmetic::Int8 if Amx::detect().is_some() && amx::has_int8_tiles() => {
                of_rounds("AMX tiles", 4 * 16 * 16 * 64, int8_tiles)
            }
            Arithmetic::Int8 if is_x86_feature_detected!("avx512vnni") => loop_of("AVX-512 VNNI", 64, int8_avx512),
            Arithmetic::Int8 if is_x86_feature_detected!("avxvnni") => loop_of("AVX VNNI", 32, int8_avx_vnni),
            Arithmetic::Int8 if is_x86_feature_detected!("avx2") => loop_of("AVX2 maddubs and madd", 32, int8_avx2),
            Arithmetic::Bf16 if Amx::detect().is_some() => of_rounds("AMX tiles", 4 * 16 * 16 * 32, bf16_tiles),
            Arithmetic::Bf16 if is_x86_feature_detected!("avx512bf16") => loop_of("AVX-512 BF16", 32, bf16_avx512),
            _ => None,
        }
    }

    #[target_feature(enable = "avx512f")]
    fn f32_avx512(round_count: usize) -> u64 {
        let (a, b) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(1.0)));
        let mut sums = [_mm512_setzero_ps(); SUM_COUNT];
        for _ in 0..round_count {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        sums.iter().map(|sum| _mm512_reduce_add_ps(*sum) as u64).sum()
    }

    #[target_feature(enable = "avx2,fma")]
    fn f32_avx2(round_count: usize) -> u64 {
        let (a, b) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(1.0)));
        let mut sums = [_mm256_setzero_ps(); SUM_COUNT];
        for _ in 0..round_count {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        sums.iter().map(|sum| _mm256_cvtss_f32(*sum) as u64).sum()
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn int8_avx512(round_count: usize) -> u64 {
        let (a, b) = (
            _mm512_set1_epi32(black_box(0x0302_0103)),
            _mm512_set1_epi32(black_box(0x0105_02FF)),
        );
        let mut sums = [_mm512_setzero_si512(); SUM_COUNT];
        for _ in 0..round_count {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        sums.iter()
            .map(|sum| _mm512_reduce_add_epi32(*sum) as u64)
            .fold(0, |a, b| a ^ b)
    }

    #[target_feature(enable = "avx2,avxvnni")]
    fn int8_avx_vnni(round_count: usize) -> u64 {
        let (a, b) = (
            _mm256_set1_epi32(black_box(0x0302_0103)),
            _mm256_set1_epi32(black_box(0x0105_02FF)),
        );
        let mut sums = [_mm256_setzero_si256(); SUM_COUNT];
        for _ in 0..round_count {
            for sum in &mut sums {
                *sum = _mm256_dpbusd_avx_epi32(*sum, a, b);
            }
        }
        sums.iter()
            .map(|sum| _mm256_extract_epi32::<0>(*sum) as u64)
            .fold(0, |a, b| a ^ b)
    }

    /// One accumulation of 32 products takes three instructions.
    #[target_feature(enable = "avx2")]
    fn int8_avx2(round_count: usize) -> u64 {
        let (a, b) = (
            _mm256_set1_epi32(black_box(0x0302_0103)),
            _mm256_set1_epi32(black_box(0x0105_02FF)),
        );
        let ones = _mm256_set1_epi16(1);
        let mut sums = [_mm256_setzero_si256(); SUM_COUNT];
        for _ in 0..round_count {
            for sum in &mut sums {
                // The sum keeps the product from being taken out of the loop.
                let products = _mm256_maddubs_epi16(_mm256_xor_si256(a, *sum), b);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(products, ones));
            }
        }
        sums.iter()
            .map(|sum| _mm256_extract_epi32::<0>(*sum) as u64)
            .fold(0, |a, b| a ^ b)
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn bf16_avx512(round_count: usize) -> u64 {
        let one = _mm512_set1_ps(black_box(1.0));
        let (a, b) = (_mm512_cvtne2ps_pbh(one, one), _mm512_cvtne2ps_pbh(one, one));
        let mut sums = [_mm512_setzero_ps(); SUM_COUNT];
        for _ in 0..round_count {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, a, b);
            }
        }
        sums.iter().map(|sum| _mm512_reduce_add_ps(*sum) as u64).sum()
    }

    /// Four tiles of sums from two of each operand, all zeros: the time does not depend on the values.
    fn bf16_tiles(round_count: usize) -> u64 {
        let amx = Amx::detect().expect("the loop is offered only where there is AMX");
        let _tiles = tile::Tiles::new(amx, &tile::TileShapes::full());
        for _ in 0..round_count {
            // SAFETY: all eight tiles are configured, with full shapes.
            unsafe {
                tile::multiply_add::<0, 4, 6>();
                tile::multiply_add::<1, 4, 7>();
                tile::multiply_add::<2, 5, 6>();
                tile::multiply_add::<3, 5, 7>();
            }
        }
        round_count as u64
    }

    /// # Safety
    /// The processor must have AMX with int8 operands.
    unsafe fn int8_tiles(round_count: usize) -> u64 {
        let amx = Amx::detect().expect("the loop is offered only where there is AMX");
        let _tiles = tile::Tiles::new(amx, &tile::TileShapes::full());
        for _ in 0..round_count {
            // SAFETY: all eight tiles are configured, with full shapes; the caller vouches for the instructions.
            unsafe {
                std::arch::asm!(
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tdpbssd tmm1, tmm4, tmm7",
                    "tdpbssd tmm2, tmm5, tmm6",
                    "tdpbssd tmm3, tmm5, tmm7",
                    options(nostack, preserves_flags, nomem)
                );
            }
        }
        round_count as u64
    }
}
