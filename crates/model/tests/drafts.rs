//! Drafts of the MTP layer and the DSpark stages (fixtures by `tools/fixtures/drafters_v4.py`).

mod support;

use std::sync::Arc;

use cachalot_chip::{ChipTransfer, Mode};
use cachalot_chip_cpu::{CpuChip, CpuOptions};
use cachalot_model::{Chunk, DraftRequest, Model, ModelOptions, Outputs, Sequence, StateOptions, StatePool};
use safetensors::SafeTensors;
use support::{fixture, fixture_folder, relative_error};

const FIXTURES: [(&str, usize); 2] = [("mtp-f32", 3), ("dspark-f32", 5)];
const RELATIVE_ERROR_MAX: f32 = 1e-4;

struct Case {
    tokens: Vec<u32>,
    drafts: Vec<u32>,
    logits: Vec<f32>,
    confidences: Option<Vec<f32>>,
}

fn cases(name: &str) -> Vec<Case> {
    let text = std::fs::read_to_string(fixture_folder(name).join("prompts.json")).expect("prompts.json");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let bytes = std::fs::read(fixture_folder(name).join("drafts.safetensors")).expect("drafts");
    let stored = SafeTensors::deserialize(&bytes).expect("safetensors");
    let floats = |key: String| -> Option<Vec<f32>> {
        let tensor = stored.tensor(&key).ok()?;
        let numbers = tensor.data().as_chunks::<4>().0.iter();
        Some(numbers.map(|bytes| f32::from_le_bytes(*bytes)).collect())
    };
    let ids = |value: &serde_json::Value| serde_json::from_value::<Vec<u32>>(value.clone()).expect("token ids");
    let prompts = json["prompts"].as_array().expect("a list").iter();
    prompts
        .map(|prompt| Case {
            tokens: ids(&prompt["tokens"]),
            drafts: ids(&prompt["drafts"]),
            logits: floats(format!("logits.{}", prompt["length"])).expect("logits"),
            confidences: floats(format!("confidences.{}", prompt["length"])),
        })
        .collect()
}

fn model(name: &str) -> Model {
    let options = ModelOptions {
        mode: Mode::Reference,
        drafter: true,
        ..ModelOptions::default()
    };
    let chip = Arc::new(CpuChip::new(CpuOptions {
        threads: 1,
        ..CpuOptions::default()
    }));
    Model::load(&fixture(name), chip, options, &mut |_, _| {}).expect("the fixture loads")
}

fn pool(model: &Model, step_row_count_max: usize) -> StatePool {
    let options = StateOptions {
        sequence_count_max: 5,
        token_count_max: Some(4096),
        step_row_count_max,
        draft_count_max: 5,
        ..StateOptions::default()
    };
    model.new_state(&options).expect("memory for a tiny model")
}

fn feed(model: &Model, pool: &mut StatePool, sequence: &mut Sequence, tokens: &[u32]) {
    let outputs = Outputs::None;
    let mut chunks = [Chunk {
        sequence,
        tokens,
        outputs,
    }];
    model.step(pool, &mut chunks).expect("a valid step");
}

/// What was drafted for a request, with its logits and confidences.
#[derive(Clone, Default)]
struct Found {
    drafts: Vec<u32>,
    logits: Vec<f32>,
    confidences: Vec<f32>,
}

