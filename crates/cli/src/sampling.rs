//! How tokens are drawn: options of commands that write text.

use std::hash::{BuildHasher, RandomState};

use cachalot_engine::SamplingOptions;
use clap::Args;

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sampling (defaults: the model's generation_config.json)")]
pub struct SamplingArguments {
    /// Divides the logits: 0 always takes the most likely token
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    temperature: Option<f32>,

    /// Keep the smallest set of tokens whose probabilities reach this sum
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    top_p: Option<f32>,

    /// Keep this many of the most likely tokens; 0 keeps all
    #[arg(long, value_name = "COUNT")]
    top_k: Option<usize>,

    /// Drop tokens less likely than this times the most likely one
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    min_p: Option<f32>,

    /// Seed of the random numbers: the same seed gives the same text [default: random, told by --verbose]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    /// Always take the most likely token
    #[arg(long, conflicts_with_all = ["temperature", "top_p", "top_k", "min_p", "seed"])]
    greedy: bool,
}

impl SamplingArguments {
    /// The options of the command line over those of the model.
    pub fn over(&self, model: &SamplingOptions) -> Result<SamplingOptions, cachalot_engine::Error> {
        if self.greedy {
            return Ok(SamplingOptions::greedy());
        }
        let sampling = SamplingOptions {
            temperature: self.temperature.unwrap_or(model.temperature),
            top_p: self.top_p.unwrap_or(model.top_p),
            top_k: self.top_k.unwrap_or(model.top_k),
            min_p: self.min_p.unwrap_or(model.min_p),
            seed: self.seed.unwrap_or_else(random_seed),
            ..model.clone()
        };
        sampling.check()?;
        Ok(sampling)
    }
}

/// Few digits, so that it can be typed again.
fn random_seed() -> u64 {
    RandomState::new().hash_one(std::process::id()) % 1_000_000_000
}
