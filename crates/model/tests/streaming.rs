//! Experts that are read from files give the bits that mapped ones give, and what is wrong with a file ends in an error.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use cachalot_checkpoint::{Checkpoint, synth};
use cachalot_chip::{Chip, ChipTransfer, Error as ChipError, ExpertTraffic, Mode};
use cachalot_chip_cpu::{CpuChip, CpuOptions};
use cachalot_model::{Chunk, Error, Model, ModelOptions, Outputs, StateOptions, StatePool};
use tempfile::TempDir;

/// Experts of each of the four layers, and of each row.
const EXPERT_COUNT: usize = 12;
const CHOICE_COUNT: usize = 2;

/// A random model of every kind of layer.
fn checkpoint_folder() -> (TempDir, PathBuf) {
    let text = include_str!("../../../fuzz/corpus/config/all_layers.json");
    let text = text.replace(
        "\"n_routed_experts\": 4",
        &format!("\"n_routed_experts\": {EXPERT_COUNT}"),
    );
    assert!(
        text.contains(&format!(": {EXPERT_COUNT},")),
        "the config has as many experts as this test says"
    );
    let parent = tempfile::tempdir().expect("a temporary folder");
    let folder = parent.path().join("model");
    synth::write(&text, 7, &folder, |_| {}).expect("a random checkpoint");
    (parent, folder)
}

/// A model with room for two short sequences. Without a limit, its experts are mapped.
struct Loaded {
    chip: Arc<CpuChip>,
    model: Model,
    pool: StatePool,
}

impl Loaded {
    fn new(checkpoint: &Checkpoint, mode: Mode, memory_bytes_max: Option<u64>) -> Result<Self, Error> {
        let chip = Arc::new(CpuChip::new(CpuOptions {
            threads: 2,
            memory_bytes_max,
            ..CpuOptions::default()
        }));
        let options = ModelOptions {
            mode,
            ..ModelOptions::default()
        };
        let model = Model::load(checkpoint, Arc::clone(&chip) as Arc<dyn Chip>, options, &mut |_, _| {})?;
        let pool = model.new_state(&StateOptions {
            sequence_count_max: 2,
            token_count_max: Some(1024),
            step_row_count_max: 128,
            ..StateOptions::default()
        })?;
        Ok(Loaded { chip, model, pool })
    }

    /// A model with room for `slot_count` experts.
    fn with_slots(checkpoint: &Checkpoint, mode: Mode, slot_count: usize) -> Self {
        let needed = Loaded::new(checkpoint, mode, Some(0)).expect("loading reads no expert");
        let Err(ChipError::MemoryLimit { needed_bytes, .. }) = needed.chip.check_memory(slot_count) else {
            panic!("nothing fits in no memory");
        };
        let loaded = Loaded::new(checkpoint, mode, Some(needed_bytes)).expect("the same model");
        assert_eq!(loaded.chip.check_memory(slot_count), Ok(()));
        assert!(loaded.chip.check_memory(slot_count + 1).is_err());
        loaded
    }

