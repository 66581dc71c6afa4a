//! Logits against transformers' `DeepseekV3ForCausalLM` and `DeepseekV32ForCausalLM` (fixtures by
//! `tools/fixtures/transformers_v3.py`).

mod support;

use cachalot_chip::Mode;
use support::{V3_FIXTURES, expected, feed, model, pool, prompts, relative_error};

const RELATIVE_ERROR_MAX: f32 = 1e-4;

#[test]
fn prefill_agrees_with_transformers() {
    for name in V3_FIXTURES {
        let model = model(name, Mode::Reference);
        let mut pool = pool(&model, 1);
        for prompt in prompts(name) {
            let mut sequence = pool.new_sequence().expect("a free slot");
            let logits = feed(&model, &mut pool, &mut sequence, &prompt);
            let expected = expected(name, "logits.safetensors", prompt.len());
            for (position, row) in expected.positions.iter().zip(&expected.logits) {
                let error = relative_error(&logits[*position], row);
                assert!(
                    error <= RELATIVE_ERROR_MAX,
                    "{name}, {} tokens, position {position}: {error:e}",
                    prompt.len()
                );
            }
        }
    }
}

#[test]
fn cached_decode_agrees_with_transformers() {
    for name in V3_FIXTURES {
        let model = model(name, Mode::Reference);
        let mut pool = pool(&model, 1);
        let mut error_max = 0f32;
        for prompt in prompts(name) {
            let mut sequence = pool.new_sequence().expect("a free slot");
            let expected = expected(name, "logits.safetensors", prompt.len());
            let prefill = prompt.len().saturating_sub(8);
            if prefill > 0 {
                feed(&model, &mut pool, &mut sequence, &prompt[..prefill]);
            }
            for position in prefill..prompt.len() {
                let logits = feed(&model, &mut pool, &mut sequence, &prompt[position..=position]);
                if let Some(index) = expected.positions.iter().position(|kept| *kept == position) {
                    let error = relative_error(&logits[0], &expected.logits[index]);
                    error_max = error_max.max(error);
                    assert!(
                        error <= RELATIVE_ERROR_MAX,
                        "{name}, {} tokens, {position}: {error:e}",
                        prompt.len()
                    );
                }
            }
        }
        println!("{name}: largest relative error of a decoded row {error_max:e}");
    }
}

/// The law of fast mode: its distributions are no further from the reference than official's.
#[test]
fn fast_is_no_further_than_official() {
    for name in V3_FIXTURES {
        let [reference, official, fast] = [Mode::Reference, Mode::Official, Mode::Fast].map(|mode| {
            let model = model(name, mode);
            let mut pool = pool(&model, 1);
            let rows = prompts(name).into_iter().flat_map(|prompt| {
                let mut sequence = pool.new_sequence().expect("a free slot");
                feed(&model, &mut pool, &mut sequence, &prompt)
            });
            rows.collect::<Vec<_>>()
        });
        let distance = |other: &[Vec<f32>]| {
            let rows = reference.iter().zip(other);
            rows.map(|(p, q)| divergence(p, q)).sum::<f64>() / reference.len() as f64
        };
        let (fast, official) = (distance(&fast), distance(&official));
        println!("{name}: fast {fast:.2e} nats from the reference, official {official:.2e}");
        assert!(fast <= official, "{name}: {fast:e} > {official:e}");
    }
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
