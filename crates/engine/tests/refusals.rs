//! Calls that an engine has to refuse.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use cachalot_checkpoint::{Checkpoint, synth};
use cachalot_chip_cpu::{CpuChip, CpuOptions};
use cachalot_engine::{
    Engine, EngineOptions, Error, Event, Flow, Request, Service, ServiceOptions, Sink, score::score,
};
use cachalot_model::{Error as ModelError, Model, ModelOptions};

const ROW_COUNT: usize = 4;
const CONTEXT: usize = 256;

fn engine() -> Engine {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny");
    let checkpoint = Checkpoint::open(&folder).expect("the built-in model");
    let chip = Arc::new(CpuChip::new(CpuOptions::default()));
    let model = Model::load(&checkpoint, chip, ModelOptions::default(), &mut |_, _| {}).expect("loads");
    let options = EngineOptions {
        context: Some(CONTEXT),
        prefill_row_count: ROW_COUNT,
        ..EngineOptions::default()
    };
    Engine::new(model, options).expect("memory")
}

#[test]
fn texts_that_cannot_be_scored_are_errors() {
    let engine = engine();
    let score = |tokens: &[u32]| score(&engine, tokens, &AtomicBool::new(false), |_, _| Ok::<(), Error>(()));
    assert!(matches!(score(&[]), Err(Error::EmptyPrompt)));
    assert!(matches!(score(&[0; CONTEXT + 1]), Err(Error::PromptTooLong { .. })));
    // Wherever it stands: in the first chunk, first of the second, last.
    for position in [0, ROW_COUNT, 2 * ROW_COUNT] {
        let mut tokens = [0; 2 * ROW_COUNT + 1];
        tokens[position] = 1 << 20;
        let outcome = score(&tokens);
        assert!(
            matches!(&outcome, Err(Error::Model(ModelError::Token { token, .. })) if *token == 1 << 20),
            "position {position}: {outcome:?}"
        );
    }
    assert_eq!(score(&[0; CONTEXT]).expect("fits").log_probabilities.len(), CONTEXT - 1);
}

struct Deaf;

impl Sink for Deaf {
    fn event(&mut self, _: Event) -> Flow {
        Flow::Continue
    }
}

/// A prompt with an image is refused before it is queued, by the token that stands for the image.
#[test]
fn images_are_refused_at_the_door() {
    let config = include_str!("../../model/tests/fixtures/v41-random/config.json");
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join("v41");
    synth::write(config, 5, &folder, |_| ()).expect("written");
    let checkpoint = Checkpoint::open(&folder).expect("valid");
    let chip = Arc::new(CpuChip::new(CpuOptions::default()));
    let model = Model::load(&checkpoint, chip, ModelOptions::default(), &mut |_, _| {}).expect("loads");
    let image = model.image_token().expect("sees images");
    let service = Service::start(model, ServiceOptions::default()).expect("memory");
    let outcome = service.submit(Request::new(vec![1, image, 2]), Box::new(Deaf));
    assert!(matches!(outcome.err(), Some(Error::Image { token }) if token == image));
    assert!(service.submit(Request::new(vec![1, 2]), Box::new(Deaf)).is_ok());
}