    /// Logits of the last row of each chunk, as bits.
    fn step(&mut self, chunks: &mut [Chunk<'_>]) -> Result<Vec<u32>, Error> {
        let logits = self
            .model
            .step(&mut self.pool, chunks)?
            .expect("every chunk has an output");
        Ok(self.chip.read_f32(&logits)?.into_iter().map(f32::to_bits).collect())
    }

    /// Two sequences: long prompts one after the other, then single tokens of both together.
    fn transcript(&mut self) -> Result<Vec<Vec<u32>>, Error> {
        let prompt: Vec<u32> = (0..100).map(|i| (i * 7 + i / 5) % 48).collect();
        let mut first = self.pool.new_sequence()?;
        let mut second = self.pool.new_sequence()?;
        let mut logits = Vec::new();
        for (sequence, tokens) in [(&mut first, &prompt[..]), (&mut second, &prompt[30..70])] {
            let outputs = Outputs::Last;
            logits.push(self.step(&mut [Chunk {
                sequence,
                tokens,
                outputs,
            }])?);
        }
        for token in 0..12 {
            let tokens = [token * 3 % 48, (token * 5 + 1) % 48];
            let [a, b] = tokens.each_ref().map(std::slice::from_ref);
            let outputs = Outputs::Last;
            logits.push(self.step(&mut [
                Chunk {
                    sequence: &mut first,
                    tokens: a,
                    outputs,
                },
                Chunk {
                    sequence: &mut second,
                    tokens: b,
                    outputs,
                },
            ])?);
        }
        Ok(logits)
    }

    fn traffic(&self) -> ExpertTraffic {
        self.chip.expert_traffic().expect("the experts are in files")
    }
}

#[test]
fn every_budget_gives_the_bits_of_mapped_experts() {
    let (_parent, folder) = checkpoint_folder();
    let checkpoint = Checkpoint::open(&folder).expect("a sound checkpoint");
    for mode in [Mode::Fast, Mode::Official] {
        let mut mapped = Loaded::new(&checkpoint, mode, None).expect("a sound model");
        assert_eq!(mapped.chip.expert_traffic(), None);
        let expected = mapped.transcript().expect("a sound model");
        // The prompts use all experts of a layer, far more than the smallest caches hold.
        for slot_count in [
            1,
            CHOICE_COUNT,
            CHOICE_COUNT + 1,
            EXPERT_COUNT,
            3 * EXPERT_COUNT,
            4 * EXPERT_COUNT,
        ] {
            let mut streamed = Loaded::with_slots(&checkpoint, mode, slot_count);
            assert_eq!(streamed.traffic().read_count, 0, "loading reads no expert");
            let logits = streamed.transcript().expect("a sound model");
            assert!(logits == expected, "{slot_count} slots in {mode} mode");
            let traffic = streamed.traffic();
            assert!(traffic.resident_count <= slot_count, "{traffic:?}");
            assert_eq!(traffic.expert_count, 4 * EXPERT_COUNT);
            let from_files = traffic.expected_count + traffic.miss_count();
            assert!(
                traffic.read_count >= from_files && traffic.bytes_read > 0,
                "{traffic:?}"
            );
        }
    }
}

#[test]
fn experts_that_fit_are_read_once() {
    let (_parent, folder) = checkpoint_folder();
    let checkpoint = Checkpoint::open(&folder).expect("a sound checkpoint");
    // Logits are allocated by the first step, so one expert less fits than at the start.
    let mut streamed = Loaded::with_slots(&checkpoint, Mode::Fast, 4 * EXPERT_COUNT + 8);
    streamed.transcript().expect("a sound model");
    let once = streamed.traffic();
    assert!(once.read_count as usize <= 4 * EXPERT_COUNT, "{once:?}");
    streamed.transcript().expect("a sound model");
    let again = streamed.traffic().since(&once);
    assert_eq!((again.bytes_read, again.hit_share()), (0, 1.0), "{again:?}");
}

#[test]
fn too_little_memory_is_refused_with_what_suffices() {
    let (_parent, folder) = checkpoint_folder();
    let checkpoint = Checkpoint::open(&folder).expect("a sound checkpoint");
    let loaded = Loaded::new(&checkpoint, Mode::Fast, Some(100_000)).expect("loading reads no expert");
    let error = loaded.chip.check_memory(CHOICE_COUNT).expect_err("100 kB");
    let ChipError::MemoryLimit {
        needed_bytes,
        slot_bytes_min,
        ..
    } = error
    else {
        panic!("{error}");
    };
    assert!(slot_bytes_min > 0 && needed_bytes > slot_bytes_min);
    assert!(error.to_string().contains(&needed_bytes.to_string()), "{error}");
}

/// The file of the last layer's experts.
fn last_layer_file(checkpoint: &Checkpoint) -> PathBuf {
    let place = checkpoint
        .place("layers.3.ffn.experts.0.w1.weight")
        .expect("it is in a file");
    place.file.path.clone()
}

/// The error of a step must name the file and a tensor of its last layer.
fn assert_names(error: &Error, file: &Path) {
    let text = error.to_string();
    assert!(matches!(error, Error::Chip(ChipError::Read { .. })), "{text}");
    assert!(
        text.contains(&file.display().to_string()) && text.contains("layers.3.ffn.experts."),
        "{text}"
    );
}

#[test]
fn a_file_that_changes_fails_the_step() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 2] = [
        ("cut", |path| {
            let file = File::options().write(true).open(path).expect("it is there");
            let length = file.metadata().expect("it is open").len();
            file.set_len(length - 1).expect("a shorter file");
        }),
        ("written", |path| {
            let file = File::options().write(true).open(path).expect("it is there");
            file.set_modified(std::time::SystemTime::UNIX_EPOCH)
                .expect("another time");
        }),
    ];
    for (name, change) in changes {
        let (_parent, folder) = checkpoint_folder();
        let checkpoint = Checkpoint::open(&folder).expect("a sound checkpoint");
        let path = last_layer_file(&checkpoint);
        let mut streamed = Loaded::with_slots(&checkpoint, Mode::Fast, 3);
        change(&path);
        // More than once: a failure leaves nothing behind that waits, and the next step fails alike.
        for _ in 0..3 {
            let error = streamed.transcript().expect_err(name);
            assert_names(&error, &path);
        }
    }
}

