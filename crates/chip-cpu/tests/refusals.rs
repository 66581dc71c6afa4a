//! Handles that no operator of this chip may touch.

use std::sync::Arc;

use bytes::Bytes;
use cachalot_chip::{Add, Chip, ChipTransfer, Error, Linear, LinearRounding, MatrixSource, Mode, Tensor, TensorSource};
use cachalot_chip_cpu::{CpuChip, CpuOptions};
use cachalot_numerics::{Dtype, MatrixFormat};

/// `out = a + a` with `a` from the test.
fn add(chip: &CpuChip, a: &Tensor) -> Result<Vec<f32>, Error> {
    let out = chip.allocate(Dtype::F32, a.shape())?;
    chip.enqueue(Mode::Reference, &Add { a, b: a, out: &out }.into())?;
    chip.read_f32(&out)
}

/// Chips do not wait for each other, so a tensor of both would be written by two threads at once.
#[test]
fn a_tensor_belongs_to_one_chip() {
    let [first, second] = [0, 1].map(|_| CpuChip::new(CpuOptions::default()));
    let tensor = first.allocate(Dtype::F32, &[2]).unwrap();
    first.write_f32(&tensor, &[1.0, 2.0]).unwrap();
    assert_eq!(add(&first, &tensor).unwrap(), [2.0, 4.0]);
    assert!(matches!(add(&second, &tensor), Err(Error::ForeignTensor { .. })));
    assert!(matches!(
        second.write_f32(&tensor, &[0.0; 2]),
        Err(Error::ForeignTensor { .. })
    ));
    assert!(matches!(second.read_f32(&tensor), Err(Error::ForeignTensor { .. })));
}

#[test]
fn another_view_of_a_buffer_stays_within_it() {
    let chip = CpuChip::new(CpuOptions::default());
    let load = |data: Bytes| {
        chip.load(TensorSource {
            name: "bytes".to_owned(),
            dtype: Dtype::U8,
            shape: vec![8],
            data,
        })
    };
    let words = Bytes::from_owner(Arc::<[u8]>::from(vec![0u8; 32]));
    let aligned = (words.as_ptr() as usize).next_multiple_of(4) - words.as_ptr() as usize;
    for shift in 0..4 {
        let bytes = load(words.slice(aligned + shift..aligned + shift + 8)).unwrap();
        let floats = Tensor::new(Arc::clone(bytes.buffer()), Dtype::F32, &[2]);
        match add(&chip, &floats) {
            Ok(sums) => assert_eq!((shift, sums), (0, vec![0.0; 2])),
            Err(error) => assert!(shift > 0 && matches!(error, Error::Argument { .. }), "{error}"),
        }
    }
    let bytes = load(words.slice(..8)).unwrap();
    let longer = Tensor::new(Arc::clone(bytes.buffer()), Dtype::U8, &[9]);
    assert!(matches!(chip.read(&longer, &mut [0; 9]), Err(Error::Argument { .. })));
}

#[test]
fn sizes_beyond_the_address_space_are_errors() {
    let chip = CpuChip::new(CpuOptions::default());
    // Four times this wraps to four bytes.
    let shape = vec![usize::MAX / 4 + 2];
    assert!(matches!(
        chip.allocate(Dtype::F32, &shape),
        Err(Error::OutOfMemory { .. })
    ));
    let source = TensorSource {
        name: "wrapped".to_owned(),
        dtype: Dtype::F32,
        shape,
        data: Bytes::from_static(&[0; 4]),
    };
    assert!(matches!(chip.load(source), Err(Error::SourceLength { .. })));
}

/// The fast kernels do not carry e4m3's NaN through, so in every mode it ends at the matrix's first use.
#[test]
fn a_nan_weight_is_named() {
    let chip = CpuChip::new(CpuOptions::default());
    let mut weights = vec![0x38u8; 3 * 5000];
    weights[2 * 5000 + 17] = 0xFF;
    let weight = chip
        .load_matrix(MatrixSource {
            name: "layers.0.attn.wq_a".to_owned(),
            rows: 3,
            columns: 5000,
            format: MatrixFormat::FP8,
            weights: weights.into(),
            scales: vec![127; 40].into(),
        })
        .unwrap();
    let x = chip.allocate(Dtype::F32, &[1, 5000]).unwrap();
    let out = chip.allocate(Dtype::F32, &[1, 3]).unwrap();
    for mode in Mode::ALL {
        let rounding = LinearRounding::F32;
        let linear = Linear {
            x: &x,
            weight: &weight,
            rounding,
            out: &out,
        };
        let error = chip.enqueue(mode, &linear.into()).unwrap_err();
        let (name, index) = ("layers.0.attn.wq_a".to_owned(), 10017);
        assert_eq!(error, Error::BadWeight { name, index });
    }
}
