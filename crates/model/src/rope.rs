//! Rotary frequencies.

use bytes::Bytes;
use cachalot_checkpoint::RopeScaling;
use cachalot_chip::{Chip, Error, Tensor, TensorSource};
use cachalot_numerics::Dtype;

/// Frequencies of the `channels / 2` channel pairs, rounded to `f32` as in the reference; with YaRN if there is a scaling.
pub(crate) fn frequencies(channels: usize, theta: f64, scaling: Option<&RopeScaling>) -> Vec<f32> {
    let ramp = scaling.map(|scaling| Ramp::new(scaling, channels, theta));
    (0..channels / 2)
        .map(|pair| {
            let base = theta.powf(-2.0 * pair as f64 / channels as f64);
            match (scaling, &ramp) {
                (Some(scaling), Some(ramp)) => {
                    let share = ramp.at(pair);
                    (base / scaling.factor * share + base * (1.0 - share)) as f32
                }
                _ => base as f32,
            }
        })
        .collect()
}

/// The same on a chip, `F32 [channels / 2]`.
pub(crate) fn load_frequencies(
    chip: &dyn Chip,
    channels: usize,
    theta: f64,
    scaling: Option<&RopeScaling>,
) -> Result<Tensor, Error> {
    let values = frequencies(channels, theta, scaling);
    chip.load(TensorSource {
        name: "rotary frequencies".to_owned(),
        dtype: Dtype::F32,
        shape: vec![values.len()],
        data: Bytes::from_iter(values.iter().flat_map(|value| value.to_le_bytes())),
    })
}

/// From frequencies that are kept (0) to frequencies that are divided by the factor (1).
struct Ramp {
    low: f64,
    high: f64,
}

impl Ramp {
    fn new(scaling: &RopeScaling, channels: usize, theta: f64) -> Self {
        let turns = |beta: f64| {
            let length = scaling.original_max_position_embeddings as f64;
            channels as f64 * (length / (beta * std::f64::consts::TAU)).ln() / (2.0 * theta.ln())
        };
        let low = turns(scaling.beta_fast).floor().max(0.0);
        let high = turns(scaling.beta_slow).ceil().min(channels as f64 - 1.0);
        Ramp {
            low,
            high: if high > low { high } else { low + 0.001 },
        }
    }

    fn at(&self, pair: usize) -> f64 {
        ((pair as f64 - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cachalot_checkpoint::{DeepseekV4Config, published};
    use std::path::Path;

    #[test]
    fn frequencies_are_those_of_the_notes() {
        let text = published::config("deepseek-ai/DeepSeek-V4-Flash").expect("a published release");
        let config = DeepseekV4Config::from_json(text, Path::new("config.json")).expect("valid");
        let theta = config.compress_rope_theta;
        let frequencies = frequencies(config.qk_rope_head_dim, theta, config.rope_scaling.as_ref());
        let expected = [
            (0, 1.0),
            (1, 6.876560219e-01),
            (15, 3.635538584e-03),
            (16, 2.265625e-03),
            (20, 2.969777783e-04),
            (26, 3.694303160e-06),
            (31, 5.680529037e-07),
        ];
        for (pair, value) in expected {
            assert!((f64::from(frequencies[pair]) / value - 1.0).abs() < 1e-7, "pair {pair}");
        }
    }
}
