//! Fixtures and small drivers shared by the model's tests.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{path::PathBuf, sync::Arc};

use cachalot_checkpoint::Checkpoint;
use cachalot_chip::{ChipTransfer, Mode};
use cachalot_chip_cpu::{CpuChip, CpuOptions, Kernels};
use cachalot_model::{Chunk, Model, ModelOptions, Outputs, Sequence, StateOptions, StatePool};
use safetensors::SafeTensors;

/// The fixture checkpoints of V4.
pub const FIXTURES: [&str; 3] = ["hf-f32", "official-fp8-fp4", "base-fp8-f32"];

/// The fixture checkpoints of V3 and V3.2.
pub const V3_FIXTURES: [&str; 4] = ["v3-f32", "v3-fp8", "v32-f32", "v32-fp8"];

pub fn fixture_folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

pub fn fixture(name: &str) -> Checkpoint {
    Checkpoint::open(&fixture_folder(name)).expect("the fixture is a valid checkpoint")
}

/// A fixture's model on one thread.
pub fn model(name: &str, mode: Mode) -> Model {
    let chip = CpuChip::new(CpuOptions {
        threads: 1,
        kernels: Kernels::detect(),
        ..CpuOptions::default()
    });
    Model::load(
        &fixture(name),
        Arc::new(chip),
        ModelOptions {
            mode,
            ..ModelOptions::default()
        },
        &mut |_, _| {},
    )
    .expect("the fixture loads")
}

/// A pool that holds a few sequences of the longest prompt.
pub fn pool(model: &Model, sequences: usize) -> StatePool {
    let options = StateOptions {
        sequence_count_max: sequences,
        token_count_max: Some(4096 * sequences),
        step_row_count_max: 3008,
        ..StateOptions::default()
    };
    model.new_state(&options).expect("memory for a tiny model")
}

/// Feeds `tokens` as one chunk and returns the logits of its rows.
pub fn feed(model: &Model, pool: &mut StatePool, sequence: &mut Sequence, tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut chunks = [Chunk {
        sequence,
        tokens,
        outputs: Outputs::All,
    }];
    let logits = model
        .step(pool, &mut chunks)
        .expect("a valid step")
        .expect("outputs were asked for");
    rows(model, &logits)
}

/// A logits tensor by rows.
pub fn rows(model: &Model, logits: &cachalot_chip::Tensor) -> Vec<Vec<f32>> {
    let values = model.chip().read_f32(logits).expect("logits are read back");
    values
        .chunks_exact(model.config().vocab_size())
        .map(<[f32]>::to_vec)
        .collect()
}

/// The prompts of a fixture.
pub fn prompts(name: &str) -> Vec<Vec<u32>> {
    let text = std::fs::read_to_string(fixture_folder(name).join("prompts.json")).expect("prompts.json");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let prompts = json["prompts"].as_array().expect("a list of prompts");
    prompts
        .iter()
        .map(|prompt| serde_json::from_value(prompt["tokens"].clone()).expect("token ids"))
        .collect()
}

/// Kept positions and their expected logits.
pub struct Expected {
    pub positions: Vec<usize>,
    pub logits: Vec<Vec<f32>>,
}

/// What `file` of a fixture expects for the prompt of `length` tokens.
pub fn expected(name: &str, file: &str, length: usize) -> Expected {
    let bytes = std::fs::read(fixture_folder(name).join(file)).expect("a fixture file");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let positions = tensors.tensor(&format!("positions.{length}")).expect("positions");
    let logits = tensors.tensor(&format!("logits.{length}")).expect("logits");
    let floats: Vec<f32> = logits
        .data()
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    Expected {
        positions: positions
            .data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| i32::from_le_bytes(*b) as usize)
            .collect(),
        logits: floats.chunks_exact(logits.shape()[1]).map(<[f32]>::to_vec).collect(),
    }
}

/// Largest difference divided by the largest expected magnitude.
pub fn relative_error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0.0f32, |max, value| max.max(value.abs()));
    // Asserted one by one, because `max` passes over NaN.
    assert!(found.iter().all(|logit| logit.is_finite()), "logits are not finite");
    let difference = found
        .iter()
        .zip(expected)
        .fold(0.0f32, |max, (a, b)| max.max((a - b).abs()));
    difference / scale
}
