//! DeepSeek-V4.1 on a small random checkpoint with a layer of every role: logits are those of a transcription (fixture by
//! `tools/fixtures/transcription_v41.py`); whatever way tokens reach a sequence, the logits
//! are the same to the last bit; images are refused; the memory of a sequence is what plans count with.

mod support;

use std::{
    io::{Seek, SeekFrom, Write},
    sync::Arc,
};

use cachalot_checkpoint::{Checkpoint, ModelConfig, accounting, synth};
use cachalot_chip::{ChipTransfer, Mode};
use cachalot_chip_cpu::{CpuChip, CpuOptions};
use cachalot_model::{Chunk, Error, KvFormat, Model, ModelOptions, Outputs, Sequence, StateOptions, StatePool};
use tempfile::TempDir;

const VOCABULARY: usize = 512;
const FIXTURE: &str = "v41-random";
const RELATIVE_ERROR_MAX: f32 = 1e-4;

/// Eight layers: two that see a window only, one of them with a table, and every kind of source and follower.
fn checkpoint() -> (TempDir, Checkpoint) {
    let config = include_str!("fixtures/v41-random/config.json");
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("tiny");
    synth::write(config, 5, &place, |_| ()).expect("written");
    let checkpoint = Checkpoint::open(&place).expect("valid");
    (folder, checkpoint)
}

fn load(checkpoint: &Checkpoint, options: ModelOptions) -> Model {
    let chip = CpuChip::new(CpuOptions {
        threads: 2,
        ..CpuOptions::default()
    });
    Model::load(checkpoint, Arc::new(chip), options, &mut |_, _| {}).expect("loads")
}

fn options() -> impl Iterator<Item = ModelOptions> {
    let formats = [KvFormat::Packed, KvFormat::Bf16];
    Mode::ALL.into_iter().flat_map(move |mode| {
        formats.map(|kv_format| ModelOptions {
            mode,
            kv_format,
            ..ModelOptions::default()
        })
    })
}

fn pool(model: &Model) -> StatePool {
    let options = StateOptions {
        sequence_count_max: 4,
        token_count_max: Some(4096),
        rollback_count_max: 4,
        ..StateOptions::default()
    };
    model.new_state(&options).expect("memory")
}

fn text(seed: usize, length: usize) -> Vec<u32> {
    let token = |i: usize| (i * i * 31 + i * 17 + seed * 97 + i / 7) % (VOCABULARY - 1);
    (0..length).map(|i| token(i) as u32).collect()
}

fn step(model: &Model, pool: &mut StatePool, chunks: &mut [(&mut Sequence, &[u32])]) -> Vec<Vec<f32>> {
    let mut chunks: Vec<Chunk<'_>> = chunks
        .iter_mut()
        .map(|(sequence, tokens)| Chunk {
            sequence,
            tokens,
            outputs: Outputs::All,
        })
        .collect();
    let logits = model.step(pool, &mut chunks).expect("a step").expect("logits");
    let values = model.chip().read_f32(&logits).expect("readable");
    values.chunks(VOCABULARY).map(<[f32]>::to_vec).collect()
}

#[test]
fn logits_agree_with_the_transcription() {
    let (_folder, checkpoint) = checkpoint();
    let options = ModelOptions {
        mode: Mode::Reference,
        ..ModelOptions::default()
    };
    let model = load(&checkpoint, options);
    let mut pool = pool(&model);
    let mut error_max = 0f32;
    for prompt in support::prompts(FIXTURE) {
        let expected = support::expected(FIXTURE, "logits.safetensors", prompt.len());
        let mut whole = pool.new_sequence().expect("a slot");
        let prefilled = step(&model, &mut pool, &mut [(&mut whole, &prompt)]);
        let mut single = pool.new_sequence().expect("a slot");
        let decoded = prompt.iter().map(|token| {
            let rows = step(&model, &mut pool, &mut [(&mut single, &[*token])]);
            rows.into_iter().next().expect("a row")
        });
        let decoded: Vec<Vec<f32>> = decoded.collect();
        for (position, row) in expected.positions.iter().zip(&expected.logits) {
            for found in [&prefilled[*position], &decoded[*position]] {
                let error = support::relative_error(found, row);
                error_max = error_max.max(error);
                assert!(
                    error <= RELATIVE_ERROR_MAX,
                    "{} tokens, position {position}: {error:e}",
                    prompt.len()
                );
            }
        }
    }
    println!("largest relative error {error_max:e}");
}

/// The law of fast mode: its distributions are no further from the reference than official's.
#[test]
fn fast_is_no_further_than_official() {
    let (_folder, checkpoint) = checkpoint();
    let rows = |mode| {
        let options = ModelOptions {
            mode,
            ..ModelOptions::default()
        };
        let model = load(&checkpoint, options);
        let mut pool = pool(&model);
        let rows = (0..4).flat_map(|seed| {
            let mut sequence = pool.new_sequence().expect("a slot");
            step(&model, &mut pool, &mut [(&mut sequence, &text(seed, 200))])
        });
        rows.collect::<Vec<_>>()
    };
    let [reference, official, fast] = [Mode::Reference, Mode::Official, Mode::Fast].map(rows);
    let distance = |other: &[Vec<f32>]| {
        let rows = reference.iter().zip(other);
        rows.map(|(p, q)| divergence(p, q)).sum::<f64>() / reference.len() as f64
    };
    let (fast, official) = (distance(&fast), distance(&official));
    println!("fast {fast:.2e} nats from the reference, official {official:.2e}");
    assert!(fast <= official, "{fast:e} > {official:e}");
}

