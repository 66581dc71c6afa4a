//! The official mode as a whole against an independent transcription (fixtures by `tools/fixtures/official_v4.py`).

mod support;

use cachalot_chip::Mode;
use safetensors::SafeTensors;
use support::{expected, feed, fixture_folder, model, pool, prompts, relative_error};

const FIXTURE: &str = "official-fp8-fp4";

fn floats(tensors: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let tensor = tensors.tensor(name).expect("a tensor of the fixture");
    tensor
        .data()
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect()
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
    logits.iter().map(|logit| f64::from(logit - max) - sum.ln()).collect()
}

fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let (p, q) = (log_softmax(p), log_softmax(q));
    p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Tokens until which no order of summation flips a last bit in these prompts.
const EXACT_TOKENS: usize = 12;

/// With random weights a flipped last bit grows with the tokens until two right implementations give different logits.
/// So: equal logits up to there, and beyond a divergence of the size that another order of summation causes, well below
/// that of leaving the roundings out.
#[test]
fn official_logits_agree_with_the_transcription() {
    let model = model(FIXTURE, Mode::Official);
    let mut pool = pool(&model, 1);
    let bytes = std::fs::read(fixture_folder(FIXTURE).join("official_logits.safetensors")).expect("the fixture");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let (mut ours, mut orders, mut plains) = (Vec::new(), Vec::new(), Vec::new());
    let mut exact_count = 0;
    for prompt in prompts(FIXTURE).into_iter().filter(|prompt| prompt.len() <= 700) {
        let length = prompt.len();
        let mut sequence = pool.new_sequence().expect("a free slot");
        let logits = feed(&model, &mut pool, &mut sequence, &prompt);
        let expected = expected(FIXTURE, "official_logits.safetensors", length);
        let order_divergences = floats(&tensors, &format!("order_divergences.{length}"));
        let plain_divergences = floats(&tensors, &format!("plain_divergences.{length}"));
        for (index, (position, row)) in expected.positions.iter().zip(&expected.logits).enumerate() {
            let found = &logits[*position];
            if *position < EXACT_TOKENS {
                exact_count += 1;
                let error = relative_error(found, row);
                assert!(error < 1e-5, "{length} tokens, position {position}: {error:e}");
            } else {
                ours.push(divergence(row, found));
                orders.push(f64::from(order_divergences[index]));
                plains.push(f64::from(plain_divergences[index]));
            }
        }
    }
    assert!(exact_count >= 30, "only {exact_count} positions were compared exactly");
    let [ours, orders, plains] = [ours, orders, plains].map(median);
    println!("median divergence: ours {ours:.2e}, another order of summation {orders:.2e}, no roundings {plains:.2e}");
    assert!(
        ours <= 3.0 * orders && ours <= plains / 5.0,
        "{ours:e} against {orders:e} and {plains:e}"
    );
}
