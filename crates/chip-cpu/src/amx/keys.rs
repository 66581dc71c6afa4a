//! Packed KV rows as tiles of bf16, exactly: e4m3 times a power of two fits.

use std::arch::x86_64::*;

use cachalot_chip::RowFormat;
use cachalot_numerics::{e2m1, e4m3};

use crate::{kernels::Chosen, operators::Packing};

/// Keys of a block: two tiles of rows.
pub(super) const BLOCK_KEY_COUNT: usize = 32;
/// bf16 values in a row of a tile.
pub(super) const STEP: usize = 32;
/// Rows of a tile, and 32-bit values of a row.
pub(super) const ROWS: usize = 16;

/// The bytes of a tile, its rows one after the other.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Tile([[u32; ROWS]; ROWS]);

impl Tile {
    pub const ZERO: Tile = Tile([[0; ROWS]; ROWS]);

    /// Reads a row.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn row(&self, row: usize) -> __m512i {
        // SAFETY: a row has 64 bytes and is aligned to them.
        unsafe { _mm512_load_si512(self.0[row].as_ptr().cast()) }
    }

    /// Writes a row.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn set_row(&mut self, row: usize, values: __m512i) {
        // SAFETY: as in `row`.
        unsafe { _mm512_store_si512(self.0[row].as_mut_ptr().cast(), values) }
    }

    /// Where the tile unit writes.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr().cast()
    }
}

/// A decoded block, as both products need it. `S` steps of 32 channels cover a key.
pub(super) struct Block<'a> {
    /// `[2][S]`: tiles of 16 keys by 32 channels.
    pub keys: &'a mut [Tile],
    /// `[S][2]`: tiles of 16 pairs of keys by 16 channels. The first of a step has channels 0-3, 8-11, 16-19 and 24-27,
    /// the second the others.
    pub values: &'a mut [Tile],
}

impl Block<'_> {
    /// Sets 32 channels of the keys `2 * pair` and `2 * pair + 1`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn set(&mut self, pair: usize, step: usize, [a, b]: [__m512i; 2]) {
        let steps = self.keys.len() / 2;
        let tile = &mut self.keys[2 * pair / ROWS * steps + step];
        tile.set_row(2 * pair % ROWS, a);
        tile.set_row(2 * pair % ROWS + 1, b);
        self.values[2 * step].set_row(pair, _mm512_unpacklo_epi16(a, b));
        self.values[2 * step + 1].set_row(pair, _mm512_unpackhi_epi16(a, b));
    }
}

/// Decodes the rows of a block; absent ones become zeros. `plain` is scratch.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(super) fn decode(
    kernels: Chosen,
    packing: &Packing,
    rows: &[Option<&[u8]>; BLOCK_KEY_COUNT],
    block: &mut Block<'_>,
    plain: &mut Vec<f32>,
) {
    for (pair, rows) in rows.as_chunks::<2>().0.iter().enumerate() {
        let is_done = match *rows {
            [Some(a), Some(b)] => match packing.format {
                RowFormat::Fp8Tail => set_fp8(packing, pair, [a, b], block),
                RowFormat::Fp8 => set_small_fp8(packing, pair, [a, b], block),
                RowFormat::Fp4Fine => set_fine_fp4(packing, pair, [a, b], block),
                RowFormat::Bf16 => set_bf16(packing, pair, [a, b], block),
                _ => false,
            },
            [None, None] => {
                for step in 0..block.keys.len() / 2 {
                    block.set(pair, step, [_mm512_setzero_si512(); 2]);
                }
                true
            }
            _ => false,
        };
        if !is_done {
            set_any(kernels, packing, pair, *rows, block, plain);
        }
    }
}

/// False unless both rows are in whole steps with scales that keep all values normal.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn set_fp8(packing: &Packing, pair: usize, rows: [&[u8]; 2], block: &mut Block<'_>) -> bool {
    const GROUP: usize = RowFormat::FP8_GROUP;
    let plain = packing.width - packing.tail;
    if !(plain.is_multiple_of(GROUP) && packing.tail.is_multiple_of(STEP)) {
        return false;
    }
    let [(codes_a, rest_a), (codes_b, rest_b)] = rows.map(|row| row.split_at(plain));
    let [(tail_a, scales_a), (tail_b, scales_b)] = [rest_a, rest_b].map(|rest| rest.split_at(2 * packing.tail));
    let groups = plain / GROUP;
    let is_normal = |scales: &[u8]| scales[..groups].iter().all(|scale| (10..=246).contains(scale));
    if !(is_normal(scales_a) && is_normal(scales_b)) {
        return false;
    }
    for group in 0..groups {
        let (a, b) = (Scale::new(scales_a[group]), Scale::new(scales_b[group]));
        for half in 0..2 {
            let first = group * GROUP + half * STEP;
            let values = [a.decode(&codes_a[first..]), b.decode(&codes_b[first..])];
            block.set(pair, first / STEP, values);
        }
    }
    for step in 0..packing.tail / STEP {
        let values = [tail_a, tail_b].map(|tail| &tail[2 * STEP * step..]);
        block.set(pair, plain / STEP + step, [load_bf16(values[0]), load_bf16(values[1])]);
    }
    true
}

