//! Transposition of 16 × 16 values of 32 bits in registers.

use std::arch::x86_64::*;

/// The columns of `rows`.
///
/// # Safety
/// AVX-512.
#[inline(always)]
pub(super) unsafe fn transpose(rows: [__m512i; 16]) -> [__m512i; 16] {
    // SAFETY: the caller has AVX-512.
    unsafe {
        // Pairs of rows, then quads: within every lane of 128 bits.
        let mut pairs = rows;
        for i in 0..8 {
            pairs[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
            pairs[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
        }
        let mut quads = pairs;
        for i in 0..4 {
            let [a, b, c, d] = [pairs[4 * i], pairs[4 * i + 1], pairs[4 * i + 2], pairs[4 * i + 3]];
            quads[4 * i] = _mm512_unpacklo_epi64(a, c);
            quads[4 * i + 1] = _mm512_unpackhi_epi64(a, c);
            quads[4 * i + 2] = _mm512_unpacklo_epi64(b, d);
            quads[4 * i + 3] = _mm512_unpackhi_epi64(b, d);
        }
        // Lane `l` of quads[4 i + j] is column 4 l + j of rows 4 i .. 4 i + 4: now the lanes.
        let mut columns = quads;
        for j in 0..4 {
            let [a, b, c, d] = [quads[j], quads[4 + j], quads[8 + j], quads[12 + j]];
            let even_ab = _mm512_shuffle_i32x4::<0x88>(a, b);
            let odd_ab = _mm512_shuffle_i32x4::<0xDD>(a, b);
            let even_cd = _mm512_shuffle_i32x4::<0x88>(c, d);
            let odd_cd = _mm512_shuffle_i32x4::<0xDD>(c, d);
            columns[j] = _mm512_shuffle_i32x4::<0x88>(even_ab, even_cd);
            columns[4 + j] = _mm512_shuffle_i32x4::<0x88>(odd_ab, odd_cd);
            columns[8 + j] = _mm512_shuffle_i32x4::<0xDD>(even_ab, even_cd);
            columns[12 + j] = _mm512_shuffle_i32x4::<0xDD>(odd_ab, odd_cd);
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[target_feature(enable = "avx512f")]
    fn transposed(values: &[[u32; 16]; 16]) -> [[u32; 16]; 16] {
        let mut out = [[0; 16]; 16];
        // SAFETY: the caller has AVX-512; whole rows.
        unsafe {
            let rows = std::array::from_fn(|i| _mm512_loadu_si512(values[i].as_ptr().cast()));
            for (column, out) in transpose(rows).into_iter().zip(&mut out) {
                _mm512_storeu_si512(out.as_mut_ptr().cast(), column);
            }
        }
        out
    }

    #[test]
    fn rows_become_columns() {
        if !is_x86_feature_detected!("avx512f") {
            eprintln!("skipped: this machine has no AVX-512");
            return;
        }
        let values: [[u32; 16]; 16] =
            std::array::from_fn(|row| std::array::from_fn(|column| (100 * row + column) as u32));
        // SAFETY: the processor has AVX-512.
        let found = unsafe { transposed(&values) };
        let expected: [[u32; 16]; 16] = std::array::from_fn(|row| std::array::from_fn(|column| values[column][row]));
        assert_eq!(found, expected);
    }
}
