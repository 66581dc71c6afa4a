//! Matrix products: one activation row straight from the stored weights, several rows over decoded tiles.
//!
//! In both paths an element is summed in eight lanes along the columns, one multiply-add a step, and the lanes are added
//! in the same order at the end. So a row's result is the same bits whatever else is in the batch.

// Loops with indices: adaptors of the standard library take closures, and a closure with target features is not always
// inlined into them, which costs a factor of ten.
#![expect(
    clippy::needless_range_loop,
    reason = "closures of adaptors are not reliably inlined with target features"
)]

use std::{arch::x86_64::*, mem::MaybeUninit};

use super::{
    Avx2,
    stored::{AnyStored, LANES, Stored, load_partial},
};
use crate::product::{BLOCK_ROW_COUNT, Product};

/// Weight rows whose sums are in registers at a time.
const TILE_ROW_COUNT: usize = 4;
/// Activation rows whose sums are in registers at a time: 4 × 3 sums, 3 activations and 1 weight fill 16 registers.
const TILE_X_COUNT: usize = 3;
/// Columns decoded at a time: 16 rows take 24 KiB and leave room for activations in 32 KiB of first-level cache.
/// A multiple of all scale blocks up to 128.
const TILE_COLUMN_COUNT: usize = 384;
/// Activation rows for which a decoded tile is used before the next one is decoded; limits the sums on the stack.
const CHUNK_X_COUNT: usize = 96;

pub(super) fn multiply(_: Avx2, product: &Product<'_>, first: usize, count: usize) -> bool {
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
    // SAFETY: `Avx2` proves the features; rows, columns and activations are in range as asserted.
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
/// AVX2, FMA and F16C; weight rows and activations in range.
#[target_feature(enable = "avx2,fma,f16c")]
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

/// `R` weight rows from `row` times the only activation row.
///
/// # Safety
/// As [`multiply_stored`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply_row<S: Stored, const R: usize>(stored: S, product: &Product<'_>, row: usize) {
    let (columns, x) = (product.matrix.columns, product.x.as_ptr());
    let first_row = product.first_row + row;
    let whole_columns = columns / LANES * LANES;
    let mut sums = [_mm256_setzero_ps(); R];
    // SAFETY: columns stay below those of the matrix, which are as many as the activations have.
    unsafe {
        // Counted along: a division for each block costs as much as decoding one.
        let (mut column, mut block) = (0, 0);
        while column < whole_columns {
            let mut scales = [stored.scale(first_row, block); R];
            for i in 1..R {
                scales[i] = stored.scale(first_row + i, block);
            }
            let end = whole_columns.min(column.saturating_add(stored.scale_columns()));
            while column < end {
                let x = _mm256_loadu_ps(x.add(column));
                for i in 0..R {
                    sums[i] = _mm256_fmadd_ps(stored.decode(first_row + i, column, scales[i]), x, sums[i]);
                }
                column += LANES;
            }
            block += 1;
        }
        if column < columns {
            let x = load_partial(x.add(column), columns - column);
            let block = column / stored.scale_columns();
            for (i, sum) in sums.iter_mut().enumerate() {
                let scale = stored.scale(first_row + i, block);
                *sum = _mm256_fmadd_ps(
                    stored.decode_tail(first_row + i, column, columns - column, scale),
                    x,
                    *sum,
                );
            }
        }
    }
    for (i, sum) in sums.into_iter().enumerate() {
        product.out.set(0, row + i, add_lanes(sum));
    }
}

/// Decoded weights of a block of rows, `TILE_COLUMN_COUNT` apart.
#[repr(align(64))]
struct Tile([MaybeUninit<f32>; BLOCK_ROW_COUNT * TILE_COLUMN_COUNT]);

/// Sums of some activation rows with a block of weight rows.
#[repr(align(64))]
struct Sums([MaybeUninit<[__m256; BLOCK_ROW_COUNT]>; CHUNK_X_COUNT]);

