//! How much memory a model may use, and what it does with it.

use std::sync::Arc;

use cachalot_checkpoint::{Architecture, Checkpoint, accounting};
use cachalot_chip::{Error as ChipError, ExpertTraffic, Mode};
use cachalot_chip_cpu::{CpuChip, CpuOptions};
use serde_json::{Value, json};

use crate::{
    compute::{ComputeOptions, Kv},
    error::Error,
    machine, numbers,
};

/// Code, tables of tensors, tokenizer, allocator: an estimate, not yet measured on a whole model.
const PROCESS_BYTES: u64 = 160 << 20;
/// Part of the free memory that is used if nothing is said, in hundredths: the rest is for what is started later.
const FREE_HUNDREDTHS: u64 = 85;
/// With a limit and no word about the context, state takes at most this part of it.
const STATE_DIVISOR: u64 = 8;
const CONTEXT_MIN: usize = 4096;

/// What was decided before a model is loaded.
#[derive(Clone, Copy, Debug)]
pub struct MemoryPlan {
    /// The process may have so much; none if the weights are mapped and the system decides what stays in memory.
    pub limit_bytes: Option<u64>,
    /// Of these, what the chip does not count: the program and what operators need while they run.
    reserve_bytes: u64,
    /// Tokens of memory.
    pub context: Option<usize>,
}

impl MemoryPlan {
    /// Follows `--memory`. Without it, a model that does not fit into free memory gets most of it, which is said in a line.
    pub fn new(checkpoint: &Checkpoint, options: &ComputeOptions) -> Self {
        let config = checkpoint.config();
        let reserve_bytes = PROCESS_BYTES + operator_bytes(config, usize::from(options.chunk));
        // The last layer has experts in all families.
        let expert = format!("layers.{}.ffn.experts.0.w1.weight", config.layer_count() - 1);
        let is_in_files = checkpoint.place(&expert).is_some();
        let limit_bytes = options.memory.or_else(|| {
            let free = machine::available_bytes().filter(|_| is_in_files)?;
            let usable = free / 100 * FREE_HUNDREDTHS;
            if checkpoint.byte_count() + reserve_bytes <= usable {
                return None;
            }
            eprintln!(
                "notice: {} of weights do not fit into {} of free memory: experts are read from disk when needed, within \
                 {} (--memory)",
                numbers::bytes(checkpoint.byte_count()),
                numbers::bytes(free),
                numbers::bytes(usable)
            );
            Some(usable)
        });
        let context = match limit_bytes {
            Some(limit) if options.context.is_none() => Some(context_within(config, options, limit / STATE_DIVISOR)),
            _ => options.context,
        };
        MemoryPlan {
            limit_bytes,
            reserve_bytes,
            context,
        }
    }

    /// The CPU with what is left for it.
    pub fn chip(&self, options: CpuOptions) -> Arc<CpuChip> {
        let memory_bytes_max = self.limit_bytes.map(|limit| limit.saturating_sub(self.reserve_bytes));
        Arc::new(CpuChip::new(CpuOptions {
            memory_bytes_max,
            ..options
        }))
    }

    /// To be asked when weights and states are complete.
    ///
    /// # Errors
    /// [`Error::Memory`] with the smallest limit that suffices.
    pub fn check(&self, chip: &CpuChip, config: &dyn Architecture) -> Result<(), Error> {
        match (chip.check_memory(config.experts_per_token()), self.limit_bytes) {
            (
                Err(ChipError::MemoryLimit {
                    weight_bytes,
                    state_bytes,
                    slot_count_min,
                    slot_bytes_min,
                    needed_bytes,
                    ..
                }),
                Some(limit),
            ) => Err(Error::Memory {
                limit,
                weights: weight_bytes,
                states: state_bytes,
                program: self.reserve_bytes,
                expert_count: slot_count_min,
                experts: slot_bytes_min,
                needed_mebibytes: (needed_bytes + self.reserve_bytes).div_ceil(1 << 20),
            }),
            (result, _) => Ok(result?),
        }
    }
}

/// Bytes that operators allocate while they run: the routed experts' rows, for each row and choice twice the model's width
/// and thrice the experts'.
fn operator_bytes(config: &dyn Architecture, row_count: usize) -> u64 {
    let channels = 2 * config.hidden_size() + 3 * config.expert_width();
    (row_count * config.experts_per_token()) as u64 * 4 * channels as u64
}

/// The model's context, halved until its state fits into `state_bytes`.
fn context_within(config: &dyn Architecture, options: &ComputeOptions, state_bytes: u64) -> usize {
    let bytes_per_token = match (options.mode, options.kv) {
        (Mode::Reference, _) => 2.0 * accounting::kv_bytes_per_token(config, accounting::KvFormat::Bf16),
        (Mode::Fast, Kv::Bf16) => accounting::kv_bytes_per_token(config, accounting::KvFormat::Bf16),
        _ => accounting::kv_bytes_per_token(config, accounting::KvFormat::Packed),
    };
    let mut context = config.context();
    while context / 2 >= CONTEXT_MIN && context as f64 * bytes_per_token > state_bytes as f64 {
        context /= 2;
    }
    context
}

/// What happened to the experts of `token_count` tokens, in a line.
pub fn sentence(traffic: &ExpertTraffic, token_count: usize) -> String {
    format!(
        "{:.1} % of {} were in memory, {} read ahead, {} missed; {} read for each token, at {}/s{}; waited {}; {} of {} in \
         memory",
        100.0 * traffic.hit_share(),
        numbers::grouped(traffic.request_count),
        numbers::grouped(traffic.expected_count),
        numbers::grouped(traffic.miss_count()),
        numbers::bytes(traffic.bytes_read / token_count.max(1) as u64),
        numbers::bytes(traffic.read_bytes_per_second() as u64),
        if traffic.is_direct {
            ""
        } else {
            " (not direct: the file system refuses)"
        },
        numbers::seconds(traffic.wait_seconds),
        numbers::grouped(traffic.resident_count as u64),
        numbers::grouped(traffic.expert_count as u64),
    )
}

/// The same for scripts.
pub fn as_json(traffic: &ExpertTraffic, token_count: usize) -> Value {
    json!({
        "requests": traffic.request_count,
        "hits": traffic.hit_count,
        "read_ahead": traffic.expected_count,
        "misses": traffic.miss_count(),
        "reads": traffic.read_count,
        "bytes_read": traffic.bytes_read,
        "bytes_read_per_token": traffic.bytes_read as f64 / token_count.max(1) as f64,
        "read_bytes_per_second": traffic.read_bytes_per_second(),
        "read_seconds": traffic.read_seconds,
        "wait_seconds": traffic.wait_seconds,
        "resident": traffic.resident_count,
        "slots": traffic.slot_count,
        "experts": traffic.expert_count,
        "slot_bytes": traffic.slot_bytes,
        "direct": traffic.is_direct,
    })
}
