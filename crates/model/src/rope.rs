//! Rotary frequencies (V4 architecture, section 3.2).

use cachalot_checkpoint::{DeepseekV4Config, RopeScaling};

/// Frequencies of the `qk_rope_head_dim / 2` channel pairs, rounded to `f32` as in the reference.
///
/// Layers without compression use `rope_theta`; all others `compress_rope_theta` with YaRN, whose `mscale` V4 does not
/// apply.
pub(crate) fn frequencies(config: &DeepseekV4Config, compressed: bool) -> Vec<f32> {
    let channels = config.qk_rope_head_dim;
    let theta = if compressed {
        config.compress_rope_theta
    } else {
        config.rope_theta
    };
    let scaling = if compressed { config.rope_scaling.as_ref() } else { None };
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
    use cachalot_checkpoint::published;
    use std::path::Path;

    #[test]
    fn frequencies_are_those_of_the_notes() {
        let text = published::config("deepseek-ai/DeepSeek-V4-Flash").expect("a published release");
        let config = DeepseekV4Config::from_json(text, Path::new("config.json")).expect("valid");
        let frequencies = frequencies(&config, true);
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
