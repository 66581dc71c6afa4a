//! The codecs against torch and ml_dtypes, bit for bit.
//!
//! Expected values: `fixtures/formats.safetensors`, written by `tools/fixtures/number_formats.py`.

use cachalot_numerics::{MatrixFormat, bf16, e2m1, e4m3, e8m0, hadamard, quantise};
use safetensors::SafeTensors;

static FILE: &[u8] = include_bytes!("fixtures/formats.safetensors");

fn bytes(name: &str) -> &'static [u8] {
    let file = SafeTensors::deserialize(FILE).expect("the fixture is a safetensors file");
    file.tensor(name)
        .unwrap_or_else(|error| panic!("{name}: {error}"))
        .data()
}

fn f32s(name: &str) -> Vec<f32> {
    let (values, _) = bytes(name).as_chunks::<4>();
    values.iter().map(|le| f32::from_le_bytes(*le)).collect()
}

fn u16s(name: &str) -> Vec<u16> {
    let (values, _) = bytes(name).as_chunks::<2>();
    values.iter().map(|le| u16::from_le_bytes(*le)).collect()
}

/// A tensor of bf16 codes as values.
fn bf16s(name: &str) -> Vec<f32> {
    u16s(name).into_iter().map(bf16::decode).collect()
}

#[track_caller]
fn assert_same_value(actual: f32, expected: f32, place: impl std::fmt::Display) {
    let same = actual.to_bits() == expected.to_bits() || actual.is_nan() && expected.is_nan();
    assert!(same, "{place}: got {actual:e}, expected {expected:e}");
}

#[track_caller]
fn assert_same_values(actual: &[f32], expected: &[f32], place: &str) {
    assert_eq!(actual.len(), expected.len(), "{place}");
    for (index, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        assert_same_value(*actual, *expected, format_args!("{place}[{index}]"));
    }
}

#[test]
fn decoding_agrees_on_every_code() {
    for (code, value) in f32s("e4m3.values").into_iter().enumerate() {
        assert_same_value(e4m3::decode(code as u8), value, format_args!("e4m3 {code:#x}"));
    }
    for (code, value) in f32s("e8m0.values").into_iter().enumerate() {
        assert_same_value(e8m0::decode(code as u8), value, format_args!("e8m0 {code:#x}"));
    }
    for (code, value) in f32s("e2m1.values").into_iter().enumerate() {
        assert_same_value(e2m1::decode(code as u8), value, format_args!("e2m1 {code:#x}"));
    }
    for (code, value) in u16s("bf16.codes").into_iter().zip(f32s("bf16.values")) {
        assert_same_value(bf16::decode(code), value, format_args!("bf16 {code:#x}"));
    }
}

#[test]
fn all_bf16_values_together_agree() {
    // The file samples the 65,536 values and holds the FNV-1a hash of all of them, NaN payloads included.
    let mut hash = 0xCBF2_9CE4_8422_2325u64;
    for code in 0..=u16::MAX {
        for byte in bf16::decode(code).to_le_bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3);
        }
    }
    let expected = bytes("bf16.values_fnv1a64").try_into();
    assert_eq!(hash, u64::from_le_bytes(expected.expect("eight bytes")));
}

#[test]
fn encoding_agrees_on_ties_neighbours_and_overflow() {
    let check = |format: &str, encode: fn(f32) -> u8| {
        let codes = bytes(&format!("{format}_codes"));
        for (value, code) in f32s(&format!("{format}_input")).into_iter().zip(codes) {
            assert_eq!(encode(value), *code, "{format} of {value:e}");
        }
    };
    check("e4m3.encode", e4m3::encode);
    check("e2m1.encode", e2m1::encode);
    check("e8m0.encode_ceil", e8m0::encode_ceil);

    let codes = u16s("bf16.encode_codes");
    for (value, code) in f32s("bf16.encode_input").into_iter().zip(codes) {
        assert_eq!(bf16::encode(value), code, "bf16 of {value:e}");
    }
}

