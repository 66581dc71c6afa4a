//! The readers of the checkpoint crate. Errors are fine, panics and broken promises are not.

use std::path::Path;

use bytes::Bytes;
use cachalot_checkpoint::{
    Checkpoint, Error, ModelConfig,
    accounting::{self, KvFormat},
    check_scales, inventory,
    synth::{self, Stages},
};

/// Configuration of the weight files in the corpus.
pub const MICRO_CONFIG: &str = include_str!("../corpus/config/micro.json");
/// The same, announcing a low-bit dense part.
const LOW_BIT_CONFIG: &str = include_str!("../corpus/config/low_bit.json");
const MICRO_WEIGHTS: &[u8] = include_bytes!("../corpus/safetensors_header/micro.safetensors");

/// `data` as config.json.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let config = match ModelConfig::from_json(text, Path::new("config.json")) {
        Ok(config) => config,
        Err(error) => return assert!(error.to_string().len() < 100_000),
    };
    let total = accounting::total(&config);
    assert!(total.tensors <= 1 << 21 && total.bytes <= 1 << 60);
    assert!(accounting::active_total(&config).bytes <= total.bytes);
    assert!(accounting::kv_bytes_per_token(&config, KvFormat::Packed).is_finite());
    if let Some(config) = config.as_v4() {
        let announced = config.num_hidden_layers + config.nextn_stage_count();
        assert_eq!(config.compress_ratios.len(), announced);
    }
    let one = synth::with_layers(text, 1, Stages::Drop).expect("a sound configuration can be cut");
    let one = ModelConfig::from_json(&one, Path::new("config.json")).expect("still sound");
    assert_eq!((one.layer_count(), one.nextn_stage_count()), (1, 0));
}

/// `data` as the only weight file, and as the index beside a sound one.
pub fn safetensors_header(data: &[u8]) {
    let weights = [("model.safetensors", data)];
    let index = [
        ("model.safetensors", MICRO_WEIGHTS),
        ("model.safetensors.index.json", data),
    ];
    for config in [MICRO_CONFIG, LOW_BIT_CONFIG] {
        for files in [&weights[..], &index[..]] {
            match open(config, files) {
                Ok(checkpoint) => read_everything(&checkpoint),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
}

fn open(config: &str, files: &[(&str, &[u8])]) -> Result<Checkpoint, Error> {
    let config = [("config.json", config.as_bytes())];
    let files = config.iter().chain(files);
    let files = files.map(|(name, data)| ((*name).to_owned(), Bytes::copy_from_slice(data)));
    Checkpoint::from_files("fuzz", files.collect())
}

/// Whatever the configuration demands must be there in the right size.
fn read_everything(checkpoint: &Checkpoint) {
    for slot in inventory::slots(checkpoint.config()) {
        match slot.kind {
            inventory::SlotKind::Matrix { rows, columns, .. } => {
                let matrix = checkpoint.matrix(&slot.name).expect("checked at open");
                assert_eq!((matrix.rows, matrix.columns), (rows, columns));
                let bytes = matrix.weights.len() + matrix.scales.as_ref().map_or(0, Bytes::len);
                assert_eq!(bytes, matrix.format.byte_count(rows, columns));
                let _ = check_scales("fuzz", &matrix);
            }
            inventory::SlotKind::Plain { shape, .. } => {
                let tensor = checkpoint.tensor(&slot.name).expect("checked at open");
                assert_eq!(tensor.shape, shape);
                let elements: usize = shape.iter().product();
                assert_eq!(tensor.data.len(), elements * tensor.dtype.byte_count());
            }
        }
    }
    let _ = checkpoint.verify(|_| ());
}
