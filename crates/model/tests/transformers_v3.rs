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