#[test]
fn a_file_that_is_removed_stays_readable() {
    let (_parent, folder) = checkpoint_folder();
    let checkpoint = Checkpoint::open(&folder).expect("a sound checkpoint");
    let expected = Loaded::new(&checkpoint, Mode::Fast, None)
        .and_then(|mut mapped| mapped.transcript())
        .expect("a sound model");
    let mut streamed = Loaded::with_slots(&checkpoint, Mode::Fast, 3);
    fs::remove_file(last_layer_file(&checkpoint)).expect("it is there");
    assert!(streamed.transcript().expect("the file is open") == expected);
}

#[test]
fn a_file_that_is_gone_at_load_is_named() {
    let (_parent, folder) = checkpoint_folder();
    let checkpoint = Checkpoint::open(&folder).expect("a sound checkpoint");
    let path = last_layer_file(&checkpoint);
    fs::remove_file(&path).expect("it is there");
    match Loaded::new(&checkpoint, Mode::Fast, Some(1 << 30)) {
        Err(error) => assert_names(&error, &path),
        Ok(_) => panic!("the file is gone"),
    }
}

#[test]
fn a_damaged_scale_is_named() {
    let (_parent, folder) = checkpoint_folder();
    let place = {
        let checkpoint = Checkpoint::open(&folder).expect("a sound checkpoint");
        checkpoint
            .place("layers.3.ffn.experts.5.w2.scale")
            .expect("it is in a file")
    };
    let mut bytes = fs::read(&place.file.path).expect("it is there");
    bytes[place.start as usize + 3] = 0xFF;
    fs::write(&place.file.path, bytes).expect("room");
    let checkpoint = Checkpoint::open(&folder).expect("scales of experts are checked at first use");
    let error = Loaded::with_slots(&checkpoint, Mode::Fast, 3)
        .transcript()
        .expect_err("a NaN");
    let text = error.to_string();
    assert!(
        text.contains("layers.3.ffn.experts.5.w2") && text.contains("scale 3"),
        "{text}"
    );
}

#[test]
fn threads_share_the_cache() {
    let (_parent, folder) = checkpoint_folder();
    let checkpoint = Checkpoint::open(&folder).expect("a sound checkpoint");
    let Loaded { chip, model, mut pool } = Loaded::with_slots(&checkpoint, Mode::Fast, 5);
    let logits = |pool: &mut StatePool, tokens: &[u32]| -> Vec<u32> {
        let mut sequence = pool.new_sequence().expect("a free slot");
        let (sequence, outputs) = (&mut sequence, Outputs::Last);
        let logits = model.step(
            pool,
            &mut [Chunk {
                sequence,
                tokens,
                outputs,
            }],
        );
        let logits = chip.read_f32(&logits.expect("a sound model").expect("an output"));
        logits.expect("logits").into_iter().map(f32::to_bits).collect()
    };
    let prompts: Vec<Vec<u32>> = (0..2)
        .map(|i| (0..40).map(|j| (i * 11 + j * 5) % 48).collect())
        .collect();
    let expected: Vec<_> = prompts.iter().map(|prompt| logits(&mut pool, prompt)).collect();
    std::thread::scope(|scope| {
        for (prompt, expected) in prompts.iter().zip(&expected) {
            let logits = &logits;
            let mut pool = model
                .new_state(&StateOptions::default())
                .expect("memory for a tiny model");
            scope.spawn(move || (0..5).for_each(|_| assert!(logits(&mut pool, prompt) == *expected)));
        }
    });
}
