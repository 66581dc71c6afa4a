//! Deterministic data: the same seed gives the same case on every machine.

use bytes::Bytes;
use cachalot_numerics::{IntegerWidth, MatrixFormat, ScaleDtype, bf16, e2m1, e4m3};

use crate::MatrixSource;

/// Every storage format of weights, with the block sizes of all releases.
pub(super) const FORMATS: [MatrixFormat; 9] = [
    MatrixFormat::F32,
    MatrixFormat::Bf16,
    MatrixFormat::FP8,
    MatrixFormat::FP8_F32,
    MatrixFormat::Fp8Block {
        rows: 32,
        columns: 32,
        scale: ScaleDtype::E8m0,
    },
    MatrixFormat::FP4,
    MatrixFormat::Integer(IntegerWidth::Int4),
    MatrixFormat::Integer(IntegerWidth::Int6),
    MatrixFormat::Integer(IntegerWidth::Int8),
];

/// A generator of pseudo-random values (SplitMix64).
pub(super) struct Values(u64);

impl Values {
    pub fn new(seed: u64) -> Self {
        Values(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.bits() % limit.max(1) as u64) as usize
    }

    /// Uniform in -1 ..= 1.
    pub fn signed(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Nearly normal: the sum of three uniform numbers, which has variance 1.
    pub fn normal(&mut self) -> f32 {
        self.signed() + self.signed() + self.signed()
    }

    pub fn floats(&mut self, count: usize, deviation: f32) -> Vec<f32> {
        (0..count).map(|_| self.normal() * deviation).collect()
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.bits() as u8).collect()
    }

    /// A random order of `0 .. count`.
    pub fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for i in (1..count).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }

    /// A matrix whose product with activations of deviation 1 has a deviation near 1.
    pub fn matrix(&mut self, rows: usize, columns: usize, format: MatrixFormat) -> MatrixSource {
        let deviation = 1.0 / (columns.max(1) as f32).sqrt();
        let weight_count = rows * format.row_byte_count(columns) / format.dtype().byte_count();
        let mut weights = Vec::with_capacity(rows * format.row_byte_count(columns));
        for _ in 0..weight_count {
            let value = self.normal();
            match format {
                MatrixFormat::F32 => weights.extend((value * deviation).to_le_bytes()),
                MatrixFormat::Bf16 => weights.extend(bf16::encode(value * deviation).to_le_bytes()),
                MatrixFormat::Fp8Block { .. } => weights.push(e4m3::encode(value * 64.0)),
                MatrixFormat::Fp4Group { .. } => weights.push(e2m1::encode_pair(value * 2.0, self.normal() * 2.0)),
                // Any byte is whole codes or parts of them.
                MatrixFormat::Integer(_) => weights.push(self.bits() as u8),
                _ => panic!("no random weights for {format}"),
            }
        }
        let code_deviation = match format {
            MatrixFormat::Fp4Group { .. } => 2.0,
            // Codes are uniform from -offset to offset.
            MatrixFormat::Integer(width) => f32::from(width.offset()) / 3f32.sqrt(),
            _ => 64.0,
        };
        let scales = self.scales(rows, columns, format, deviation / code_deviation);
        MatrixSource {
            name: "weight".to_owned(),
            rows,
            columns,
            format,
            weights: Bytes::from(weights),
            scales: Bytes::from(scales),
        }
    }

    fn scales(&mut self, rows: usize, columns: usize, format: MatrixFormat, scale: f32) -> Vec<u8> {
        let Some((dtype, shape)) = format.scale_shape(rows, columns) else {
            return Vec::new();
        };
        let exponent = (scale.to_bits() >> 23) as u8;
        let mut scales = Vec::new();
        for _ in 0..shape[0] * shape[1] {
            if let MatrixFormat::Integer(width) = format {
                scales.push(self.integer_scale(width, exponent));
            } else if dtype.byte_count() == 1 {
                scales.push(exponent - 1 + self.below(3) as u8);
            } else {
                scales.extend((scale * (1.0 + 0.5 * self.signed())).to_le_bytes());
            }
        }
        scales
    }

    /// A scale byte within two octaves of the power of two with this exponent of `f32`.
    fn integer_scale(&mut self, width: IntegerWidth, exponent: u8) -> u8 {
        let middle = i32::from(exponent) - EXPONENT_OF_SCALE_ZERO;
        let code = (4 * middle + self.below(8) as i32 - 4).clamp(0, 0x7F) as u8 | (self.bits() & 0x80) as u8;
        match width {
            IntegerWidth::Int8 => code & 0x7C,
            _ => code,
        }
    }
}

/// Exponent of `f32` that the smallest scale byte stands for.
const EXPONENT_OF_SCALE_ZERO: i32 = 127 - 25;
