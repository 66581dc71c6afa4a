//! What must hold whatever way tokens reach a sequence: chunked, alone or in company, guessed and rolled back, copied.
//!
//! These tests look at the state's bytes, so they live inside the crate.

use std::{path::Path, sync::Arc};

use cachalot_checkpoint::{Checkpoint, synth};
use cachalot_chip::{ChipTransfer, Mode, Tensor};
use cachalot_chip_cpu::{CpuChip, CpuOptions};
use proptest::prelude::*;

use crate::{Chunk, Model, ModelOptions, Outputs, Sequence, StateOptions, StatePool, pages::PAGE_TOKEN_COUNT};

/// One of each kind of state: windows and compressed entries, entries of single tokens, these with index keys, shared
/// entries with token ids.
const FIXTURES: [&str; 4] = ["official-fp8-fp4", "v3-fp8", "v32-fp8", RANDOM_V41];

/// A checkpoint of V4.1 whose random weights are drawn anew.
const RANDOM_V41: &str = "v41-random";

fn checkpoint(fixture: &str) -> Checkpoint {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(fixture);
    if fixture != RANDOM_V41 {
        return Checkpoint::open(&folder).expect("the fixture is a valid checkpoint");
    }
    let config = std::fs::read_to_string(folder.join("config.json")).expect("a configuration");
    let place = tempfile::tempdir().expect("a folder");
    let written = place.path().join(fixture);
    synth::write(&config, 5, &written, |_| ()).expect("written");
    // The mapped files stay when their names go.
    Checkpoint::open(&written).expect("valid")
}

fn model(fixture: &str, mode: Mode) -> Model {
    let checkpoint = checkpoint(fixture);
    let chip = CpuChip::new(CpuOptions {
        threads: 2,
        ..CpuOptions::default()
    });
    let options = ModelOptions {
        mode,
        ..ModelOptions::default()
    };
    Model::load(&checkpoint, Arc::new(chip), options, &mut |_, _| {}).expect("the fixture loads")
}

fn pool(model: &Model) -> StatePool {
    let options = StateOptions {
        sequence_count_max: 4,
        token_count_max: Some(4096),
        ..StateOptions::default()
    };
    model.new_state(&options).expect("memory for a tiny model")
}

/// A fixed walk through the vocabulary; different seeds give different texts.
fn text(model: &Model, seed: usize, length: usize) -> Vec<u32> {
    // The last token of the V4.1 fixture stands for an image.
    let vocabulary = model.config().vocab_size() - 1;
    (0..length)
        .map(|i| ((i * i * 31 + i * 17 + seed * 97 + i / 7) % vocabulary) as u32)
        .collect()
}

fn feed(model: &Model, pool: &mut StatePool, sequence: &mut Sequence, tokens: &[u32]) -> Vec<f32> {
    let mut chunks = [Chunk {
        sequence,
        tokens,
        outputs: Outputs::All,
    }];
    let logits = model
        .step(pool, &mut chunks)
        .expect("a valid step")
        .expect("outputs were asked for");
    model.chip().read_f32(&logits).expect("logits are read back")
}

