//! `cachalot eval`: how many known questions a model answers exactly.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use cachalot_engine::{GenerationOptions, SamplingOptions};
use clap::Args;
use serde::Deserialize;
use serde_json::json;

use crate::{
    built_in, compute::ComputeOptions, error::Error, interrupt::Cooperation, loading, location::Location,
    model_choice::ModelChoice, numbers, progress::LateBar, texts::Texts,
};

/// Tokens of an answer beyond those of the expected one.
const SURPLUS_TOKENS: usize = 8;

/// Measure how many known questions a model answers exactly.
///
/// Each line of the file is a case: {"kind": "sums", "prompt": "...", "expected": "..."}. The prompt is the whole
/// text that goes into the model, special tokens spelled out; the most likely answer up to its end, special tokens
/// spelled out, must be the expected text letter by letter.
#[derive(Args, Debug)]
pub struct EvalArguments {
    #[command(flatten)]
    model: ModelChoice,

    #[command(flatten)]
    cases: CaseSource,

    /// Only cases of this kind; may be repeated
    #[arg(long, value_name = "KIND")]
    kind: Vec<String>,

    /// At most this many cases of each kind, the first ones
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    compute: ComputeOptions,
}

/// Where cases come from.
#[derive(Args, Debug)]
pub struct CaseSource {
    /// File of cases, one JSON object a line [default: those of the built-in model]
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
}

/// A question with its answer.
#[derive(Debug, Deserialize)]
pub struct Case {
    pub kind: String,
    pub prompt: String,
    pub expected: String,
    /// Line of the file, from 1.
    #[serde(skip)]
    line: usize,
}

/// What came of the cases of one kind.
#[derive(Default)]
struct Tally {
    kind: String,
    case_count: usize,
    exact_count: usize,
    prompt_token_count: usize,
    time: Duration,
}

pub fn run(arguments: &EvalArguments) -> Result<(), Error> {
    let (file, cases) = cases(&arguments.cases)?;
    let cases = choose(cases, arguments);
    if cases.is_empty() {
        return Err(Error::Empty {
            file,
            what: "case of that kind",
            remedy: "leave out --kind and --limit to see all kinds",
        });
    }
    let location = Location::find(arguments.model.name(), arguments.model.yes.into())?;
    let loaded = loading::load(&location, &arguments.compute)?;
    let texts = Texts::of(&loaded)?;
    let cooperation = Cooperation::begin();
    let bar = LateBar::counting("evaluating", "cases");
    let mut tallies: Vec<Tally> = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        bar.set(index as u64, cases.len() as u64);
        let position = tallies.iter().position(|tally| tally.kind == case.kind);
        let position = position.unwrap_or_else(|| {
            tallies.push(Tally {
                kind: case.kind.clone(),
                ..Tally::default()
            });
            tallies.len() - 1
        });
        ask(
            &loaded.engine,
            &texts,
            case,
            &file,
            &cooperation,
            &mut tallies[position],
        )?;
    }
    drop(bar);
    match arguments.json {
        true => super::print_json(&json!({
            "model": loaded.name,
            "mode": arguments.compute.mode.to_string(),
            "kinds": tallies.iter().map(Tally::to_json).collect::<Vec<_>>(),
            "all": total(&tallies).to_json(),
        })),
        false => super::print(&table(&tallies)),
    }
}

/// All cases, and what errors call their file.
pub fn cases(source: &CaseSource) -> Result<(String, Vec<Case>), Error> {
    let (file, text) = match &source.cases {
        None => ("the built-in cases".to_owned(), built_in::EVALUATION_CASES.to_owned()),
        Some(path) => (path.display().to_string(), super::read_text(path)?),
    };
    let cases = parse(&file, &text)?;
    Ok((file, cases))
}

fn parse(file: &str, text: &str) -> Result<Vec<Case>, Error> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            let mut case: Case = serde_json::from_str(line).map_err(|error| Error::Line {
                file: file.to_owned(),
                line: index + 1,
                reason: error.to_string(),
                remedy: "expected {\"kind\": \"...\", \"prompt\": \"...\", \"expected\": \"...\"}",
            })?;
            case.line = index + 1;
            Ok(case)
        })
        .collect()
}

