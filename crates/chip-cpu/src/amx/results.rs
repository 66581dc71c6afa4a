//! Sums on their way out of tiles.

use std::arch::x86_64::*;

use super::{
    activations::{Packing, TILE_WIDTH},
    tile::ROW_COUNT,
    transpose::transpose,
};
use crate::product::Product;

/// Writes the sums of weight rows `first .. first + count` (up to 16) with the activations of tile column `tile`: adds
/// the terms of an activation and turns columns into rows.
///
/// # Safety
/// AVX-512; 16 rows of `packing.width` sums.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn store_sums(
    sums: *const f32,
    product: &Product<'_>,
    packing: &Packing,
    tile: usize,
    [first, count]: [usize; 2],
) {
    let (width, term_count) = (packing.width, packing.term_count);
    let mut columns = [_mm512_setzero_si512(); TILE_WIDTH];
    // SAFETY: 16 rows of sums; masked lanes are not read.
    unsafe {
        if width == 1 {
            columns[0] = _mm512_loadu_si512(sums.cast());
        } else {
            let mask = ((1u32 << width) - 1) as u16;
            let mut rows = [_mm512_setzero_si512(); ROW_COUNT];
            for (row, out) in rows.iter_mut().enumerate() {
                *out = _mm512_maskz_loadu_epi32(mask, sums.add(row * width).cast());
            }
            columns = transpose(rows);
        }
    }
    let first_x = tile * (TILE_WIDTH / term_count);
    let x_count = (width / term_count).min(product.x_count - first_x);
    for x in 0..x_count {
        let mut total = _mm512_castsi512_ps(columns[x * term_count]);
        if term_count == 2 {
            total = _mm512_add_ps(total, _mm512_castsi512_ps(columns[x * term_count + 1]));
        }
        let mut values = [0.0f32; ROW_COUNT];
        // SAFETY: 16 values.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), total) };
        product.out.store(first_x + x, first, &values[..count]);
    }
}