/// False unless both rows are in whole steps with scales that keep all values normal.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn set_small_fp8(packing: &Packing, pair: usize, rows: [&[u8]; 2], block: &mut Block<'_>) -> bool {
    const { assert!(RowFormat::FP8_SMALL_GROUP == STEP) };
    if !packing.width.is_multiple_of(STEP) {
        return false;
    }
    let [(codes_a, scales_a), (codes_b, scales_b)] = rows.map(|row| row.split_at(packing.width));
    let is_normal = |scales: &[u8]| scales.iter().all(|scale| (10..=246).contains(scale));
    if !(is_normal(scales_a) && is_normal(scales_b)) {
        return false;
    }
    for step in 0..packing.width / STEP {
        let (a, b) = (Scale::new(scales_a[step]), Scale::new(scales_b[step]));
        let values = [a.decode(&codes_a[step * STEP..]), b.decode(&codes_b[step * STEP..])];
        block.set(pair, step, values);
    }
    true
}

/// False unless the rows are in whole steps.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn set_fine_fp4(packing: &Packing, pair: usize, rows: [&[u8]; 2], block: &mut Block<'_>) -> bool {
    if !packing.width.is_multiple_of(STEP) {
        return false;
    }
    let rows = rows.map(|row| row.split_at(packing.width / 2));
    for step in 0..packing.width / STEP {
        let values = rows.map(|(codes, scales)| decode_fine_fp4(&codes[step * STEP / 2..], &scales[2 * step..]));
        block.set(pair, step, values);
    }
    true
}

/// The values of 32 packed e2m1 codes, each half with an e4m3 scale. A product has at most six bits, so it is exact.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn decode_fine_fp4(codes: &[u8], scales: &[u8]) -> __m512i {
    const { assert!(2 * RowFormat::FP4_FINE_GROUP == STEP) };
    let codes: &[u8; STEP / 2] = codes.first_chunk().expect("a whole step");
    let scales: &[u8; 2] = scales.first_chunk().expect("two groups");
    // SAFETY: the table has sixteen values, the codes are 16 bytes.
    unsafe {
        let values = _mm512_loadu_ps(e2m1::VALUES.as_ptr());
        let [low, high] = scales.map(|scale| _mm512_mul_ps(values, _mm512_set1_ps(e4m3::decode(scale))));
        let table = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
        let codes = _mm512_cvtepu8_epi32(_mm_loadu_si128(codes.as_ptr().cast()));
        // The low code in the lower word, the high one in the upper; the second group looks up the upper half of the table.
        let indices = _mm512_or_si512(
            _mm512_and_si512(codes, _mm512_set1_epi32(0xF)),
            _mm512_slli_epi32::<12>(_mm512_and_si512(codes, _mm512_set1_epi32(0xF0))),
        );
        let second = _mm512_maskz_set1_epi32(0xFF00, 0x0010_0010);
        _mm512_permutexvar_epi16(_mm512_or_si512(indices, second), table)
    }
}

