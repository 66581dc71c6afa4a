use std::fmt;

use crate::{Dtype, IntegerWidth, bf16, e2m1, e4m3, e8m0, integer};

/// How the scales of FP8 blocks are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScaleDtype {
    /// Powers of two in a byte (V4, V4.1).
    E8m0,
    /// `f32` (V3, R1, V3.2 and the V4 -Base releases).
    F32,
}

impl ScaleDtype {
    /// The element type of the scale tensor.
    pub const fn dtype(self) -> Dtype {
        match self {
            ScaleDtype::E8m0 => Dtype::F8E8m0,
            ScaleDtype::F32 => Dtype::F32,
        }
    }

    /// The scale at `index` of the scale tensor's bytes.
    ///
    /// # Panics
    /// If `index` is out of range.
    #[inline]
    pub fn decode(self, bytes: &[u8], index: usize) -> f32 {
        match self {
            ScaleDtype::E8m0 => e8m0::decode(bytes[index]),
            ScaleDtype::F32 => f32::from_le_bytes(bytes[4 * index..4 * index + 4].try_into().expect("four bytes")),
        }
    }
}

/// How a weight matrix `[rows, columns]` (output by input, row-major) is stored.
///
/// The value of an element is its code's value times the scale of its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MatrixFormat {
    /// Plain `f32`.
    F32,
    /// Plain bf16.
    Bf16,
    /// e4m3 codes; one scale for each `rows × columns` block, scale tensor
    /// `[ceil(rows / block rows), ceil(columns / block columns)]`.
    Fp8Block {
        /// Rows of a block (128 in V3 and V4, 32 in V4.1).
        rows: usize,
        /// Columns of a block.
        columns: usize,
        /// Element type of the scales.
        scale: ScaleDtype,
    },
    /// Packed e2m1 codes, two a byte; one E8M0 scale for each `group` columns of a row, scale tensor
    /// `[rows, columns / group]`.
    Fp4Group {
        /// Columns that share a scale (32).
        group: usize,
    },
    /// Packed integer codes; one scale byte for each 32 columns of a row, scale tensor `[rows, ceil(columns / 32)]`.
    /// See [`crate::integer`].
    Integer(IntegerWidth),
}

impl MatrixFormat {
    /// FP8 in blocks of 128 × 128 with E8M0 scales: the dense matrices of V4.
    pub const FP8: MatrixFormat = MatrixFormat::Fp8Block {
        rows: 128,
        columns: 128,
        scale: ScaleDtype::E8m0,
    };
    /// FP8 in blocks of 128 × 128 with F32 scales: V3 and the -Base releases of V4.
    pub const FP8_F32: MatrixFormat = MatrixFormat::Fp8Block {
        rows: 128,
        columns: 128,
        scale: ScaleDtype::F32,
    };
    /// FP4 in groups of 32: the routed experts of V4.
    pub const FP4: MatrixFormat = MatrixFormat::Fp4Group { group: 32 };

    /// Element type of the stored weight tensor.
    pub const fn dtype(self) -> Dtype {
        match self {
            MatrixFormat::F32 => Dtype::F32,
            MatrixFormat::Bf16 => Dtype::Bf16,
            MatrixFormat::Fp8Block { .. } => Dtype::F8E4m3,
            MatrixFormat::Fp4Group { .. } => Dtype::I8,
            MatrixFormat::Integer(_) => Dtype::U8,
        }
    }

    /// Shape of the stored weight tensor: packed FP4 halves the columns, integers have those of their bytes.
    pub const fn weight_shape(self, rows: usize, columns: usize) -> [usize; 2] {
        match self {
            MatrixFormat::Fp4Group { .. } => [rows, columns.div_ceil(2)],
            MatrixFormat::Integer(width) => [rows, width.row_byte_count(columns)],
            _ => [rows, columns],
        }
    }

    /// Columns of a matrix whose stored weight tensor has `stored` columns; none if packed codes do not fill it.
    pub const fn columns(self, stored: usize) -> Option<usize> {
        match self {
            MatrixFormat::Fp4Group { .. } => stored.checked_mul(2),
            MatrixFormat::Integer(width) => width.columns(stored),
            _ => Some(stored),
        }
    }

    /// Element type and shape of the scale tensor, if the format has one.
    pub const fn scale_shape(self, rows: usize, columns: usize) -> Option<(Dtype, [usize; 2])> {
        match self {
            MatrixFormat::F32 | MatrixFormat::Bf16 => None,
            MatrixFormat::Fp8Block {
                rows: block_rows,
                columns: block_columns,
                scale,
            } => Some((
                scale.dtype(),
                [rows.div_ceil(block_rows), columns.div_ceil(block_columns)],
            )),
            MatrixFormat::Fp4Group { group } => Some((Dtype::F8E8m0, [rows, columns.div_ceil(group)])),
            MatrixFormat::Integer(_) => Some((Dtype::U8, [rows, columns.div_ceil(integer::GROUP)])),
        }
    }

    /// Bytes of one stored row of weights, without scales.
    pub const fn row_byte_count(self, columns: usize) -> usize {
        self.weight_shape(1, columns)[1] * self.dtype().byte_count()
    }