/// Keeps the cases that were asked for.
fn choose(cases: Vec<Case>, arguments: &EvalArguments) -> Vec<Case> {
    let mut counts = std::collections::HashMap::<String, usize>::new();
    let mut chosen = cases;
    chosen.retain(|case| {
        let count = counts.entry(case.kind.clone()).or_default();
        *count += 1;
        (arguments.kind.is_empty() || arguments.kind.contains(&case.kind))
            && arguments.limit.is_none_or(|limit| *count <= limit)
    });
    chosen
}

/// Asks one question; stops as soon as the answer is wrong.
fn ask(
    engine: &cachalot_engine::Engine,
    texts: &Texts,
    case: &Case,
    file: &str,
    cooperation: &Cooperation,
    tally: &mut Tally,
) -> Result<(), Error> {
    let started = Instant::now();
    let encode = |text: &str| {
        let ids = texts.tokenizer().encode_prompt(text);
        ids.map_err(|error| Error::Prompt(error.into()))
    };
    let prompt = encode(&case.prompt)?;
    let options = GenerationOptions {
        sampling: SamplingOptions::greedy(),
        token_count_max: Some(encode(&case.expected)?.len() + SURPLUS_TOKENS),
        stop_tokens: texts.stop_tokens.clone(),
    };
    let interrupted = || Error::interrupted();
    let mut session = engine.new_session()?;
    let mut generation = session
        .generate(&prompt, options, cooperation.flag(), &mut |_| {})
        .map_err(|error| match error {
            cachalot_engine::Error::Cancelled => interrupted(),
            error => Error::Line {
                file: file.to_owned(),
                line: case.line,
                reason: error.to_string(),
                remedy: "remove the case or give more --context",
            },
        })?;
    let mut ids = Vec::new();
    let mut text = String::new();
    while case.expected.starts_with(text.trim_end_matches('\u{fffd}')) {
        if cooperation.is_raised() {
            return Err(interrupted());
        }
        let Some(token) = generation.next_token()? else { break };
        ids.push(token);
        text = texts.tokenizer().decode(&ids);
    }
    let is_ended = generation.finish_reason() == Some(cachalot_engine::FinishReason::Stop);
    tally.case_count += 1;
    tally.exact_count += usize::from(is_ended && text == case.expected);
    tally.prompt_token_count += prompt.len();
    tally.time += started.elapsed();
    Ok(())
}

impl Tally {
    fn exact_share(&self) -> f64 {
        self.exact_count as f64 / self.case_count.max(1) as f64
    }

    fn mean_prompt_tokens(&self) -> f64 {
        self.prompt_token_count as f64 / self.case_count.max(1) as f64
    }

    fn to_json(&self) -> serde_json::Value {
        json!({
            "kind": self.kind,
            "cases": self.case_count,
            "exact": self.exact_count,
            "exact_share": self.exact_share(),
            "mean_prompt_tokens": self.mean_prompt_tokens(),
            "seconds": self.time.as_secs_f64(),
        })
    }
}

fn total(tallies: &[Tally]) -> Tally {
    let mut total = Tally {
        kind: "all".to_owned(),
        ..Tally::default()
    };
    for tally in tallies {
        total.case_count += tally.case_count;
        total.exact_count += tally.exact_count;
        total.prompt_token_count += tally.prompt_token_count;
        total.time += tally.time;
    }
    total
}

fn table(tallies: &[Tally]) -> String {
    let total = total(tallies);
    let width = tallies
        .iter()
        .map(|tally| tally.kind.chars().count())
        .max()
        .unwrap_or(0)
        .max(4);
    let mut lines = vec![format!(
        "{:width$} {:>6} {:>8} {:>14} {:>12}",
        "kind", "cases", "exact", "prompt tokens", "time"
    )];
    for tally in tallies.iter().chain([&total]) {
        lines.push(format!(
            "{:width$} {:>6} {:>7.1}% {:>14.0} {:>12}",
            tally.kind,
            tally.case_count,
            100.0 * tally.exact_share(),
            tally.mean_prompt_tokens(),
            numbers::seconds(tally.time.as_secs_f64())
        ));
    }
    lines.join("\n")
}