/// KL divergence of two rows of logits, in nats.
fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let log_softmax = |logits: &[f32]| -> Vec<f64> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
        logits.iter().map(|logit| f64::from(logit - max) - sum.ln()).collect()
    };
    let (p, q) = (log_softmax(p), log_softmax(q));
    p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
}

#[test]
fn chunks_neighbours_and_roll_backs_change_nothing() {
    let (_folder, checkpoint) = checkpoint();
    for options in options() {
        let model = load(&checkpoint, options);
        let mut pool = pool(&model);
        let tokens = text(1, 150);
        let mut whole = pool.new_sequence().expect("a slot");
        let expected = step(&model, &mut pool, &mut [(&mut whole, &tokens)]);
        assert!(expected.iter().flatten().all(|logit| logit.is_finite()));
        assert!(expected[10] != expected[11], "logits depend on the text");
        for width in [1, 2, 7, 33] {
            let mut cut = pool.new_sequence().expect("a slot");
            let mut neighbour = pool.new_sequence().expect("a slot");
            let other = text(2, 150);
            let mut found = Vec::new();
            for (chunk, other) in tokens.chunks(width).zip(other.chunks(width)) {
                // Guesses that turn out wrong.
                step(&model, &mut pool, &mut [(&mut cut, &[5, 6, 7])]);
                let length = cut.len() - 3;
                cut.roll_back(length).expect("within reach");
                let rows = step(&model, &mut pool, &mut [(&mut neighbour, other), (&mut cut, chunk)]);
                found.extend_from_slice(&rows[other.len()..]);
            }
            assert!(found == expected, "{options:?}, chunks of {width}");
        }
    }
}

/// What was typed last decides: Engram and the open windows reach over the ends of chunks.
#[test]
fn logits_depend_on_every_earlier_token() {
    let (_folder, checkpoint) = checkpoint();
    let model = load(
        &checkpoint,
        ModelOptions {
            mode: Mode::Reference,
            ..ModelOptions::default()
        },
    );
    let mut pool = pool(&model);
    let tokens = text(1, 24);
    let mut last = |tokens: &[u32]| {
        let mut sequence = pool.new_sequence().expect("a slot");
        step(&model, &mut pool, &mut [(&mut sequence, tokens)])
            .pop()
            .expect("a row")
    };
    let expected = last(&tokens);
    for changed in 0..tokens.len() {
        let mut other = tokens.clone();
        other[changed] = (other[changed] + 1) % 400;
        assert!(last(&other) != expected, "token {changed}");
    }
}

#[test]
fn images_are_refused_by_name() {
    let (_folder, checkpoint) = checkpoint();
    let model = load(&checkpoint, ModelOptions::default());
    let mut pool = pool(&model);
    let mut sequence = pool.new_sequence().expect("a slot");
    let image = VOCABULARY as u32 - 1;
    let mut chunks = [Chunk {
        sequence: &mut sequence,
        tokens: &[1, image],
        outputs: Outputs::Last,
    }];
    match model.step(&mut pool, &mut chunks) {
        Err(Error::Image { token }) => assert_eq!(token, image),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    }
}

/// Tables are too large to be checked when a model is loaded, so damage shows where it is read.
#[test]
fn damaged_tables_are_named_when_they_are_read() {
    for (leaf, byte) in [("weight", 0x7F), ("scale", 0xFF)] {
        let (_folder, checkpoint) = checkpoint();
        let name = format!("layers.1.engram.embed.{leaf}");
        let place = checkpoint.place(&name).expect("in a file");
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .open(&place.file.path)
            .expect("writable");
        file.seek(SeekFrom::Start(place.start)).expect("within the file");
        file.write_all(&vec![byte; place.byte_count]).expect("written");
        let model = load(&checkpoint, ModelOptions::default());
        let mut pool = pool(&model);
        let mut sequence = pool.new_sequence().expect("a slot");
        let mut chunks = [Chunk {
            sequence: &mut sequence,
            tokens: &[1, 2],
            outputs: Outputs::Last,
        }];
        match model.step(&mut pool, &mut chunks) {
            Err(error) => assert!(error.to_string().contains("layers.1.engram.embed"), "{error}"),
            Ok(_) => panic!("a damaged {leaf} was accepted"),
        }
    }
}

/// The formula of plans and the memory of a pool are the same.
#[test]
fn sequences_take_what_plans_count() {
    let (_folder, checkpoint) = checkpoint();
    for kv_format in [KvFormat::Packed, KvFormat::Bf16] {
        let model = load(
            &checkpoint,
            ModelOptions {
                kv_format,
                ..ModelOptions::default()
            },
        );
        let state = StateOptions {
            rollback_count_max: 0,
            ..StateOptions::default()
        };
        let pool = model.new_state(&state).expect("memory");
        let planned = match kv_format {
            KvFormat::Packed => accounting::KvFormat::Packed,
            KvFormat::Bf16 => accounting::KvFormat::Bf16,
        };
        let config: &ModelConfig = model.config();
        assert_eq!(pool.entry_bytes_per_token(), config.kv_bytes_per_token(planned));
        assert_eq!(
            pool.tail_bytes_per_sequence() as u64,
            config.fixed_bytes_per_sequence(planned)
        );
    }
}
