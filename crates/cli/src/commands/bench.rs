//! `cachalot bench`: how fast a model runs here, beside what the machine can do at most.

pub mod ceilings;
mod compare;
mod context;
mod measure;
mod profile;
mod results;
mod text;

use std::{path::PathBuf, sync::Arc};

use cachalot_chip::{Chip as _, profile::ProfiledChip};
use cachalot_model::Model;
use cachalot_planner::svg;
use clap::Args;

use crate::{
    compute::ComputeOptions, error::Error, interrupt::Cooperation, loading, location::Location, memory::MemoryPlan,
    model_choice::ModelChoice, numbers::parse_token_count, progress::LateBar,
};
use measure::{Bench, Wanted};
use results::{Phase, Results};

/// Measure how fast a model runs here, beside what this machine can do at most.
///
/// Prefill feeds random tokens from an empty state; decode adds one random token after another to each sequence. Long
/// contexts are not fed: their state is generated, which reads, scores and selects as much as a real one. Sampling is
/// not included. Medians over repetitions; the ceilings are measured in the same run.
#[derive(Args, Debug)]
pub struct BenchArguments {
    #[command(flatten)]
    model: ModelChoice,

    /// Prompt lengths to measure, or `none` [default: 128,512,2k,8k]
    #[arg(long, value_name = "TOKENS", value_parser = token_counts)]
    prefill: Option<TokenCounts>,

    /// Contexts at which decoding is measured, or `none` [default: 0,2k,16k,128k]
    #[arg(long, value_name = "TOKENS", value_parser = token_counts)]
    decode: Option<TokenCounts>,

    /// Decode at 1k, 2k, 4k ... up to the model's context and draw the cost of a token; replaces the default lists
    #[arg(long, value_name = "OUT.svg")]
    context_plot: Option<PathBuf>,

    /// Sequences that are decoded together
    #[arg(long, value_name = "COUNTS", default_value = "1", value_delimiter = ',',
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: Vec<u16>,

    /// Repetitions of each measurement
    #[arg(long, value_name = "COUNT", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000))]
    repetitions: u16,

    /// Steps of a repetition of decoding [default: half a second's, 4 to 64]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    steps: Option<u16>,

    /// Seconds after which a measurement is not repeated again
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u16).range(0..=3600))]
    seconds: u16,

    /// Seed of the random tokens and of generated state
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,

    /// Show where the time goes, by operator; with a file, also as a bar chart
    #[arg(long, value_name = "OUT.svg", num_args = 0..=1, require_equals = true)]
    profile: Option<Option<PathBuf>>,

    /// Write everything as JSON; `-` prints it instead of the tables
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Compare with an earlier run's JSON
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,

    #[command(flatten)]
    compute: ComputeOptions,
}

/// A list of its own, because the command line means something else by a list of lists.
#[derive(Clone, Debug)]
struct TokenCounts(Vec<usize>);

fn token_counts(text: &str) -> Result<TokenCounts, String> {
    if text == "none" {
        return Ok(TokenCounts(Vec::new()));
    }
    let counts = text.split(',').map(|text| match text.trim() {
        "0" => Ok(0),
        text => parse_token_count(text),
    });
    counts.collect::<Result<_, _>>().map(TokenCounts)
}

