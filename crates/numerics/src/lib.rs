//! Number formats of the DeepSeek checkpoints, bit for bit.
//!
//! | module | holds |
//! | --- | --- |
//! | [`bf16`], [`e4m3`], [`e8m0`], [`e2m1`] | element codecs: decode exactly, encode to nearest with ties to the even code |
//! | [`Dtype`] | element types as they are named in safetensors headers |
//! | [`MatrixFormat`] | how a weight matrix is laid out (plain, FP8 blocks, FP4 groups, integers) and how many bytes it takes |
//! | [`integer`], [`requantise`] | low-bit integer groups: what codes and scales mean, and how weights become them |
//! | [`quantise`] | rounding of activations, KV rows and index keys to scaled groups |
//! | [`hadamard`] | the orthonormal Walsh-Hadamard transform of the V4 indexer |
//!
//! This crate must not know files, chips or models. Facts: `spec/quantization.md` of the design notes,
//! checked against torch's dtypes by `tools/fixtures/number_formats.py`.
//!
//! ```
//! use cachalot_numerics::{e2m1, e4m3, e8m0};
//! assert_eq!(e4m3::decode(0x7E), 448.0);
//! assert_eq!(e4m3::encode(1000.0), 0x7E);
//! assert_eq!(e2m1::decode(0b1011), -1.5);
//! assert_eq!(e8m0::decode(127), 1.0);
//! ```

pub mod bf16;
mod dtype;
pub mod e2m1;
pub mod e4m3;
pub mod e8m0;
pub mod hadamard;
pub mod integer;
mod matrix;
pub mod quantise;
pub mod requantise;

pub use dtype::Dtype;
pub use integer::IntegerWidth;
pub use matrix::{MatrixFormat, ScaleDtype, decode_matrix};