#[test]
fn scales_of_groups_agree_at_the_edges_of_powers_of_two() {
    let check = |format: &str, scale: fn(&[f32]) -> u8| {
        let codes = bytes(&format!("{format}_scale.codes"));
        for (maximum, code) in f32s(&format!("{format}_scale.maximum")).into_iter().zip(codes) {
            assert_eq!(scale(&[0.0, -maximum]), *code, "{format}: {maximum:e}");
        }
    };
    check("fp8", quantise::fp8_scale);
    check("fp4", quantise::fp4_scale);
}

/// Rows of one kind of group, as stored and as rounded.
#[track_caller]
fn check_groups(
    name: &str,
    group: usize,
    row_length: usize,
    encode: fn(&[f32], usize, &mut [u8], &mut [u8]),
    round: fn(&mut [f32], usize),
) {
    let codes = bytes(&format!("{name}.codes"));
    let scales = bytes(&format!("{name}.scales"));
    let values = bf16s(&format!("{name}.values"));
    let rows = bf16s(&format!("{name}.input"));
    let row_count = rows.len() / row_length;
    let code_count = codes.len() / row_count;
    let scale_count = scales.len() / row_count;
    for (index, row) in rows.chunks_exact(row_length).enumerate() {
        let place = format!("{name} row {index}");
        let mut actual_codes = vec![0; code_count];
        let mut actual_scales = vec![0; scale_count];
        encode(row, group, &mut actual_codes, &mut actual_scales);
        assert_eq!(actual_scales, scales[index * scale_count..][..scale_count], "{place}");
        assert_eq!(actual_codes, codes[index * code_count..][..code_count], "{place}");

        let mut rounded = row.to_vec();
        round(&mut rounded, group);
        assert_same_values(&rounded, &values[index * row_length..][..row_length], &place);
    }
}

#[test]
fn quantised_groups_agree() {
    check_groups("activation", 128, 328, quantise::encode_fp8, quantise::round_fp8);
    check_groups("window", 64, 192, quantise::encode_fp8, quantise::round_fp8);
    check_groups("index", 32, 128, quantise::encode_fp4, quantise::round_fp4);
}

#[test]
fn index_keys_agree_through_hadamard_bf16_and_fp4() {
    let outputs = bf16s("hadamard.output");
    let codes = bytes("hadamard.codes").chunks_exact(64);
    let scales = bytes("hadamard.scales").chunks_exact(4);
    let rows = bf16s("hadamard.input");
    for (index, ((row, output), (codes, scales))) in rows
        .chunks_exact(128)
        .zip(outputs.chunks_exact(128))
        .zip(codes.zip(scales))
        .enumerate()
    {
        let mut transformed = row.to_vec();
        hadamard::transform(&mut transformed);
        transformed.iter_mut().for_each(|value| *value = bf16::round(*value));
        assert_same_values(&transformed, output, &format!("hadamard row {index}"));

        let (mut actual_codes, mut actual_scales) = ([0; 64], [0; 4]);
        quantise::encode_fp4(&transformed, 32, &mut actual_codes, &mut actual_scales);
        assert_eq!(actual_scales, scales, "hadamard row {index}");
        assert_eq!(actual_codes, codes, "hadamard row {index}");
    }
}

#[test]
fn stored_matrices_decode_exactly() {
    for (name, format, columns) in [
        ("fp8_e8m0", MatrixFormat::FP8, 133),
        ("fp8_f32", MatrixFormat::FP8_F32, 133),
        ("fp4", MatrixFormat::FP4, 96),
    ] {
        let (weights, scales) = (bytes(&format!("{name}.weight")), bytes(&format!("{name}.scale")));
        let (rows, _) = bytes(&format!("{name}.rows")).as_chunks::<4>();
        let values = f32s(&format!("{name}.values"));
        for (row, expected) in rows.iter().zip(values.chunks_exact(columns)) {
            let row = i32::from_le_bytes(*row) as usize;
            let mut actual = vec![0.0; columns];
            format.decode_row(weights, scales, columns, row, &mut actual);
            assert_same_values(&actual, expected, &format!("{name} row {row}"));
        }
    }
}
