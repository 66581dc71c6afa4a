//! Matrix products: one activation row straight from the stored weights, several rows over decoded tiles.
//!
//! In both paths an element is summed in 16 lanes along the columns, one multiply-add a half step, and the lanes are added
//! in the same order at the end. So a row's result is the same bits whatever else is in the batch.

#![expect(
    clippy::needless_range_loop,
    reason = "closures of adaptors are not reliably inlined with target features"
)]

use std::{arch::x86_64::*, mem::MaybeUninit};

use super::{
    Avx512,
    stored::{AnyStored, Order, STEP, Stored},
};
use crate::product::{BLOCK_ROW_COUNT, Product};

/// Weight rows whose sums are in registers at a time.
const TILE_ROW_COUNT: usize = 8;
/// Activation rows whose sums are in registers at a time: 8 × 3 sums and two activations of each row fill 30 registers.
const TILE_X_COUNT: usize = 3;
/// Columns decoded at a time: 16 rows take 24 KiB of first-level cache. A multiple of all scale blocks up to 128.
const TILE_COLUMN_COUNT: usize = 384;
/// Activation rows for which a decoded tile is used before the next one is decoded; limits the sums on the stack.
const CHUNK_X_COUNT: usize = 96;

pub(super) fn multiply(_: Avx512, product: &Product<'_>, first: usize, count: usize) -> bool {
    let matrix = product.matrix;
    let rows = product.first_row + first..product.first_row + first + count;
    assert!(
        rows.end <= matrix.rows && count <= BLOCK_ROW_COUNT,
        "weight rows in range"
    );
    let x_end = product
        .x_count
        .checked_sub(1)
        .map(|last| last * product.x_stride + matrix.columns);
    assert!(
        x_end.is_none_or(|end| end <= product.x.len()),
        "activation rows in range"
    );
    let Some(stored) = AnyStored::new(matrix) else {
        return false;
    };
    // SAFETY: `Avx512` proves the features; rows, columns and activations are in range as asserted.
    unsafe {
        match stored {
            AnyStored::F32(stored) => multiply_stored(stored, product, first, count),
            AnyStored::Bf16(stored) => multiply_stored(stored, product, first, count),
            AnyStored::Fp8(stored) if TILE_COLUMN_COUNT.is_multiple_of(stored.scale_columns()) => {
                multiply_stored(stored, product, first, count);
            }
            AnyStored::Fp4(stored) if TILE_COLUMN_COUNT.is_multiple_of(stored.scale_columns()) => {
                multiply_stored(stored, product, first, count);
            }
            AnyStored::Fp8(_) | AnyStored::Fp4(_) => return false,
            AnyStored::Int4(stored) => multiply_stored(stored, product, first, count),
            AnyStored::Int6(stored) => multiply_stored(stored, product, first, count),
            AnyStored::Int8(stored) => multiply_stored(stored, product, first, count),
        }
    }
    true
}

/// # Safety
/// AVX-512; weight rows and activations in range.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn multiply_stored<S: Stored>(stored: S, product: &Product<'_>, first: usize, count: usize) {
    if product.x_count != 1 {
        // SAFETY: as for this function.
        return unsafe { multiply_rows(stored, product, first, count) };
    }
    let mut row = first;
    while row < first + count {
        // SAFETY: as for this function.
        unsafe {
            if first + count - row >= TILE_ROW_COUNT {
                multiply_row::<S, TILE_ROW_COUNT>(stored, product, row);
                row += TILE_ROW_COUNT;
            } else {
                multiply_row::<S, 1>(stored, product, row);
                row += 1;
            }
        }
    }
}

/// 32 activations in the order of the weights.
///
/// # Safety
/// AVX-512; 32 readable values.
#[inline(always)]
unsafe fn load_x<S: Stored>(x: *const f32) -> [__m512; 2] {
    // SAFETY: 32 values, says the caller.
    unsafe {
        let [low, high] = [_mm512_loadu_ps(x), _mm512_loadu_ps(x.add(16))];
        if S::ORDER == Order::Straight {
            return [low, high];
        }
        let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
        [
            _mm512_permutex2var_ps(low, even, high),
            _mm512_permutex2var_ps(low, odd, high),
        ]
    }
}

/// `R` weight rows from `row` times the only activation row.
///
/// # Safety
/// As [`multiply_stored`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn multiply_row<S: Stored, const R: usize>(stored: S, product: &Product<'_>, row: usize) {
    let (columns, x) = (product.matrix.columns, product.x.as_ptr());
    let first_row = product.first_row + row;
    let mut sums = [_mm512_setzero_ps(); R];
    // SAFETY: columns stay below those of the matrix, which are as many as the activations have.
    unsafe {
        // Counted along: a division for each block costs as much as decoding one.
        let (mut column, mut block) = (0, 0);
        while column < columns {
            let mut scales = [stored.scale(first_row, block); R];
            for i in 1..R {
                scales[i] = stored.scale(first_row + i, block);
            }
            let end = columns.min(column.saturating_add(stored.scale_columns()));
            while column < end {
                let [x0, x1] = load_x::<S>(x.add(column));
                for i in 0..R {
                    let [low, high] = stored.decode(first_row + i, column, scales[i]);
                    sums[i] = _mm512_fmadd_ps(high, x1, _mm512_fmadd_ps(low, x0, sums[i]));
                }
                column += STEP;
            }
            block += 1;
        }
    }
    for (i, sum) in sums.into_iter().enumerate() {
        product.out.set(0, row + i, _mm512_reduce_add_ps(sum));
    }
}

