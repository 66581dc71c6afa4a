//! The portable reference against values worked out by hand.

use cachalot_chip::{
    Attention, Chip, ChipTransfer, Compress, Entries, HyperPost, Mode, PackRows, RmsNorm, RowFormat, Rows, SwiGlu,
    Tensor,
};
use cachalot_chip_cpu::{CpuChip, CpuOptions, Kernels};
use cachalot_numerics::Dtype;

fn chip() -> CpuChip {
    CpuChip::new(CpuOptions {
        threads: 1,
        kernels: Kernels::Portable,
        ..CpuOptions::default()
    })
}

fn f32s(chip: &CpuChip, shape: &[usize], values: &[f32]) -> Tensor {
    let tensor = chip.allocate(Dtype::F32, shape).unwrap();
    chip.write_f32(&tensor, values).unwrap();
    tensor
}

fn i32s(chip: &CpuChip, values: &[i32]) -> Tensor {
    let tensor = chip.allocate(Dtype::I32, &[values.len()]).unwrap();
    chip.write_i32(&tensor, values).unwrap();
    tensor
}

fn assert_close(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let is_close = (f64::from(*found) - expected).abs() <= 1e-6 * expected.abs().max(1.0);
        assert!(is_close, "found {found}, expected {expected}");
    }
}

#[test]
fn the_norm_divides_by_the_root_of_the_mean_square_plus_epsilon() {
    let chip = chip();
    let x = f32s(&chip, &[1, 2], &[3.0, 4.0]);
    let weight = f32s(&chip, &[2], &[2.0, 10.0]);
    let norm = RmsNorm {
        x: &x,
        weight: Some(&weight),
        epsilon: 0.5,
        out: &x,
    };
    chip.enqueue(Mode::Reference, &norm.into()).unwrap();
    // The mean square of 3 and 4 is 12.5.
    let root = 13f64.sqrt();
    assert_close(&chip.read_f32(&x).unwrap(), &[6.0 / root, 40.0 / root]);
}

