//! What a run found, as it is written to files and compared.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Raised when older files can no longer be read.
pub const FORMAT: u32 = 1;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    pub format: u32,
    /// Of the program.
    pub version: String,
    pub model: String,
    pub mode: String,
    /// Low-bit format of the dense part; released bits without.
    #[serde(default)]
    pub dense: Option<String>,
    pub kv: String,
    /// The chip in words.
    pub chip: String,
    pub threads: usize,
    /// Rows of a prefill step.
    pub chunk: usize,
    pub seed: u64,
    /// Stored weights that one decoded token reads.
    pub active_weight_bytes: u64,
    pub ceilings: Ceilings,
    pub points: Vec<Point>,
    pub skipped: Vec<Skipped>,
}

/// What the machine can do at most, in the same minutes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ceilings {
    /// Streaming reads, bytes a second, by number of threads.
    pub read: Vec<Ceiling>,
    /// Arithmetic of all threads, operations a second, two for a multiply-add.
    pub arithmetic: Vec<Ceiling>,
    /// The arithmetic that the kernels use for many rows.
    pub used: String,
    /// The disk that experts come from, bytes a second, if the model has a memory limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Ceiling>,
    /// The best of `read` with all threads.
    pub read_bytes_per_second: f64,
    /// The best of the arithmetic in use.
    pub operations_per_second: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ceiling {
    /// `read`, `f32`, `int8` or `bf16`.
    pub name: String,
    pub instructions: String,
    pub threads: usize,
    pub best: f64,
    pub median: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Prefill,
    Decode,
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    pub phase: Phase,
    /// Length of the prompt, or of the context before the first step.
    pub tokens: usize,
    /// Sequences.
    pub batch: usize,
    /// Steps of a repetition.
    pub steps: usize,
    /// Whether the context was generated instead of fed.
    pub generated_state: bool,
    /// Tokens a second of each repetition, all sequences together.
    pub rates: Vec<f64>,
    /// Repetitions left out because they waited for weights from the disk.
    pub discarded: usize,
    /// Whether all repetitions waited for the disk.
    pub waited_for_disk: bool,
    /// Tokens a second, median of the repetitions.
    pub tokens_per_second: f64,
    /// What a token moves and computes at least, as the operators' shapes say.
    pub cost_per_token: CostPerToken,
    /// Weights and state.
    pub bytes_per_second: f64,
    pub operations_per_second: f64,
    /// Of the streaming-read ceiling.
    pub bandwidth_fraction: f64,
    /// Of the ceiling of the arithmetic in use.
    pub arithmetic_fraction: f64,
    /// Seconds of a token if every operator ran at the ceiling that it meets first.
    pub floor_seconds_per_token: f64,
    /// What the planner expects from the ceilings.
    pub predicted_tokens_per_second: f64,
    /// How experts came from disk, if the model has a memory limit: all repetitions together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experts: Option<serde_json::Value>,
    /// What disk and memory allow beside the experts that had to be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskShare>,
    /// Time by operator in one more repetition, longest first.
    pub operators: Vec<OperatorShare>,
}

/// A token beside the speed of the disk.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct DiskShare {
    /// Bytes that the timed repetitions read for a token.
    pub bytes_per_token: f64,
    /// Of the experts asked for, how many were in memory.
    pub hit_share: f64,
    /// Seconds that a token takes at least: these bytes at the disk's ceiling, and the head, which comes after the last
    /// expert and before the next token is known, at the memory's; or the floor of a model in memory if that is longer.
    pub floor_seconds_per_token: f64,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct CostPerToken {
    pub weight_bytes: f64,
    pub state_bytes: f64,
    pub row_bytes: f64,
    pub multiply_adds: f64,
}

impl CostPerToken {
    /// Weights and state. Activations stay in caches.
    pub fn memory_bytes(&self) -> f64 {
        self.weight_bytes + self.state_bytes
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OperatorShare {
    pub operator: String,
    /// Format and shape, for operators with a weight.
    pub weight: Option<String>,
    pub calls: u64,
    pub seconds: f64,
    pub weight_bytes: u64,
    pub state_bytes: u64,
    pub row_bytes: u64,
    pub multiply_adds: u64,
}

impl OperatorShare {
    /// Weights and state.
    pub fn memory_bytes(&self) -> f64 {
        (self.weight_bytes + self.state_bytes) as f64
    }
}

/// A measurement that was not made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Skipped {
    pub phase: Phase,
    pub tokens: usize,
    pub batch: usize,
    pub reason: String,
}

impl Ceilings {
    /// Seconds that bytes and multiply-adds take at least.
    pub fn floor_seconds(&self, bytes: f64, multiply_adds: f64) -> f64 {
        (bytes / self.read_bytes_per_second).max(2.0 * multiply_adds / self.operations_per_second)
    }
}

impl Point {
    /// Slowest and fastest repetition.
    pub fn spread(&self) -> (f64, f64) {
        let low = self.rates.iter().copied().fold(f64::INFINITY, f64::min);
        (low, self.rates.iter().copied().fold(0.0, f64::max))
    }

    /// Whether another point measured the same thing.
    pub fn is_like(&self, other: &Point) -> bool {
        (self.phase, self.tokens, self.batch) == (other.phase, other.tokens, other.batch)
    }

    /// `decode at 2,048, batch 8`.
    pub fn name(&self) -> String {
        name(self.phase, self.tokens, self.batch)
    }
}

pub fn name(phase: Phase, tokens: usize, batch: usize) -> String {
    let tokens = crate::numbers::grouped(tokens as u64);
    let batch = match batch {
        1 => String::new(),
        batch => format!(", batch {batch}"),
    };
    match phase {
        Phase::Prefill => format!("prefill of {tokens}{batch}"),
        Phase::Decode => format!("decode at {tokens}{batch}"),
    }
}

/// Reads the results of an earlier run.
pub fn read(path: &Path) -> Result<Results, Error> {
    let bytes = fs::read(path).map_err(|source| Error::Read {
        what: path.display().to_string(),
        source,
    })?;
    let bad = |reason: String| Error::BenchFile {
        file: path.display().to_string(),
        reason,
    };
    let results: Results = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    if results.format != FORMAT {
        return Err(bad(format!(
            "it has format {}, this program reads {FORMAT}",
            results.format
        )));
    }
    let is_sound = |point: &Point| {
        point.tokens_per_second > 0.0 && !point.rates.is_empty() && point.rates.iter().all(|rate| *rate > 0.0)
    };
    match results.points.iter().all(is_sound) {
        true => Ok(results),
        false => Err(bad("a point has no rates above 0".to_owned())),
    }
}
