//! `cachalot score`: how likely a model finds given texts.

mod input;
mod logits_file;
mod reference;

use std::path::PathBuf;

use cachalot_engine::{
    compare::Distance,
    score::{self, Score},
};
use clap::{ArgGroup, Args};
use serde_json::{Value, json};

use crate::{
    compute::ComputeOptions, error::Error, interrupt::Cooperation, loading, location::Location,
    model_choice::ModelChoice, progress::LateBar,
};
use input::Text;
use logits_file::LogitsWriter;
use reference::Reference;

/// Tell how likely a model finds given texts, and compare with reference logits.
///
/// Prints JSON: for each text the natural logarithm of each token's probability given those before it (none for the
/// first token), and the perplexity.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("input").required(true))]
pub struct ScoreArguments {
    #[command(flatten)]
    model: ModelChoice,

    /// File with one JSON array of token ids a line; needs no tokenizer
    #[arg(long, value_name = "FILE", group = "input")]
    tokens: Option<PathBuf>,

    /// Text file, as one text after a begin-of-sentence token
    #[arg(long, value_name = "FILE", group = "input")]
    text: Option<PathBuf>,

    /// Every line of the text file that is not empty is a text of its own
    #[arg(long, requires = "text")]
    lines: bool,

    /// Write the logits: tensor `logits_N`, F32 [tokens, vocabulary], for text N from 0
    #[arg(long, value_name = "OUT.safetensors")]
    logits: Option<PathBuf>,

    /// Compare with the logits of such a file: divergence KL(file || this model) in nats and more
    #[arg(long, value_name = "REF.safetensors")]
    against: Option<PathBuf>,

    #[command(flatten)]
    compute: ComputeOptions,
}

pub fn run(arguments: &ScoreArguments) -> Result<(), Error> {
    let location = Location::find(arguments.model.name(), arguments.model.yes.into())?;
    let loaded = loading::load(&location, &arguments.compute)?;
    let engine = &loaded.engine;
    let vocabulary = engine.model().config().vocab_size();
    let texts = match (&arguments.tokens, &arguments.text) {
        (Some(file), _) => input::token_lines(file, vocabulary)?,
        (None, Some(file)) => input::texts(file, arguments.lines, &loaded)?,
        (None, None) => Vec::new(),
    };
    if let Some(text) = texts.iter().find(|text| text.tokens.len() > engine.context()) {
        return Err(text.too_long(engine.context()));
    }
    let shapes: Vec<[usize; 2]> = texts.iter().map(|text| [text.tokens.len(), vocabulary]).collect();
    let reference = match &arguments.against {
        None => None,
        Some(file) => Some(Reference::open(file, &shapes)?),
    };
    let mut writer = match &arguments.logits {
        None => None,
        Some(file) => Some(LogitsWriter::create(file, &shapes)?),
    };

    let cooperation = Cooperation::begin();
    let bar = LateBar::counting("scoring", "tokens");
    let token_count: usize = texts.iter().map(|text| text.tokens.len()).sum();
    let mut done = 0;
    let mut results = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let mut distance = Distance::default();
        let score = score::score(engine, &text.tokens, cooperation.flag(), |position, logits| {
            if let Some(reference) = &reference {
                distance.add(logits, &reference.row(index, position)?);
            }
            if let Some(writer) = &mut writer {
                writer.write(logits)?;
            }
            done += 1;
            bar.set(done, token_count as u64);
            Ok::<(), Error>(())
        });
        let score = score.map_err(|error| match error {
            Error::Engine(cachalot_engine::Error::Cancelled) => Error::interrupted(),
            error => error,
        })?;
        results.push((text, score, reference.as_ref().map(|_| distance)));
    }
    drop(bar);
    if let Some(writer) = writer {
        writer.finish()?;
    }
    let mut value = as_json(&results);
    value["model"] = json!(loaded.name);
    value["mode"] = json!(arguments.compute.mode.to_string());
    super::print_json(&value)
}

fn as_json(results: &[(&Text, Score, Option<Distance>)]) -> Value {
    let mut all = Distance::default();
    let mut log_probabilities = Vec::new();
    let mut lines = Vec::new();
    for (text, score, distance) in results {
        log_probabilities.extend(&score.log_probabilities);
        let mut value = json!({
            "line": text.line,
            "tokens": text.tokens.len(),
            "log_probabilities": score.log_probabilities,
            "perplexity": score.perplexity(),
        });
        if let Some(distance) = distance {
            all.merge(distance);
            value["against"] = distance_json(distance);
        }
        lines.push(value);
    }
    let perplexity = Score { log_probabilities }.perplexity();
    let mut value = json!({ "lines": lines, "perplexity": perplexity });
    if results.iter().any(|(_, _, distance)| distance.is_some()) {
        value["against"] = distance_json(&all);
    }
    value
}

fn distance_json(distance: &Distance) -> Value {
    json!({
        "positions": distance.position_count,
        "kl_mean": distance.kl_mean(),
        "kl_max": distance.kl_max,
        "top1_agreement": distance.top1_agreement(),
        "relative_error_max": distance.relative_error_max,
    })
}