#[test]
fn streams_are_combined_by_source_row_and_destination_column() {
    let chip = chip();
    let y = f32s(&chip, &[1, 1], &[1.0]);
    let post = f32s(&chip, &[1, 2], &[0.5, 0.25]);
    let comb = f32s(&chip, &[1, 2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let streams = f32s(&chip, &[1, 2, 1], &[10.0, 100.0]);
    let operation = HyperPost {
        y: &y,
        post: &post,
        comb: &comb,
        streams: &streams,
    };
    chip.enqueue(Mode::Reference, &operation.into()).unwrap();
    assert_eq!(chip.read_f32(&streams).unwrap(), [310.5, 420.25]);
}

#[test]
fn swiglu_clamps_the_gate_from_above_and_the_other_side_on_both_ends() {
    let chip = chip();
    let gate = f32s(&chip, &[1, 3], &[20.0, -20.0, 1.0]);
    let up = f32s(&chip, &[1, 3], &[-30.0, 5.0, 30.0]);
    let out = chip.allocate(Dtype::F32, &[1, 3]).unwrap();
    let swiglu = SwiGlu {
        gate: &gate,
        up: &up,
        limit: 10.0,
        out: &out,
    };
    chip.enqueue(Mode::Reference, &swiglu.into()).unwrap();
    let silu = |x: f64| x / (1.0 + (-x).exp());
    let expected = [silu(10.0) * -10.0, silu(-20.0) * 5.0, silu(1.0) * 10.0];
    assert_close(&chip.read_f32(&out).unwrap(), &expected);
}

#[test]
fn a_nan_gate_stays_nan() {
    let chip = chip();
    let [gate, up] = [[f32::NAN], [1.0]].map(|values| f32s(&chip, &[1, 1], &values));
    let out = chip.allocate(Dtype::F32, &[1, 1]).unwrap();
    let swiglu = SwiGlu {
        gate: &gate,
        up: &up,
        limit: 10.0,
        out: &out,
    };
    chip.enqueue(Mode::Reference, &swiglu.into()).unwrap();
    assert!(chip.read_f32(&out).unwrap()[0].is_nan());
}

#[test]
fn a_packed_row_has_codes_then_tail_then_scales() {
    let chip = chip();
    let mut values = vec![0.0; 130];
    // First group: largest 448, so the scale is 1. Second group: 896, so 2. The tail is bf16.
    (values[0], values[1], values[64], values[128], values[129]) = (448.0, -1.0, 896.0, 1.0, -2.0);
    let x = f32s(&chip, &[1, 130], &values);
    let out = chip.allocate(Dtype::U8, &[1, 140]).unwrap();
    let pack = PackRows {
        x: &x,
        tail: 2,
        format: RowFormat::Fp8Tail,
        out: &out,
    };
    chip.enqueue(Mode::Reference, &pack.into()).unwrap();
    let mut bytes = vec![0; 140];
    chip.read(&out, &mut bytes).unwrap();
    assert_eq!((bytes[0], bytes[1], bytes[64]), (0x7E, 0xB8, 0x7E));
    assert_eq!(&bytes[128..132], &[0x80, 0x3F, 0x00, 0xC0]);
    assert_eq!(&bytes[132..], &[127, 128, 0, 0, 0, 0, 0, 0]);
}

/// The rows of one new sequence.
struct OneSequence([Tensor; 4]);

impl OneSequence {
    fn new(chip: &CpuChip, row_count: i32) -> Self {
        let positions: Vec<i32> = (0..row_count).collect();
        let sequences = vec![0; row_count as usize];
        OneSequence([
            i32s(chip, &positions),
            i32s(chip, &sequences),
            i32s(chip, &[0, row_count]),
            i32s(chip, &[0]),
        ])
    }

    fn rows(&self) -> Rows<'_> {
        let [positions, sequences, first_rows, slots] = &self.0;
        Rows {
            positions,
            sequences,
            first_rows,
            slots,
        }
    }
}

#[test]
fn attention_shares_its_weight_with_the_sink() {
    let chip = chip();
    let sequence = OneSequence::new(&chip, 2);
    let query = f32s(&chip, &[2, 1, 2], &[1.0, 0.0, 1.0, 0.0]);
    let fresh = chip.allocate(Dtype::U8, &[2, 8]).unwrap();
    let keys: Vec<u8> = [2.0f32, 5.0, -1.0, 7.0]
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    chip.write(&fresh, &keys).unwrap();
    let tail = chip.allocate(Dtype::U8, &[1, 4, 8]).unwrap();
    let sink = f32s(&chip, &[1], &[0.25]);
    let out = chip.allocate(Dtype::F32, &[2, 1, 2]).unwrap();
    let attention = Attention {
        rows: sequence.rows(),
        query: &query,
        fresh: &fresh,
        tail: &tail,
        format: RowFormat::F32,
        rotary: 0,
        window: 4,
        entries: None,
        sink: &sink,
        scale: 0.5,
        out: &out,
    };
    chip.enqueue(Mode::Reference, &attention.into()).unwrap();
    // Scores are half the first channel: 1 and -0.5.
    let (first, second, sink) = (1f64.exp(), (-0.5f64).exp(), 0.25f64.exp());
    let (one, both) = (first + sink, first + second + sink);
    let expected = [
        2.0 * first / one,
        5.0 * first / one,
        (2.0 * first - second) / both,
        (5.0 * first + 7.0 * second) / both,
    ];
    assert_close(&chip.read_f32(&out).unwrap(), &expected);
}

#[test]
fn overlapping_windows_take_the_first_half_of_the_window_before() {
    let chip = chip();
    let sequence = OneSequence::new(&chip, 4);
    // Two channels: the first serves the next window, the second its own. Equal gates make means.
    let kv = f32s(&chip, &[4, 2], &[1.0, 10.0, 3.0, 30.0, 5.0, 50.0, 7.0, 90.0]);
    let gate = f32s(&chip, &[4, 2], &[0.0; 8]);
    let ring = f32s(&chip, &[1, 3, 2], &[f32::NAN; 6]);
    let ape = f32s(&chip, &[2, 2], &[0.0; 4]);
    // With a huge epsilon the norm divides by its root, 1024, and keeps the mean visible.
    let norm = f32s(&chip, &[1], &[1024.0]);
    let frequencies = chip.allocate(Dtype::F32, &[0]).unwrap();
    let pool = chip.allocate(Dtype::U8, &[2, 1, 4]).unwrap();
    let page_table = i32s(&chip, &[1, 0]).reshape(&[1, 2]);
    let compress = Compress {
        rows: sequence.rows(),
        kv: &kv,
        gate: &gate,
        kv_tail: &ring,
        gate_tail: &ring,
        ape: &ape,
        norm: &norm,
        norm_epsilon: 1_048_576.0,
        frequencies: &frequencies,
        overlap: true,
        out: Entries {
            pool: &pool,
            page_table: &page_table,
            format: RowFormat::F32,
            width: 1,
            tail: 0,
            ratio: 2,
        },
    };
    chip.enqueue(Mode::Reference, &compress.into()).unwrap();
    let mut bytes = vec![0; 8];
    chip.read(&pool, &mut bytes).unwrap();
    let entries: Vec<f32> = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    // Window 0 has its own two rows only, window 1 also the first halves of window 0; the pages are swapped.
    let normed = |mean: f64| 1024.0 * mean / (mean * mean + 1_048_576.0).sqrt();
    assert_close(&entries, &[normed((1.0 + 3.0 + 50.0 + 90.0) / 4.0), normed(20.0)]);
}