/// # Safety
/// As [`multiply_stored`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply_rows<S: Stored>(stored: S, product: &Product<'_>, first: usize, count: usize) {
    let columns = product.matrix.columns;
    let mut tile = Tile([MaybeUninit::uninit(); BLOCK_ROW_COUNT * TILE_COLUMN_COUNT]);
    let mut sums = Sums([MaybeUninit::uninit(); CHUNK_X_COUNT]);
    for first_x in (0..product.x_count).step_by(CHUNK_X_COUNT) {
        let x_count = CHUNK_X_COUNT.min(product.x_count - first_x);
        let sums = &mut sums.0[..x_count];
        sums.iter_mut().for_each(|sums| {
            sums.write([_mm256_setzero_ps(); BLOCK_ROW_COUNT]);
        });
        // SAFETY: all of them were written just now.
        let sums = unsafe { sums.assume_init_mut() };
        for first_column in (0..columns).step_by(TILE_COLUMN_COUNT) {
            let column_count = TILE_COLUMN_COUNT.min(columns - first_column);
            // SAFETY: rows and columns in range; the tile and the sums hold what the loops below read and write.
            unsafe {
                decode_tile(
                    stored,
                    product.first_row + first..product.first_row + first + count,
                    [first_column, column_count],
                    &mut tile,
                );
                for x in (0..x_count).step_by(TILE_X_COUNT) {
                    let values = product.x.as_ptr().add((first_x + x) * product.x_stride + first_column);
                    let sums = &mut sums[x..];
                    for row in (0..count).step_by(TILE_ROW_COUNT) {
                        let weights = tile.0.as_ptr().cast::<f32>().add(row * TILE_COLUMN_COUNT);
                        match x_count - x {
                            1 => add_tile::<1>(weights, values, product.x_stride, column_count, sums, row),
                            2 => add_tile::<2>(weights, values, product.x_stride, column_count, sums, row),
                            _ => add_tile::<3>(weights, values, product.x_stride, column_count, sums, row),
                        }
                    }
                }
            }
        }
        for (x, sums) in sums.iter().enumerate() {
            for (row, sum) in sums[..count].iter().enumerate() {
                product.out.set(first_x + x, first + row, add_lanes(*sum));
            }
        }
    }
}

/// Decodes columns of `rows`; fills up to whole lanes, and to whole tiles of rows with zeros.
///
/// # Safety
/// As [`multiply_stored`]; the first column is a multiple of [`TILE_COLUMN_COUNT`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
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
        // SAFETY: `out` has room for whole lanes; columns are in range.
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
                while column + LANES <= end {
                    _mm256_storeu_ps(out.add(column), stored.decode(row, first_column + column, scale));
                    column += LANES;
                }
                if column < end {
                    let tail = stored.decode_tail(row, first_column + column, end - column, scale);
                    _mm256_storeu_ps(out.add(column), tail);
                    column = end;
                }
            }
        }
    }
}

/// Adds the products of four decoded weight rows with `X` activation rows to their sums.
///
/// # Safety
/// AVX2 and FMA; four rows of weights filled to whole lanes, `X` activation rows `x_stride` apart and `X` rows of sums.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_tile<const X: usize>(
    weights: *const f32,
    x: *const f32,
    x_stride: usize,
    column_count: usize,
    sums: &mut [[__m256; BLOCK_ROW_COUNT]],
    row: usize,
) {
    let mut tile = [[_mm256_setzero_ps(); TILE_ROW_COUNT]; X];
    for i in 0..X {
        tile[i].copy_from_slice(&sums[i][row..row + TILE_ROW_COUNT]);
    }
    let mut lanes = [_mm256_setzero_ps(); X];
    let whole_columns = column_count / LANES * LANES;
    let mut column = 0;
    // SAFETY: as the caller promises.
    unsafe {
        while column < whole_columns {
            for i in 0..X {
                lanes[i] = _mm256_loadu_ps(x.add(i * x_stride + column));
            }
            multiply_add(weights.add(column), lanes, &mut tile);
            column += LANES;
        }
        if column < column_count {
            for i in 0..X {
                lanes[i] = load_partial(x.add(i * x_stride + column), column_count - column);
            }
            multiply_add(weights.add(column), lanes, &mut tile);
        }
    }
    for i in 0..X {
        sums[i][row..row + TILE_ROW_COUNT].copy_from_slice(&tile[i]);
    }
}

/// # Safety
/// AVX2 and FMA; eight weights in each of four rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply_add<const X: usize>(weights: *const f32, x: [__m256; X], sums: &mut [[__m256; TILE_ROW_COUNT]; X]) {
    for j in 0..TILE_ROW_COUNT {
        // SAFETY: as the caller promises.
        let weights = unsafe { _mm256_loadu_ps(weights.add(j * TILE_COLUMN_COUNT)) };
        for i in 0..X {
            sums[i][j] = _mm256_fmadd_ps(weights, x[i], sums[i][j]);
        }
    }
}

/// The sum of all lanes: halves, then quarters, then the last pair.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add_lanes(lanes: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}