    /// Bytes of weights and scales together.
    pub const fn byte_count(self, rows: usize, columns: usize) -> usize {
        let scales = match self.scale_shape(rows, columns) {
            Some((dtype, shape)) => shape[0] * shape[1] * dtype.byte_count(),
            None => 0,
        };
        rows * self.row_byte_count(columns) + scales
    }

    /// Decodes row `row` of a matrix of `columns` columns into `out`. Exact.
    ///
    /// `weights` and `scales` are the bytes of the whole matrix (`scales` is empty for plain formats).
    ///
    /// # Panics
    /// If `out` is not `columns` long or the bytes are too short.
    pub fn decode_row(self, weights: &[u8], scales: &[u8], columns: usize, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), columns, "one value for each column");
        let row_byte_count = self.row_byte_count(columns);
        let codes = &weights[row * row_byte_count..(row + 1) * row_byte_count];
        match self {
            MatrixFormat::F32 => {
                for (value, bytes) in out.iter_mut().zip(codes.as_chunks::<4>().0) {
                    *value = f32::from_le_bytes(*bytes);
                }
            }
            MatrixFormat::Bf16 => {
                for (value, bytes) in out.iter_mut().zip(codes.as_chunks::<2>().0) {
                    *value = bf16::decode(u16::from_le_bytes(*bytes));
                }
            }
            MatrixFormat::Fp8Block {
                rows: block_rows,
                columns: block_columns,
                scale,
            } => {
                let first = row / block_rows * columns.div_ceil(block_columns);
                let blocks = out.chunks_mut(block_columns).zip(codes.chunks(block_columns));
                for (block, (out, codes)) in blocks.enumerate() {
                    let factor = scale.decode(scales, first + block);
                    for (value, code) in out.iter_mut().zip(codes) {
                        *value = e4m3::decode(*code) * factor;
                    }
                }
            }
            MatrixFormat::Fp4Group { group } => {
                let first = row * columns.div_ceil(group);
                let groups = out.chunks_mut(group).zip(codes.chunks(group / 2));
                for (index, (out, codes)) in groups.enumerate() {
                    let factor = e8m0::decode(scales[first + index]);
                    for (pair, byte) in out.chunks_mut(2).zip(codes) {
                        let values = e2m1::decode_pair(*byte);
                        for (value, decoded) in pair.iter_mut().zip(values) {
                            *value = decoded * factor;
                        }
                    }
                }
            }
            MatrixFormat::Integer(width) => {
                let group_count = columns.div_ceil(integer::GROUP);
                width.decode_row(codes, &scales[row * group_count..][..group_count], out);
            }
        }
    }
}

impl fmt::Display for MatrixFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MatrixFormat::F32 => formatter.write_str("F32"),
            MatrixFormat::Bf16 => formatter.write_str("BF16"),
            MatrixFormat::Fp8Block { rows, columns, scale } => {
                write!(formatter, "FP8 e4m3 {rows}x{columns} with {} scales", scale.dtype())
            }
            MatrixFormat::Fp4Group { group } => {
                write!(formatter, "FP4 e2m1 groups of {group} with F8_E8M0 scales")
            }
            MatrixFormat::Integer(width) => {
                write!(
                    formatter,
                    "{width} in groups of {} with one-byte scales",
                    integer::GROUP
                )
            }
        }
    }
}

/// Decodes a whole matrix into row-major `f32`: for tests and conversions, not for the hot path.
///
/// # Panics
/// If the bytes are too short for the shape.
pub fn decode_matrix(format: MatrixFormat, weights: &[u8], scales: &[u8], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; rows * columns];
    for (row, out) in out.chunks_exact_mut(columns.max(1)).enumerate() {
        format.decode_row(weights, scales, columns, row, out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_counts_follow_the_published_expert_size() {
        // Flash: w1 and w3 are [2048, 4096], w2 [4096, 2048]; spec: 13,369,344 bytes an expert.
        let expert = 2 * MatrixFormat::FP4.byte_count(2048, 4096) + MatrixFormat::FP4.byte_count(4096, 2048);
        assert_eq!(expert, 13_369_344);
        // Pro: [3072, 7168] twice and [7168, 3072]; spec: 35,094,528 bytes.
        let expert = 2 * MatrixFormat::FP4.byte_count(3072, 7168) + MatrixFormat::FP4.byte_count(7168, 3072);
        assert_eq!(expert, 35_094_528);
    }

    #[test]
    fn partial_blocks_use_their_own_scale() {
        let format = MatrixFormat::FP8;
        let (rows, columns) = (130, 129);
        assert_eq!(format.scale_shape(rows, columns), Some((Dtype::F8E8m0, [2, 2])));
        let weights = vec![0x38u8; rows * columns]; // 1.0
        let values = decode_matrix(format, &weights, &[127, 128, 129, 130], rows, columns);
        assert_eq!(values[0], 1.0);
        assert_eq!(values[128], 2.0);
        assert_eq!(values[128 * columns], 4.0);
        assert_eq!(values[129 * columns + 128], 8.0);
    }

    #[test]
    fn fp4_groups_run_along_the_row() {
        let mut weights = vec![0x22u8; 32]; // 64 columns of 1.0
        weights[16] = 0xF2; // column 32: 1.0, column 33: -6.0
        let values = decode_matrix(MatrixFormat::FP4, &weights, &[126, 129], 1, 64);
        assert_eq!(&values[30..35], &[0.5, 0.5, 4.0, -24.0, 4.0]);
    }
}