/// The most likely tokens of the drafter.
fn draft(model: &Model, pool: &mut StatePool, requests: &mut [DraftRequest<'_>]) -> Vec<Found> {
    let mut found = vec![Found::default(); requests.len()];
    let vocabulary = model.config().vocab_size();
    let drafts = model.draft(pool, requests, &mut |draft| {
        let logits = model.chip().read_f32(draft.logits)?;
        let confidences = draft
            .confidences
            .map(|tensor| model.chip().read_f32(tensor))
            .transpose()?;
        let rows = draft.requests.iter().zip(logits.chunks_exact(vocabulary)).enumerate();
        let tokens = rows.map(|(row, (request, logits))| {
            found[*request].logits.extend(logits);
            found[*request]
                .confidences
                .extend(confidences.as_ref().map(|values| values[row]));
            (0..vocabulary as u32).max_by(|a, b| logits[*a as usize].total_cmp(&logits[*b as usize]))
        });
        Ok(tokens.collect())
    });
    for (found, drafts) in found.iter_mut().zip(drafts.expect("valid requests")) {
        found.drafts = drafts;
    }
    found
}

fn check(name: &str, case: &Case, found: &Found) {
    let length = case.tokens.len();
    assert_eq!(found.drafts, case.drafts, "{name}, {length} tokens");
    let vocabulary = case.logits.len() / case.drafts.len();
    for (row, expected) in found.logits.chunks(vocabulary).zip(case.logits.chunks(vocabulary)) {
        let error = relative_error(row, expected);
        assert!(error <= RELATIVE_ERROR_MAX, "{name}, {length} tokens: {error:e}");
    }
    if let Some(expected) = &case.confidences {
        let error = relative_error(&found.confidences, expected);
        assert!(
            error <= RELATIVE_ERROR_MAX,
            "{name}, {length} tokens, confidences: {error:e}"
        );
    }
}

/// One prompt after another, in chunks of every kind, and after wrong tokens that are rolled back.
#[test]
fn drafts_agree_with_the_transcription() {
    for (name, count) in FIXTURES {
        let model = model(name);
        for chunk_length in [400, 7, 1] {
            let mut pool = pool(&model, chunk_length.max(5));
            for case in cases(name) {
                let mut sequence = pool.new_sequence().expect("a free slot");
                let computed = &case.tokens[..case.tokens.len() - 1];
                for chunk in computed.chunks(chunk_length) {
                    feed(&model, &mut pool, &mut sequence, chunk);
                }
                for _ in 0..2 {
                    let mut requests = [DraftRequest {
                        sequence: &mut sequence,
                        tokens: &case.tokens,
                        count,
                    }];
                    check(name, &case, &draft(&model, &mut pool, &mut requests)[0]);
                    feed(&model, &mut pool, &mut sequence, &[7, 9, 11, 13]);
                    let wrong = [computed, &[7, 9, 11, 13, 15]].concat();
                    let mut requests = [DraftRequest {
                        sequence: &mut sequence,
                        tokens: &wrong,
                        count: 2,
                    }];
                    assert_eq!(draft(&model, &mut pool, &mut requests)[0].drafts.len(), 2);
                    sequence.roll_back(computed.len()).expect("near enough");
                }
            }
        }
    }
}

/// All prompts at once, each with another number of drafts.
#[test]
fn neighbours_change_no_draft() {
    for (name, count) in FIXTURES {
        let model = model(name);
        let mut pool = pool(&model, 400);
        let cases = cases(name);
        let mut sequences: Vec<Sequence> = cases.iter().map(|_| pool.new_sequence().expect("a slot")).collect();
        for (case, sequence) in cases.iter().zip(&mut sequences) {
            feed(&model, &mut pool, sequence, &case.tokens[..case.tokens.len() - 1]);
        }
        let mut requests: Vec<DraftRequest<'_>> = sequences
            .iter_mut()
            .zip(&cases)
            .enumerate()
            .map(|(index, (sequence, case))| DraftRequest {
                sequence,
                tokens: &case.tokens,
                count: index % (count + 1),
            })
            .collect();
        let found = draft(&model, &mut pool, &mut requests);
        for (index, (case, found)) in cases.iter().zip(&found).enumerate() {
            assert_eq!(found.drafts, case.drafts[..index % (count + 1)], "{name}");
            let expected = &case.logits[..found.logits.len()];
            assert!(found.drafts.is_empty() || relative_error(&found.logits, expected) <= RELATIVE_ERROR_MAX);
        }
    }
}

/// A restored sequence drafts from what it has seen since; nothing else has a say.
#[test]
fn sequences_without_taps_are_left_alone() {
    for (name, _) in FIXTURES {
        let model = model(name);
        let mut pool = pool(&model, 400);
        let mut sequence = pool.new_sequence().expect("a slot");
        feed(&model, &mut pool, &mut sequence, &[5; 20]);
        let mut copy = pool.copy_sequence(&sequence).expect("a slot");
        let drafted = |pool: &mut StatePool, sequence: &mut Sequence| {
            let tokens = vec![5; sequence.len() + 1];
            let mut requests = [DraftRequest {
                sequence,
                tokens: &tokens,
                count: 2,
            }];
            draft(&model, pool, &mut requests)[0].drafts.len()
        };
        assert_eq!(drafted(&mut pool, &mut copy), 0);
        feed(&model, &mut pool, &mut copy, &[5]);
        assert_eq!(drafted(&mut pool, &mut copy), 2);
        let mut requests = [DraftRequest {
            sequence: &mut copy,
            tokens: &[1],
            count: 1,
        }];
        let error = model.draft(&mut pool, &mut requests, &mut |_| Ok(Vec::new()));
        assert!(matches!(
            error,
            Err(cachalot_model::Error::DraftTokens { length: 21, found: 1 })
        ));
    }
}