/// Decoded weights of a block of rows, `TILE_COLUMN_COUNT` apart.
#[repr(align(64))]
struct Tile([MaybeUninit<f32>; BLOCK_ROW_COUNT * TILE_COLUMN_COUNT]);

/// Sums of some activation rows with a block of weight rows.
struct Sums([MaybeUninit<[__m512; BLOCK_ROW_COUNT]>; CHUNK_X_COUNT]);

/// # Safety
/// As [`multiply_stored`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn multiply_rows<S: Stored>(stored: S, product: &Product<'_>, first: usize, count: usize) {
    let columns = product.matrix.columns;
    let rows = product.first_row + first..product.first_row + first + count;
    let mut tile = Tile([MaybeUninit::uninit(); BLOCK_ROW_COUNT * TILE_COLUMN_COUNT]);
    let mut sums = Sums([MaybeUninit::uninit(); CHUNK_X_COUNT]);
    for first_x in (0..product.x_count).step_by(CHUNK_X_COUNT) {
        let x_count = CHUNK_X_COUNT.min(product.x_count - first_x);
        let sums = &mut sums.0[..x_count];
        sums.iter_mut().for_each(|sums| {
            sums.write([_mm512_setzero_ps(); BLOCK_ROW_COUNT]);
        });
        // SAFETY: all of them were written just now.
        let sums = unsafe { sums.assume_init_mut() };
        for first_column in (0..columns).step_by(TILE_COLUMN_COUNT) {
            let column_count = TILE_COLUMN_COUNT.min(columns - first_column);
            // SAFETY: rows and columns in range; the tile and the sums hold what the loops below read and write.
            unsafe {
                decode_tile(stored, rows.clone(), [first_column, column_count], &mut tile);
                for x in (0..x_count).step_by(TILE_X_COUNT) {
                    let values = product.x.as_ptr().add((first_x + x) * product.x_stride + first_column);
                    let sums = &mut sums[x..];
                    for row in (0..count).step_by(TILE_ROW_COUNT) {
                        let weights = tile.0.as_ptr().cast::<f32>().add(row * TILE_COLUMN_COUNT);
                        match x_count - x {
                            1 => add_tile::<S, 1>(weights, values, product.x_stride, column_count, sums, row),
                            2 => add_tile::<S, 2>(weights, values, product.x_stride, column_count, sums, row),
                            _ => add_tile::<S, 3>(weights, values, product.x_stride, column_count, sums, row),
                        }
                    }
                }
            }
        }
        for (x, sums) in sums.iter().enumerate() {
            for (row, sum) in sums[..count].iter().enumerate() {
                product.out.set(first_x + x, first + row, _mm512_reduce_add_ps(*sum));
            }
        }
    }
}

/// Decodes columns of `rows` in the order of the format; fills up to whole tiles of rows with zeros.
///
/// # Safety
/// As [`multiply_stored`]; the first column is a multiple of [`TILE_COLUMN_COUNT`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn decode_tile<S: Stored>(
    stored: S,
    rows: std::ops::Range<usize>,
    [first_column, column_count]: [usize; 2],
    tile: &mut Tile,
) {
    let padded_rows = rows.len().next_multiple_of(TILE_ROW_COUNT);
    for (index, out) in tile.0.chunks_exact_mut(TILE_COLUMN_COUNT).take(padded_rows).enumerate() {
        let out = out.as_mut_ptr().cast::<f32>();
        let row = rows.start + index;
        // SAFETY: `out` has room for the columns, which are in range.
        unsafe {
            if index >= rows.len() {
                out.write_bytes(0, TILE_COLUMN_COUNT);
                continue;
            }
            let (mut column, mut block) = (0, first_column / stored.scale_columns());
            while column < column_count {
                let scale = stored.scale(row, block);
                block += 1;
                let end = column_count.min(column.saturating_add(stored.scale_columns()));
                while column < end {
                    let [low, high] = stored.decode(row, first_column + column, scale);
                    _mm512_storeu_ps(out.add(column), low);
                    _mm512_storeu_ps(out.add(column + STEP / 2), high);
                    column += STEP;
                }
            }
        }
    }
}

/// Adds the products of eight decoded weight rows with `X` activation rows to their sums.
///
/// # Safety
/// AVX-512; eight rows of weights of whole steps, `X` activation rows `x_stride` apart and `X` rows of sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn add_tile<S: Stored, const X: usize>(
    weights: *const f32,
    x: *const f32,
    x_stride: usize,
    column_count: usize,
    sums: &mut [[__m512; BLOCK_ROW_COUNT]],
    row: usize,
) {
    let mut tile = [[_mm512_setzero_ps(); TILE_ROW_COUNT]; X];
    for i in 0..X {
        tile[i].copy_from_slice(&sums[i][row..row + TILE_ROW_COUNT]);
    }
    let mut lanes = [[_mm512_setzero_ps(); 2]; X];
    let mut column = 0;
    while column < column_count {
        // SAFETY: as the caller promises.
        unsafe {
            for i in 0..X {
                lanes[i] = load_x::<S>(x.add(i * x_stride + column));
            }
            for half in 0..2 {
                for j in 0..TILE_ROW_COUNT {
                    let weights = _mm512_loadu_ps(weights.add(j * TILE_COLUMN_COUNT + column + half * (STEP / 2)));
                    for i in 0..X {
                        tile[i][j] = _mm512_fmadd_ps(weights, lanes[i][half], tile[i][j]);
                    }
                }
            }
        }
        column += STEP;
    }
    for i in 0..X {
        sums[i][row..row + TILE_ROW_COUNT].copy_from_slice(&tile[i]);
    }
}
