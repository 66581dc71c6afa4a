//! How a model computes: options of all commands that run one.

use cachalot_chip::Mode;
use cachalot_chip_cpu::{CpuOptions, Kernels, UnknownKernels};
use cachalot_engine::EngineOptions;
use cachalot_model::{KvFormat, ModelOptions};
use cachalot_numerics::IntegerWidth;
use clap::{
    Args, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};

use crate::numbers::{parse_bytes, parse_token_count};

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Computing")]
pub struct ComputeOptions {
    /// Numeric mode: the f32 yardstick, the rounding of DeepSeek's own code, or the fastest kernels
    #[arg(long, value_name = "MODE", default_value = "fast",
          value_parser = PossibleValuesParser::new(["reference", "official", "fast"]).try_map(|text| text.parse::<Mode>()))]
    pub mode: Mode,

    /// How fast mode keeps keys and values
    #[arg(long, value_name = "FORMAT", default_value = "packed")]
    pub kv: Kv,

    /// Re-quantise the dense part (attention, shared experts, head, compressors, indexers) to integers of this width
    /// while loading, where that makes it smaller [default: the released bits]
    #[arg(long, value_name = "FORMAT", value_parser = dense_parser())]
    pub dense: Option<IntegerWidth>,

    /// Tokens of memory, such as 8k or 1M [default: all that the model was made for, or what an eighth of --memory holds]
    #[arg(long, value_name = "TOKENS", value_parser = parse_token_count)]
    pub context: Option<usize>,

    /// Memory that the process may use, such as 8GiB: experts that do not fit are read from disk when they are needed
    /// [default: weights are mapped where the model fits into free memory, else most of that]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub memory: Option<u64>,

    /// Threads that compute [default: one for each core]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,

    /// Instructions of fast mode, to compare them [default: the best that this processor has]
    #[arg(long, value_name = "SET",
          value_parser = PossibleValuesParser::new(Kernels::ALL.map(Kernels::name)).try_map(|text| parse_kernels(&text)))]
    pub kernels: Option<Kernels>,

    /// Tokens of a prompt that are computed at once
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = clap::value_parser!(u16).range(1..=8192))]
    pub chunk: u16,

    /// Whether to load the model's drafter.
    #[arg(skip)]
    pub drafter: bool,
}

/// The widths of `--dense`.
pub fn dense_parser() -> impl TypedValueParser<Value = IntegerWidth> {
    PossibleValuesParser::new(["int8", "int6", "int4"]).try_map(|text| text.parse::<IntegerWidth>())
}

fn parse_kernels(name: &str) -> Result<Kernels, String> {
    let kernels: Kernels = name.parse().map_err(|error: UnknownKernels| error.to_string())?;
    if kernels.is_available() {
        return Ok(kernels);
    }
    Err(format!(
        "this processor cannot run them; its best are '{}'",
        Kernels::detect().name()
    ))
}

/// How fast mode keeps keys and values.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Kv {
    /// FP8 and FP4, rounded as DeepSeek's own code rounds them
    Packed,
    /// bf16, twice the size
    Bf16,
}

impl ComputeOptions {
    pub fn cpu(&self) -> CpuOptions {
        let defaults = CpuOptions::default();
        CpuOptions {
            threads: self.threads.map_or(defaults.threads, usize::from),
            kernels: self.kernels.unwrap_or(defaults.kernels),
            ..defaults
        }
    }

    pub fn model(&self) -> ModelOptions {
        ModelOptions {
            mode: self.mode,
            kv_format: match self.kv {
                Kv::Packed => KvFormat::Packed,
                Kv::Bf16 => KvFormat::Bf16,
            },
            drafter: self.drafter,
        }
    }

    pub fn engine(&self) -> EngineOptions {
        EngineOptions {
            context: self.context,
            session_count_max: 1,
            prefill_row_count: usize::from(self.chunk),
        }
    }
}
