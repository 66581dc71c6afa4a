use std::{collections::BTreeMap, time::Duration};

use crate::SpeculationStatus;

/// What a [`Service`](crate::Service) does and has done since it started.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ServiceStatus {
    /// Requests that wait, interrupted ones included.
    pub waiting: usize,
    /// Requests whose answers are computed.
    pub running: usize,
    /// Those of them whose prompts are computed.
    pub prefilling: usize,
    /// Whether new requests are refused because the service ends.
    pub is_draining: bool,
    /// Steps run.
    pub step_count: u64,
    /// Steps that failed.
    pub failed_step_count: u64,
    /// Requests taken.
    pub admitted_count: u64,
    /// Requests that ended, by reason: `stop`, `length`, `cancelled`, `deadline`, `failed`.
    pub ended_counts: BTreeMap<&'static str, u64>,
    /// Interruptions of running requests for others of higher priority or for lack of memory.
    pub interrupted_count: u64,
    /// Prompt tokens computed, replays included.
    pub prefill_token_count: u64,
    /// Tokens of answers.
    pub decode_token_count: u64,
    /// Prompt tokens of admitted requests.
    pub prompt_token_count: u64,
    /// Those of them found in the prefix cache.
    pub reused_token_count: u64,
    /// Prompt tokens of admitted requests that were not found in the prefix cache, by [`MissReason::name`].
    ///
    /// [`MissReason::name`]: crate::MissReason::name
    pub missed_token_counts: BTreeMap<&'static str, u64>,
    /// Prompt tokens computed a second, mean of the last steps.
    pub prefill_tokens_per_second: f64,
    /// Tokens of answers a second, all together, mean of the last steps.
    pub decode_tokens_per_second: f64,
    /// Where the time of the steps went.
    pub profile: StepProfile,
    /// Memory of the state.
    pub memory: MemoryStatus,
    /// Why the prefix cache does not use its folder, if it should: the service goes on without.
    pub cache_fault: Option<String>,
    /// What guessing tokens did.
    pub speculation: SpeculationStatus,
    /// Mean duration of requests, from admission to end.
    pub request_duration: Duration,
}

/// Time spent since the start, by part of a step.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepProfile {
    /// Taking requests, choosing rows.
    pub schedule: Duration,
    /// The model, until its logits are read.
    pub model: Duration,
    /// Penalties, drawing, sinks.
    pub sample: Duration,
    /// Prefix cache: looking up, remembering, writing to disk.
    pub cache: Duration,
}

impl StepProfile {
    /// Share of all time that was not spent in the model.
    pub fn overhead(&self) -> f64 {
        let own = self.schedule + self.sample + self.cache;
        own.as_secs_f64() / (own + self.model).as_secs_f64().max(1e-9)
    }
}

/// Memory of the state, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryStatus {
    /// Pages of running sequences and of the prefix cache.
    pub used_page_bytes: u64,
    /// Those in the prefix cache, some of which running sequences share.
    pub cached_page_bytes: u64,
    /// Unused pages.
    pub free_page_bytes: u64,
    /// Tails of running sequences.
    pub running_tail_bytes: u64,
    /// Tails in the prefix cache.
    pub cached_tail_bytes: u64,
    /// Files in the prefix cache's folder.
    pub disk_bytes: u64,
}

impl ServiceStatus {
    /// When a place in the queue is likely to be free, at least a second.
    pub(crate) fn retry_after(&self) -> Duration {
        let share = self.request_duration / self.running.max(1) as u32;
        share.max(Duration::from_secs(1))
    }
}
