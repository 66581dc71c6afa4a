//! Sequences whose state was generated: steps on them are sound, and as long as they say.

mod support;

use cachalot_chip::Mode;
use cachalot_model::Error;

#[test]
fn generated_sequences_go_on_like_others() {
    for name in support::FIXTURES {
        for mode in Mode::ALL {
            let model = support::model(name, mode);
            let mut pool = support::pool(&model, 3);
            let mut logits = Vec::new();
            for seed in [1, 1, 2] {
                let mut sequence = pool.new_generated_sequence(2051, seed).expect("room");
                assert_eq!(sequence.len(), 2051);
                let rows = support::feed(&model, &mut pool, &mut sequence, &[3, 1, 4, 1, 5]);
                assert!(rows.iter().flatten().all(|logit| logit.is_finite()), "{name} {mode}");
                sequence.roll_back(2051).expect("tails remember five tokens");
                logits.push(rows);
            }
            assert_eq!(logits[0], logits[1], "{name} {mode}: the same seed");
            assert_ne!(logits[0], logits[2], "{name} {mode}: another seed");
        }
    }
}

#[test]
fn no_sequence_is_longer_than_the_context() {
    let model = support::model(support::FIXTURES[0], Mode::Fast);
    let pool = support::pool(&model, 1);
    let length = pool.context() + 1;
    assert!(matches!(
        pool.new_generated_sequence(length, 0),
        Err(Error::Context { .. })
    ));
}
