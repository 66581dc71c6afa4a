//! The law of the fast mode: on the same prompts its next-token distributions are no further from the reference than
//! those of the official mode.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use cachalot_checkpoint::Checkpoint;
use cachalot_chip::Mode;
use cachalot_chip_cpu::{CpuChip, CpuOptions};
use cachalot_engine::{Engine, EngineOptions, Error, compare::Distance, score::score};
use cachalot_model::{KvFormat, Model, ModelOptions};

/// Texts of each kind, so that no kind dominates.
const TEXTS_PER_KIND: usize = 5;

fn model_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny")
}

/// Texts of 50 to 2,000 tokens from the evaluation cases, prompt and answer.
fn texts() -> Vec<Vec<u32>> {
    let tokenizer = tokenizers::Tokenizer::from_file(model_folder().join("tokenizer.json")).expect("a tokenizer");
    let cases = std::fs::read_to_string(model_folder().join("evaluation.jsonl")).expect("the evaluation cases");
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    let mut texts = Vec::new();
    for line in cases.lines() {
        let case: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let part = |key: &str| case[key].as_str().expect("a string").to_owned();
        let taken = taken.entry(part("kind")).or_default();
        if *taken == TEXTS_PER_KIND {
            continue;
        }
        let encoding = tokenizer
            .encode(part("prompt") + &part("expected"), false)
            .expect("encodes");
        if (50..=2000).contains(&encoding.get_ids().len()) {
            *taken += 1;
            texts.push(encoding.get_ids().to_vec());
        }
    }
    texts
}

fn engine(mode: Mode, kv_format: KvFormat) -> Engine {
    let checkpoint = Checkpoint::open(&model_folder()).expect("the built-in model");
    let chip = Arc::new(CpuChip::new(CpuOptions::default()));
    let model = Model::load(
        &checkpoint,
        chip,
        ModelOptions {
            mode,
            kv_format,
            ..ModelOptions::default()
        },
        &mut |_, _| {},
    )
    .expect("loads");
    Engine::new(
        model,
        EngineOptions {
            context: Some(4096),
            ..EngineOptions::default()
        },
    )
    .expect("memory")
}

fn logits(engine: &Engine, tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut rows = Vec::new();
    score(engine, tokens, &AtomicBool::new(false), |_, logits| {
        rows.push(logits.to_vec());
        Ok::<(), Error>(())
    })
    .expect("a text of the built-in model's own vocabulary");
    rows
}

#[test]
fn fast_is_no_further_from_the_reference_than_official() {
    let texts = texts();
    assert!(texts.len() >= 50, "only {} texts", texts.len());
    let reference = engine(Mode::Reference, KvFormat::Packed);
    let others = [
        ("official", engine(Mode::Official, KvFormat::Packed)),
        ("fast", engine(Mode::Fast, KvFormat::Packed)),
        ("fast with bf16 keys", engine(Mode::Fast, KvFormat::Bf16)),
    ];
    let mut distances = [Distance::default(); 3];
    for text in &texts {
        let expected = logits(&reference, text);
        for ((_, engine), distance) in others.iter().zip(&mut distances) {
            for (found, expected) in logits(engine, text).iter().zip(&expected) {
                distance.add(found, expected);
            }
        }
    }
    for ((name, _), distance) in others.iter().zip(&distances) {
        println!(
            "{name}: KL {:.3e} mean, {:.3e} max, top-1 {:.3} % of {} positions",
            distance.kl_mean(),
            distance.kl_max,
            100.0 * distance.top1_agreement(),
            distance.position_count
        );
    }
    let [official, fast, bf16] = distances.map(|distance| distance.kl_mean());
    assert!(fast <= official, "fast {fast:e} > official {official:e}");
    assert!(bf16 <= official, "fast with bf16 keys {bf16:e} > official {official:e}");
}