/// Everything that later steps may read of a sequence's state, tails first, in logical order.
fn state(model: &Model, pool: &StatePool, sequence: &Sequence) -> Vec<Vec<u8>> {
    let read = |tensor: &Tensor| {
        let mut bytes = vec![0; tensor.byte_count()];
        model.chip().read(tensor, &mut bytes).expect("state is read back");
        bytes
    };
    let mut parts = Vec::new();
    for tail in &pool.tensors.tails {
        let ring = read(&tail.ring.narrow(sequence.slot as usize, 1));
        let row_count = tail.ring.shape()[1];
        let row_byte_count = ring.len() / row_count;
        let rows = (tail.reach.first(sequence.length)..sequence.length).map(|position| position % row_count);
        let bytes = rows.flat_map(|row| ring[row * row_byte_count..][..row_byte_count].to_vec());
        parts.push(bytes.collect());
    }
    for entries in &pool.tensors.pools {
        let bytes = sequence
            .pages
            .iter()
            .flat_map(|page| read(&entries.entries.narrow(*page as usize, 1)));
        let count = sequence.length / entries.ratio();
        parts.push(bytes.take(count * entries.entries.shape()[2]).collect());
    }
    parts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// One shot, token by token, any chunks: the same logits and the same state, to the last bit.
    #[test]
    fn chunking_changes_nothing(
        length in 1usize..420,
        cuts in prop::collection::vec(1usize..200, 0..6),
        mode in prop::sample::select(Mode::ALL.to_vec()),
        fixture in prop::sample::select(FIXTURES.to_vec()),
    ) {
        let model = model(fixture, mode);
        let mut pool = pool(&model);
        let tokens = text(&model, 1, length);
        let mut whole = pool.new_sequence().expect("a slot");
        let expected = feed(&model, &mut pool, &mut whole, &tokens);
        let mut cut = pool.new_sequence().expect("a slot");
        let mut found = Vec::new();
        let mut rest = &tokens[..];
        for width in cuts.into_iter().chain(std::iter::repeat(if length < 60 { 1 } else { 97 })) {
            if rest.is_empty() {
                break;
            }
            let (chunk, after) = rest.split_at(width.min(rest.len()));
            found.extend(feed(&model, &mut pool, &mut cut, chunk));
            rest = after;
        }
        prop_assert!(found == expected, "logits differ");
        prop_assert!(state(&model, &pool, &whole) == state(&model, &pool, &cut), "states differ");
    }

    /// Feeding a guess and rolling it back leaves what never guessing leaves.
    #[test]
    fn rolling_back_forgets(
        length in 1usize..300,
        guess in 1usize..9,
        redo in 1usize..140,
        mode in prop::sample::select(Mode::ALL.to_vec()),
        fixture in prop::sample::select(FIXTURES.to_vec()),
    ) {
        let model = model(fixture, mode);
        let mut pool = pool(&model);
        let (tokens, wrong, right) = (text(&model, 1, length), text(&model, 2, guess), text(&model, 3, redo));
        let mut guessed = pool.new_sequence().expect("a slot");
        feed(&model, &mut pool, &mut guessed, &tokens);
        feed(&model, &mut pool, &mut guessed, &wrong);
        guessed.roll_back(length).expect("within the tails");
        let mut plain = pool.new_sequence().expect("a slot");
        feed(&model, &mut pool, &mut plain, &tokens);
        prop_assert!(state(&model, &pool, &guessed) == state(&model, &pool, &plain), "states differ");
        let found = feed(&model, &mut pool, &mut guessed, &right);
        prop_assert!(found == feed(&model, &mut pool, &mut plain, &right), "logits differ");
        prop_assert!(state(&model, &pool, &guessed) == state(&model, &pool, &plain), "states differ after the redo");
    }

    /// A sequence's logits and state do not depend on its batch neighbours.
    #[test]
    fn neighbours_change_nothing(
        first in prop::collection::vec(1usize..150, 3),
        second in prop::collection::vec(1usize..60, 3),
        mode in prop::sample::select(Mode::ALL.to_vec()),
        fixture in prop::sample::select(FIXTURES.to_vec()),
    ) {
        let model = model(fixture, mode);
        let mut pool = pool(&model);
        let texts: Vec<_> = (0..3).map(|i| text(&model, i, first[i] + second[i])).collect();
        let mut together: Vec<_> = (0..3).map(|_| pool.new_sequence().expect("a slot")).collect();
        let mut found = vec![Vec::new(); 3];
        for range in [0, 1] {
            let spans = (0..3).map(|i| if range == 0 { 0..first[i] } else { first[i]..first[i] + second[i] });
            let mut chunks: Vec<_> = together
                .iter_mut()
                .zip(spans.clone())
                .enumerate()
                .map(|(i, (sequence, span))| Chunk { sequence, tokens: &texts[i][span], outputs: Outputs::All })
                .collect();
            let logits = model.step(&mut pool, &mut chunks).expect("a valid step").expect("outputs");
            let logits = model.chip().read_f32(&logits).expect("read back");
            let mut rest = &logits[..];
            for (found, span) in found.iter_mut().zip(spans) {
                let (own, after) = rest.split_at(span.len() * model.config().vocab_size());
                found.extend_from_slice(own);
                rest = after;
            }
        }
        for i in 0..3 {
            let mut alone = pool.new_sequence().expect("a slot");
            let expected = feed(&model, &mut pool, &mut alone, &texts[i]);
            prop_assert!(found[i] == expected, "logits of sequence {i} differ");
            prop_assert!(state(&model, &pool, &together[i]) == state(&model, &pool, &alone), "states differ");
        }
    }

    /// A sequence made from a snapshot's pages and tail bytes, rolled back or not, goes on as the original would have.
    #[test]
    fn snapshots_restore(
        length in 1usize..620,
        more in 1usize..140,
        rollback in 0usize..9,
        mode in prop::sample::select(Mode::ALL.to_vec()),
        fixture in prop::sample::select(FIXTURES.to_vec()),
    ) {
        let model = model(fixture, mode);
        let mut pool = pool(&model);
        let (tokens, after) = (text(&model, 1, length), text(&model, 2, more));
        let mut original = pool.new_sequence().expect("a slot");
        for chunk in tokens.chunks(512) {
            feed(&model, &mut pool, &mut original, chunk);
        }
        let rollback = pool.snapshot_rollback(&original, rollback);
        let tail = pool.read_tail(&original, rollback).expect("read back");
        let full = length / PAGE_TOKEN_COUNT;
        let mut pages = pool.share_pages(&original, 0..full).expect("its own");
        if length % PAGE_TOKEN_COUNT > 0 {
            let page = pool.detach_page(&original, full).expect("a free page");
            pages.push(pool.write_page(&pool.read_page(&page).expect("read back")).expect("a free page"));
        }
        // The original leaves, and its slot is used by somebody else.
        drop(original);
        let mut other = pool.new_sequence().expect("a slot");
        feed(&model, &mut pool, &mut other, &text(&model, 5, 200));
        let mut restored = pool.restore_sequence(&pages, length, rollback, &tail).expect("a slot");
        prop_assert_eq!(restored.earliest_len(), length - rollback);
        prop_assert!(restored.roll_back((length - rollback).wrapping_sub(1)).is_err());
        restored.roll_back(length - rollback).expect("within the snapshot");
        let found = feed(&model, &mut pool, &mut restored, &after);
        let mut alone = pool.new_sequence().expect("a slot");
        for chunk in tokens[..length - rollback].chunks(512) {
            feed(&model, &mut pool, &mut alone, chunk);
        }
        prop_assert!(found == feed(&model, &mut pool, &mut alone, &after), "logits differ");
        prop_assert!(state(&model, &pool, &restored) == state(&model, &pool, &alone), "states differ");
        // Nothing is left behind.
        drop((restored, alone, other, pages));
        prop_assert_eq!(pool.free_page_count(), pool.page_count());
    }

    /// A copy goes its own way and leaves the original alone, also inside a shared page.
    #[test]
    fn copies_are_independent(
        length in 1usize..520,
        more in 1usize..300,
        fixture in prop::sample::select(FIXTURES.to_vec()),
    ) {
        let model = model(fixture, Mode::Fast);
        let mut pool = pool(&model);
        let (tokens, left, right) = (text(&model, 1, length), text(&model, 2, more), text(&model, 3, more));
        let mut original = pool.new_sequence().expect("a slot");
        for chunk in tokens.chunks(512) {
            feed(&model, &mut pool, &mut original, chunk);
        }
        let mut copy = pool.copy_sequence(&original).expect("a slot");
        prop_assert!(state(&model, &pool, &copy) == state(&model, &pool, &original), "states differ");
        let copied = feed(&model, &mut pool, &mut copy, &left);
        let continued = feed(&model, &mut pool, &mut original, &right);
        for (suffix, found) in [(&left, copied), (&right, continued)] {
            let mut alone = pool.new_sequence().expect("a slot");
            for chunk in tokens.chunks(512) {
                feed(&model, &mut pool, &mut alone, chunk);
            }
            prop_assert!(found == feed(&model, &mut pool, &mut alone, suffix), "logits differ");
        }
    }
}

