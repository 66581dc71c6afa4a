//! Guessing tokens with the model's own drafter and keeping those that the model would have drawn itself.
//!
//! A draw depends on the seed, the position and the model's logits only. So a guess is right if it is the token that the
//! sampler draws from the logits of its position, and then the logits after it are those that a plain step would have
//! computed: **an answer is the same, token by token, with and without speculation**, whatever the temperature, cuts,
//! penalties and constraints. The drafter's tokens are drawn with the same random number from the drafter's logits, so
//! guesses are right often also where many tokens are likely.
//!
//! Another rule, to accept a guess with probability `min(1, model / drafter)`, keeps the distribution and accepts a
//! little more at high temperatures, but makes the text depend on what was guessed, and so on how fast the machine is.
//!
//! | file | holds |
//! | --- | --- |
//! | `costs.rs` | what steps of so many rows take on this chip |
//! | `acceptance.rs` | how often guesses were right |
//! | `controller.rs` | how many tokens to guess, or none: never more than a bounded loss |
//! | `propose.rs` | the guesses |

mod acceptance;
mod controller;
mod costs;
mod propose;

use std::str::FromStr;

use cachalot_model::{Model, StateOptions};

pub(crate) use self::{
    acceptance::Acceptance,
    controller::{Speculated, Speculator},
    propose::{Proposal, propose},
};

/// What a pool needs so that a model can guess; all else at its default.
pub(crate) fn state_options(model: &Model, speculation: Speculation) -> StateOptions {
    let defaults = StateOptions::default();
    let draft_count_max = match speculation {
        Speculation::Off => 0,
        Speculation::Auto => model.draft_count_max().unwrap_or(0).min(DRAFT_COUNT_MAX),
        Speculation::Always(count) => model.draft_count_max().unwrap_or(0).min(count),
    };
    StateOptions {
        draft_count_max,
        // Wrong guesses are rolled back, and what was remembered before them as before.
        rollback_count_max: defaults.rollback_count_max + draft_count_max,
        ..defaults
    }
}

/// Tokens that are guessed at once at most.
pub(crate) const DRAFT_COUNT_MAX: usize = 8;

/// Whether tokens are guessed with the model's own drafter. Answers are the same either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speculation {
    /// As many tokens as pay, by what steps cost and how often guesses were right; none if none do.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Always this many, whether it pays or not.
    Always(usize),
}

impl FromStr for Speculation {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Speculation::Auto),
            ("off" | "0", _) => Ok(Speculation::Off),
            (_, Ok(count @ 1..=DRAFT_COUNT_MAX)) => Ok(Speculation::Always(count)),
            _ => Err("expected 'auto', 'off', or a number of tokens from 1 to 8"),
        }
    }
}

/// What speculation did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SpeculationStatus {
    /// Whether the model has a drafter that may be used.
    pub is_possible: bool,
    /// Steps that checked guesses.
    pub step_count: u64,
    /// Steps of answers that could have.
    pub plain_step_count: u64,
    /// Tokens guessed.
    pub drafted_count: u64,
    /// Those that were right.
    pub accepted_count: u64,
    /// Seconds that plain steps would have taken for the same tokens, less those that were taken; by estimates of the
    /// moment.
    pub seconds_saved: f64,
}

impl SpeculationStatus {
    /// Share of guesses that were right; none without guesses.
    pub fn acceptance(&self) -> Option<f64> {
        (self.drafted_count > 0).then(|| self.accepted_count as f64 / self.drafted_count as f64)
    }
}