/// False unless the rows are in whole steps.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn set_bf16(packing: &Packing, pair: usize, rows: [&[u8]; 2], block: &mut Block<'_>) -> bool {
    if !packing.width.is_multiple_of(STEP) {
        return false;
    }
    for step in 0..packing.width / STEP {
        let [a, b] = rows.map(|row| &row[2 * STEP * step..]);
        block.set(pair, step, [load_bf16(a), load_bf16(b)]);
    }
    true
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_bf16(bytes: &[u8]) -> __m512i {
    let bytes: &[u8; 2 * STEP] = bytes.first_chunk().expect("a whole step");
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// How the e4m3 codes of a group become bf16.
#[derive(Clone, Copy)]
struct Scale {
    /// What is added to exponent and mantissa of a normal code, moved to their places in a bf16.
    offset: __m512i,
    /// The subnormal codes 0 to 7.
    subnormal: __m512i,
}

impl Scale {
    /// bf16 of `m * 2^-9`.
    const SUBNORMAL: [u16; 8] = [0, 0x3B00, 0x3B80, 0x3BC0, 0x3C00, 0x3C20, 0x3C40, 0x3C60];

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn new(code: u8) -> Self {
        let shift = _mm512_set1_epi16((i16::from(code) - 127) << 7);
        // SAFETY: the table has 16 bytes.
        let table = unsafe { _mm_loadu_si128(Self::SUBNORMAL.as_ptr().cast()) };
        Scale {
            offset: _mm512_add_epi16(shift, _mm512_set1_epi16(120 << 7)),
            subnormal: _mm512_maskz_add_epi16(0xFE, _mm512_castsi128_si512(table), shift),
        }
    }

    /// The values of 32 codes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn decode(self, codes: &[u8]) -> __m512i {
        let codes: &[u8; STEP] = codes.first_chunk().expect("a whole step");
        // SAFETY: 32 bytes.
        let codes = unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(codes.as_ptr().cast())) };
        let magnitude = _mm512_and_si512(_mm512_slli_epi16::<4>(codes), _mm512_set1_epi16(0x07F0));
        let normal = _mm512_add_epi16(magnitude, self.offset);
        let is_subnormal = _mm512_testn_epi16_mask(codes, _mm512_set1_epi16(0x78));
        // The look-up takes five bits, of which a subnormal code has the lower three.
        let value = _mm512_mask_permutexvar_epi16(normal, is_subnormal, codes, self.subnormal);
        const OR_OF_AND: i32 = 0xF8;
        _mm512_ternarylogic_epi32::<OR_OF_AND>(value, codes, _mm512_set1_epi16(i16::MIN))
    }
}

/// Any rows, by way of `f32`. The conversion rounds nothing that is left of a key.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn set_any(
    kernels: Chosen,
    packing: &Packing,
    pair: usize,
    rows: [Option<&[u8]>; 2],
    block: &mut Block<'_>,
    plain: &mut Vec<f32>,
) {
    let steps = block.keys.len() / 2;
    plain.clear();
    plain.resize(2 * steps * STEP, 0.0);
    for (row, out) in rows.into_iter().zip(plain.chunks_exact_mut(steps * STEP)) {
        if let Some(row) = row {
            packing.unpack(kernels, row, &mut out[..packing.width]);
        }
    }
    let (a, b) = plain.split_at(steps * STEP);
    for step in 0..steps {
        let values = [&a[step * STEP..], &b[step * STEP..]];
        block.set(pair, step, [round_bf16(values[0], STEP), round_bf16(values[1], STEP)]);
    }
}

/// The first `count` of 32 values as bf16, then zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn round_bf16(values: &[f32], count: usize) -> __m512i {
    let count = count.min(STEP);
    assert!(count <= values.len(), "values of a step");
    let mask = ((1u64 << count) - 1) as u32;
    // SAFETY: masked lanes are not read, and the pointer moves by no more than the values.
    unsafe {
        let low = _mm512_maskz_loadu_ps(mask as u16, values.as_ptr());
        let high = _mm512_maskz_loadu_ps((mask >> ROWS) as u16, values.as_ptr().wrapping_add(ROWS));
        std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
    }
}

/// Rows to columns: word `j` of row `i` becomes word `i` of row `j`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose(rows: [__m512i; ROWS]) -> [__m512i; ROWS] {
    let zero = _mm512_setzero_si512();
    let (mut pairs, mut quads, mut halves, mut out) = ([zero; ROWS], [zero; ROWS], [zero; ROWS], [zero; ROWS]);
    for i in 0..8 {
        pairs[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    // Of rows 4i .. 4i + 4: words 0 (then 1, 2, 3) of every quarter.
    for i in 0..4 {
        for j in 0..2 {
            let (a, b) = (pairs[4 * i + j], pairs[4 * i + 2 + j]);
            quads[4 * i + 2 * j] = _mm512_unpacklo_epi64(a, b);
            quads[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(a, b);
        }
    }
    for j in 0..4 {
        for i in 0..2 {
            let (a, b) = (quads[8 * i + j], quads[8 * i + 4 + j]);
            halves[8 * i + j] = _mm512_shuffle_i32x4::<0x88>(a, b);
            halves[8 * i + 4 + j] = _mm512_shuffle_i32x4::<0xDD>(a, b);
        }
    }
    // `halves[8 i + j]` has quarters 0 and 2 of rows 8i .. 8i + 8, `halves[8 i + 4 + j]` quarters 1 and 3.
    for j in 0..4 {
        out[j] = _mm512_shuffle_i32x4::<0x88>(halves[j], halves[8 + j]);
        out[8 + j] = _mm512_shuffle_i32x4::<0xDD>(halves[j], halves[8 + j]);
        out[4 + j] = _mm512_shuffle_i32x4::<0x88>(halves[4 + j], halves[12 + j]);
        out[12 + j] = _mm512_shuffle_i32x4::<0xDD>(halves[4 + j], halves[12 + j]);
    }
    out
}