pub fn run(arguments: &BenchArguments) -> Result<(), Error> {
    // Read first: a mistyped file should not cost a measurement.
    let old = arguments.compare.as_deref().map(results::read).transpose()?;
    let location = Location::find(arguments.model.name(), arguments.model.yes.into())?;
    let (checkpoint, _) = loading::open(&location, &arguments.compute)?;
    let options = arguments.compute.cpu();
    let memory = MemoryPlan::new(&checkpoint, &arguments.compute);
    let cpu = memory.chip(options);
    let chip = Arc::new(ProfiledChip::new(Arc::clone(&cpu) as _));
    let bar = LateBar::counting("loading", "layers");
    let model = Model::load(
        &checkpoint,
        Arc::clone(&chip) as _,
        arguments.compute.model(),
        &mut |done, total| {
            bar.set(done as u64, total as u64);
        },
    )?;
    drop(bar);
    memory.check(&cpu, checkpoint.config())?;

    let cooperation = Cooperation::begin();
    let ceilings = ceilings::measure(options, &cpu, &cooperation)?;
    let mut results = Results {
        format: results::FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model: location.name().to_owned(),
        mode: arguments.compute.mode.to_string(),
        dense: checkpoint.config().low_bit().map(|width| width.to_string()),
        kv: format!("{:?}", arguments.compute.kv).to_lowercase(),
        chip: chip.description().details,
        threads: options.threads,
        chunk: usize::from(arguments.compute.chunk),
        seed: arguments.seed,
        active_weight_bytes: cachalot_checkpoint::accounting::active_total(checkpoint.config()).bytes,
        ceilings,
        points: Vec::new(),
        skipped: Vec::new(),
    };
    let planned = cachalot_planner::model::from_config(location.name(), checkpoint.config())?;
    let bench = Bench {
        model: &model,
        planned: &planned,
        chip: &chip,
        seed: arguments.seed,
        chunk: results.chunk,
        repetitions: usize::from(arguments.repetitions),
        steps: arguments.steps.map(usize::from),
        seconds: f64::from(arguments.seconds),
        context: arguments.compute.context.unwrap_or(checkpoint.config().context()),
        cooperation: &cooperation,
    };
    let outcome = bench.measure_all(&wanted(arguments, &bench), &mut results);
    show(arguments, &results, old.as_ref())?;
    outcome.map_err(|error| match error {
        Error::Interrupted { .. } => Error::Interrupted {
            remedy: "; what was measured until then is above".to_owned(),
        },
        error => error,
    })
}

fn wanted(arguments: &BenchArguments, bench: &Bench<'_>) -> Vec<Wanted> {
    let list = |given: &Option<TokenCounts>, default: &[usize]| match (given, &arguments.context_plot) {
        (Some(given), _) => given.0.clone(),
        (None, Some(_)) => Vec::new(),
        (None, None) => default.to_vec(),
    };
    let prefill = list(&arguments.prefill, &[128, 512, 2048, 8192]);
    let mut decode = list(&arguments.decode, &[0, 2048, 16_384, 131_072]);
    if arguments.context_plot.is_some() {
        decode.extend(context::contexts(bench.context, bench.steps_max()));
        decode.sort_unstable();
        decode.dedup();
    }
    let prefill = prefill.into_iter().filter(|tokens| *tokens > 0).map(|tokens| Wanted {
        phase: Phase::Prefill,
        tokens,
        batch: 1,
    });
    let decode = arguments.batch.iter().flat_map(|batch| {
        decode.iter().map(|tokens| Wanted {
            phase: Phase::Decode,
            tokens: *tokens,
            batch: usize::from(*batch),
        })
    });
    prefill.chain(decode).collect()
}

fn show(arguments: &BenchArguments, results: &Results, old: Option<&Results>) -> Result<(), Error> {
    if let Some(Some(path)) = &arguments.profile {
        write(path, &profile::chart(results))?;
    }
    if let Some(path) = &arguments.context_plot {
        write(path, &svg::render(&context::plot(results)))?;
    }
    let json = serde_json::to_string_pretty(results).expect("plain values");
    match &arguments.json {
        Some(path) if path.as_os_str() == "-" => return super::print(&json),
        Some(path) => write(path, &(json + "\n"))?,
        None => {}
    }
    super::print(&text::report(results))?;
    if arguments.profile.is_some() {
        super::print(&profile::tables(results))?;
    }
    match old {
        Some(old) => super::print(&compare::report(old, results)),
        None => Ok(()),
    }
}

fn write(path: &std::path::Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })
}
