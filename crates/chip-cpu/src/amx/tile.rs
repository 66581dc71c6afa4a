//! The instructions of the tile unit. The compiler has no intrinsics for them, and never uses tiles itself, so what one
//! call leaves in a tile the next one finds.
//!
//! Tiles are named by numbers 0 to 7. A thread configures them, computes and releases them, all within one call from
//! outside: configured tiles make every thread switch save 8 KB.

use std::{arch::asm, marker::PhantomData};

use super::Amx;

/// Rows of a tile at most.
pub(crate) const ROW_COUNT: usize = 16;
/// Bytes of a tile's row at most.
pub(crate) const ROW_BYTE_COUNT: usize = 64;

/// Rows and bytes a row of the eight tiles.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct TileShapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_byte_counts: [u16; 16],
    row_counts: [u8; 16],
}

impl TileShapes {
    /// `shapes[i]` is the number of rows and of bytes a row of tile `i`; a tile with zero rows may not be used.
    ///
    /// # Panics
    /// If a tile has more than 16 rows or 64 bytes a row, or bytes that are no multiple of four.
    pub fn new(shapes: [[usize; 2]; 8]) -> Self {
        let mut out = TileShapes {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_byte_counts: [0; 16],
            row_counts: [0; 16],
        };
        for (tile, [row_count, row_byte_count]) in shapes.into_iter().enumerate() {
            assert!(
                row_count <= ROW_COUNT && row_byte_count <= ROW_BYTE_COUNT && row_byte_count.is_multiple_of(4),
                "tile of {row_count} rows of {row_byte_count} bytes"
            );
            out.row_counts[tile] = row_count as u8;
            out.row_byte_counts[tile] = row_byte_count as u16;
        }
        out
    }

    /// Eight full tiles.
    pub fn full() -> Self {
        TileShapes::new([[ROW_COUNT, ROW_BYTE_COUNT]; 8])
    }
}

/// Configured tiles of this thread, released when dropped. Tiles start as zeros.
pub(crate) struct Tiles {
    /// Tiles belong to the thread that configured them.
    thread: PhantomData<*mut ()>,
}

impl Tiles {
    /// Configures the tiles of this thread.
    #[inline(always)]
    pub fn new(_: Amx, shapes: &TileShapes) -> Self {
        // SAFETY: `Amx` proves that the instruction may be used; shapes are checked when they are made.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) shapes, options(nostack, preserves_flags, readonly));
        }
        Tiles { thread: PhantomData }
    }
}

impl Drop for Tiles {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: only a thread that could configure tiles has a value of this type.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) }
    }
}

/// Sets all of a tile to zero.
///
/// # Safety
/// The tile is configured in this thread.
#[inline(always)]
pub(crate) unsafe fn zero<const TILE: usize>() {
    // SAFETY: says the caller.
    unsafe { asm!("tilezero tmm{0}", const TILE, options(nostack, preserves_flags, nomem)) }
}

/// Loads the rows of a tile, `stride` bytes apart.
///
/// # Safety
/// The tile is configured in this thread; its rows are readable.
#[inline(always)]
pub(crate) unsafe fn load<const TILE: usize>(rows: *const u8, stride: usize) {
    // SAFETY: says the caller.
    unsafe {
        asm!("tileloadd tmm{0}, [{1} + {2}]", const TILE, in(reg) rows, in(reg) stride,
            options(nostack, preserves_flags, readonly));
    }
}

/// Stores the rows of a tile, `stride` bytes apart.
///
/// # Safety
/// The tile is configured in this thread; its rows are writable.
#[inline(always)]
pub(crate) unsafe fn store<const TILE: usize>(rows: *mut u8, stride: usize) {
    // SAFETY: says the caller.
    unsafe {
        asm!("tilestored [{1} + {2}], tmm{0}", const TILE, in(reg) rows, in(reg) stride,
            options(nostack, preserves_flags));
    }
}

/// `SUMS += A * B` for `A` of bf16 `[m][2 k]`, `B` of bf16 pairs `[k][n][2]` and `f32` sums `[m][n]`.
///
/// An element's products are summed over even and over odd columns, each by fused multiply-adds in ascending order from
/// zero; both sums are added, and the result to the element. Subnormal inputs and results are zero.
///
/// # Safety
/// The tiles are configured in this thread with shapes that agree.
#[inline(always)]
pub(crate) unsafe fn multiply_add<const SUMS: usize, const A: usize, const B: usize>() {
    // SAFETY: says the caller.
    unsafe {
        asm!("tdpbf16ps tmm{0}, tmm{1}, tmm{2}", const SUMS, const A, const B,
            options(nostack, preserves_flags, nomem));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cachalot_numerics::bf16;

    /// The order of sums that [`multiply_add`] documents, which kernels with plain vectors may follow.
    fn expected(a: &[f32], b: &[f32], mut sum: f32) -> f32 {
        for (a, b) in a.chunks(32).zip(b.chunks(32)) {
            let mut halves = [0.0f32; 2];
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                halves[index % 2] = a.mul_add(*b, halves[index % 2]);
            }
            sum += halves[0] + halves[1];
        }
        sum
    }

    #[test]
    fn products_are_summed_in_the_documented_order_whatever_the_shape() {
        let Some(amx) = Amx::detect() else {
            eprintln!("skipped: this machine has no AMX");
            return;
        };
        let value = |i: usize, salt: usize| {
            bf16::round(((i * 7919 + salt * 104_729) % 1009) as f32 / 97.0 - 5.0 + 1.0 / (1.0 + i as f32))
        };
        for (m, n) in [(16, 16), (16, 1), (5, 3)] {
            let (mut a, mut b) = ([0u16; 512], [0u16; 512]);
            for k in 0..32 {
                (0..m).for_each(|row| a[row * 32 + k] = bf16::encode(value(row * 32 + k, 1)));
                (0..n).for_each(|column| b[(k / 2 * n + column) * 2 + k % 2] = bf16::encode(value(column * 32 + k, 2)));
            }
            let mut sums = [1.5f32; 256];
            let mut shapes = [[0; 2]; 8];
            (shapes[0], shapes[1], shapes[7]) = ([m, 4 * n], [m, 64], [16, 4 * n]);
            let tiles = Tiles::new(amx, &TileShapes::new(shapes));
            // SAFETY: three tiles of agreeing shapes, and arrays as large as they are.
            unsafe {
                load::<0>(sums.as_ptr().cast(), 4 * n);
                load::<1>(a.as_ptr().cast(), 64);
                load::<7>(b.as_ptr().cast(), 4 * n);
                multiply_add::<0, 1, 7>();
                store::<0>(sums.as_mut_ptr().cast(), 4 * n);
            }
            drop(tiles);
            for row in 0..m {
                for column in 0..n {
                    let a: Vec<f32> = (0..32).map(|k| value(row * 32 + k, 1)).collect();
                    let b: Vec<f32> = (0..32).map(|k| value(column * 32 + k, 2)).collect();
                    assert_eq!(
                        sums[row * n + column],
                        expected(&a, &b, 1.5),
                        "{m} x {n}: {row}, {column}"
                    );
                }
            }
        }
    }
}