#[test]
fn pages_are_shared_by_copies_and_freed_with_their_last_user() {
    let model = model(FIXTURES[0], Mode::Fast);
    let mut pool = pool(&model);
    let free = pool.free_token_count();
    let mut original = pool.new_sequence().expect("a slot");
    feed(
        &model,
        &mut pool,
        &mut original,
        &text(&model, 1, 2 * PAGE_TOKEN_COUNT - 6),
    );
    let copy = pool.copy_sequence(&original).expect("a slot");
    assert_eq!(pool.free_token_count(), free - 2 * PAGE_TOKEN_COUNT);
    // The original writes into its second page, which the copy still reads: one page more.
    feed(&model, &mut pool, &mut original, &text(&model, 2, 4));
    assert_eq!(pool.free_token_count(), free - 3 * PAGE_TOKEN_COUNT);
    drop(original);
    assert_eq!(pool.free_token_count(), free - 2 * PAGE_TOKEN_COUNT);
    drop(copy);
    assert_eq!(pool.free_token_count(), free);
}

#[test]
fn impossible_steps_are_errors_and_change_nothing() {
    use crate::Error;
    let model = model(FIXTURES[0], Mode::Fast);
    let mut pool = model
        .new_state(&StateOptions {
            token_count_max: Some(300),
            step_row_count_max: 700,
            ..StateOptions::default()
        })
        .expect("memory");
    let mut sequence = pool.new_sequence().expect("the only slot");
    assert!(matches!(pool.new_sequence(), Err(Error::Sequences { limit: 1 })));
    feed(&model, &mut pool, &mut sequence, &[1, 2, 3]);
    let before = state(&model, &pool, &sequence);
    let vocabulary = model.config().vocab_size() as u32;
    let long = vec![0; 690];
    let mut step = |tokens: &[u32]| {
        let mut chunks = [Chunk {
            sequence: &mut sequence,
            tokens,
            outputs: Outputs::Last,
        }];
        model.step(&mut pool, &mut chunks).expect_err("impossible")
    };
    assert!(matches!(step(&[]), Error::EmptyChunk));
    assert!(matches!(step(&[vocabulary]), Error::Token { .. }));
    assert!(matches!(step(&long), Error::Context { .. } | Error::Pages { .. }));
    assert!(matches!(step(&vec![0; 701]), Error::StepRows { rows: 701, limit: 700 }));
    assert_eq!(sequence.len(), 3);
    assert!(matches!(
        sequence.roll_back(4),
        Err(Error::RollBack { target: 4, earliest: 0 })
    ));
    assert!(state(&model, &pool, &sequence) == before);
    let other = model.new_state(&StateOptions::default()).expect("memory");
    assert!(matches!(other.copy_sequence(&sequence), Err(Error::ForeignSequence)));
}
