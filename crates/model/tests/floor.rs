//! What a token of V4-Flash must read and compute, counted by running the forward pass at its true shapes on a chip that
//! computes nothing. The expected numbers are those of the V4 architecture notes, section 9.

use std::{
    any::Any,
    fs::{self, File},
    io::Write,
    path::Path,
    sync::{Arc, Mutex},
};

use cachalot_checkpoint::{Checkpoint, DeepseekV4Config, inventory, published};
use cachalot_chip::{
    Buffer, Chip, ChipTransfer, Cost, Description, Error, Evidence, Matrix, MatrixSource, Mode, Operation,
    OperationKind, Support, Tensor, TensorSource, profile::ProfiledChip,
};
use cachalot_model::{Chunk, Model, ModelOptions, Outputs, StateOptions};
use cachalot_numerics::Dtype;

/// Keeps what is written to `I32` tensors, since costs depend on positions and choices, and nothing else.
#[derive(Debug, Default)]
struct Idle(Mutex<Vec<u8>>);

impl Buffer for Idle {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct IdleChip;

fn content(tensor: &Tensor) -> &Mutex<Vec<u8>> {
    &tensor
        .buffer()
        .as_any()
        .downcast_ref::<Idle>()
        .expect("an idle tensor")
        .0
}

impl Chip for IdleChip {
    fn description(&self) -> Description {
        Description {
            name: "idle".to_owned(),
            details: String::new(),
            evidence: Evidence::Planned,
        }
    }

    fn support(&self, _: OperationKind, _: Mode) -> Support {
        Support::Missing
    }

    fn allocate(&self, dtype: Dtype, shape: &[usize]) -> Result<Tensor, Error> {
        Ok(Tensor::new(Arc::new(Idle::default()), dtype, shape))
    }

    fn load(&self, source: TensorSource) -> Result<Tensor, Error> {
        source.check()?;
        self.allocate(source.dtype, &source.shape)
    }

    fn load_matrix(&self, source: MatrixSource) -> Result<Matrix, Error> {
        source.check()?;
        let buffer = Arc::new(Idle::default());
        Ok(Matrix::new(buffer, source.rows, source.columns, source.format))
    }

    fn write(&self, tensor: &Tensor, bytes: &[u8]) -> Result<(), Error> {
        if tensor.dtype() == Dtype::I32 {
            let mut content = content(tensor).lock().expect("no panic");
            let end = tensor.byte_offset() + bytes.len();
            let length = content.len().max(end);
            content.resize(length, 0);
            content[tensor.byte_offset()..end].copy_from_slice(bytes);
        }
        Ok(())
    }

    fn read(&self, tensor: &Tensor, bytes: &mut [u8]) -> Result<(), Error> {
        let content = content(tensor).lock().expect("no panic");
        bytes.copy_from_slice(&content[tensor.byte_offset()..][..bytes.len()]);
        Ok(())
    }

    fn enqueue(&self, _: Mode, operation: &Operation<'_>) -> Result<(), Error> {
        operation.check()?;
        if let Operation::Route(route) = operation {
            let count = route.experts.shape()[1] as i32;
            let chosen: Vec<i32> = (0..route.experts.element_count() as i32).map(|i| i % count).collect();
            self.write_i32(route.experts, &chosen)?;
        }
        Ok(())
    }

    fn synchronize(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// A checkpoint of the true size that is all holes: no disk, no memory.
fn hollow(folder: &Path, config_text: &str) -> Checkpoint {
    let config = DeepseekV4Config::from_json(config_text, Path::new("config.json")).expect("published");
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for tensor in inventory::tensors(&config) {
        let start = end;
        end += tensor.byte_count();
        let entry = serde_json::json!({
            "dtype": tensor.dtype.name(), "shape": tensor.shape, "data_offsets": [start, end],
        });
        header.insert(tensor.name, entry);
    }
    let mut header = serde_json::Value::Object(header).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut file = File::create(folder.join("model.safetensors")).expect("a file");
    file.write_all(&(header.len() as u64).to_le_bytes()).expect("space");
    file.write_all(header.as_bytes()).expect("space");
    file.set_len(8 + header.len() as u64 + end).expect("a sparse file");
    fs::write(folder.join("config.json"), config_text).expect("space");
    Checkpoint::open(folder).expect("complete")
}

#[test]
fn a_decoded_token_reads_what_the_floor_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoint = hollow(
        folder.path(),
        published::config("DeepSeek-V4-Flash").expect("published"),
    );
    let chip = Arc::new(ProfiledChip::new(Arc::new(IdleChip)));
    let model = Model::load(
        &checkpoint,
        Arc::clone(&chip) as _,
        ModelOptions::default(),
        &mut |_, _| {},
    )
    .expect("loads");
    let mut pool = model
        .new_state(&StateOptions {
            token_count_max: Some(8192),
            step_row_count_max: 1,
            ..StateOptions::default()
        })
        .expect("nothing to run out of");
    let mut sequence = pool.new_generated_sequence(8191, 0).expect("fits");
    chip.start();
    let mut chunks = [Chunk {
        sequence: &mut sequence,
        tokens: &[7],
        outputs: Outputs::Last,
    }];
    model.step(&mut pool, &mut chunks).expect("a step");
    let records = chip.finish();
    assert_eq!(sequence.len(), 8192);

    let of = |kind: OperationKind| {
        let mut sum = Cost::default();
        for (_, record) in records.iter().filter(|(label, _)| label.kind == kind) {
            sum += record.cost;
        }
        sum
    };
    let all: u64 = records.values().map(|record| record.cost.weight_bytes).sum();
    assert_eq!(all, 11_217_572_060);
    assert_eq!(of(OperationKind::Experts).weight_bytes, 3_449_290_752);
    // Window rows before the token's own, chosen entries of 21 layers, all entries of 20 layers; 68 bytes a key.
    let attention = of(OperationKind::Attention);
    assert_eq!(attention.state_bytes, 584 * (43 * 127 + 21 * 512 + 20 * 64));
    let select = of(OperationKind::SelectEntries);
    assert_eq!(select.state_bytes, 21 * 2048 * 68);
    // F(n) of the notes at n = 8,192, its three terms, in multiply-adds.
    assert_eq!(attention.multiply_adds, 2 * 64 * 512 * (43 * 128 + 21 * 512 + 20 * 64));
    assert_eq!(select.multiply_adds, 21 * 64 * 128 * 2048);
    let products = [
        OperationKind::Linear,
        OperationKind::GroupedLinear,
        OperationKind::Experts,
    ];
    let products: u64 = products.map(|kind| of(kind).multiply_adds).iter().sum();
    // All active parameters but the F32 ones of the hyper-connections; norms, sinks and position biases are below the tolerance.
    let active = 13.270e9 - 135_537_756.0 / 4.0;
    assert!((products as f64 / active - 1.0).abs() < 2e-4, "{products}");
}
