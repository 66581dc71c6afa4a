//! `cachalot synth`: a random model of true shapes.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use cachalot_chat::Tokenizer;
use cachalot_checkpoint::{
    Architecture, ModelConfig, available_bytes, published,
    synth::{self, Stages},
};
use clap::Args;
use serde_json::{Value, json};

use crate::{built_in, error::Error, interrupt::Unfinished, location, numbers, progress::LateBar};

/// Files that a model without training can share with the one that it imitates.
const TEXT_FILES: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "generation_config.json"];

/// Write a random model of true shapes, for trying machines without a download.
///
/// Names, types, shapes and shards are those of the release; the text that comes out is noise. The same seed gives
/// the same bytes everywhere. A folder given to --like also lends its tokenizer; otherwise the built-in model's, of
/// 2,048 tokens, is put beside the weights so that `run` works: other tokens then print as ⟨id⟩.
#[derive(Args, Debug)]
pub struct SynthArguments {
    /// Folder of a model, or the name of a published one, such as deepseek-ai/DeepSeek-V4-Flash
    #[arg(long, value_name = "MODEL")]
    like: String,

    /// Main layers, of true size
    #[arg(long, value_name = "COUNT")]
    layers: usize,

    /// Keep the MTP layer or the DSpark stages
    #[arg(long)]
    keep_stages: bool,

    /// Tokens of the vocabulary [default: as many as the model has]
    #[arg(long, value_name = "COUNT")]
    vocab: Option<usize>,

    /// Seed of the weights
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,

    /// New or empty folder
    #[arg(value_name = "OUT")]
    out: PathBuf,
}

pub fn run(arguments: &SynthArguments) -> Result<(), Error> {
    let (text, folder) = configuration(&arguments.like)?;
    let stages = if arguments.keep_stages {
        Stages::Keep
    } else {
        Stages::Drop
    };
    let text = match arguments.vocab {
        None => text,
        Some(count) => with_vocabulary(&text, count)?,
    };
    let json = synth::with_layers(&text, arguments.layers, stages)?;
    refuse_content(&arguments.out)?;
    let config = ModelConfig::from_json(&json, Path::new("config.json"))?;
    announce(&config, &arguments.out);

    let bar = LateBar::of_bytes("writing");
    let unfinished = Unfinished::folder(&partial_folder(&arguments.out));
    let started = Instant::now();
    let written = synth::write(&json, arguments.seed, &arguments.out, |progress| {
        bar.set(progress.bytes_done, progress.bytes_total);
    })?;
    let seconds = started.elapsed().as_secs_f64();
    drop((bar, unfinished));
    let lends_texts = folder.filter(|_| arguments.vocab.is_none());
    let lent = lends_texts.map_or(Ok(false), |folder| copy_texts(&folder, &arguments.out))?;
    let tokenizer = match lent {
        true => "the tokenizer of the model given",
        false if write_built_in_tokenizer(&arguments.out, config.vocab_size())? => "the built-in model's tokenizer",
        false => "no tokenizer; `cachalot score --tokens` works without",
    };
    eprintln!(
        "wrote {} in {} files in {}, {:.2} GB/s; {tokenizer}",
        numbers::bytes(written.bytes),
        written.shards,
        numbers::seconds(seconds),
        written.bytes as f64 / 1e9 / seconds,
    );
    super::print(&arguments.out.display().to_string())
}

/// A config.json and the folder that it came from, if any.
fn configuration(like: &str) -> Result<(String, Option<PathBuf>), Error> {
    let folder = Path::new(like);
    if folder.is_dir() {
        return Ok((super::read_text(&folder.join("config.json"))?, Some(folder.to_owned())));
    }
    match published::config(like) {
        Some(text) => Ok((text.to_owned(), None)),
        None => Err(location::not_published(like)),
    }
}

fn with_vocabulary(text: &str, count: usize) -> Result<String, Error> {
    let origin = Path::new("config.json");
    // Checked first, so that whatever is wrong is told in the words of the reader.
    ModelConfig::from_json(text, origin)?;
    let mut value: Value = serde_json::from_str(text).map_err(|source| cachalot_checkpoint::Error::Json {
        origin: origin.to_owned(),
        source,
    })?;
    // V4.1 has the text model's values in an object of their own.
    let nested = value.get("text_config").is_some();
    let fields = if nested { &mut value["text_config"] } else { &mut value };
    fields["vocab_size"] = json!(count);
    let mut lower = |key: &str, most: usize| {
        if fields[key].as_u64().is_some_and(|value| value > most as u64) {
            fields[key] = json!(most);
        }
    };
    lower("engram_compressed_vocab_size", count);
    lower("dspark_noise_token_id", count.saturating_sub(1));
    if nested && let Some(outer) = value.as_object_mut() {
        // Random weights are for text.
        outer.remove("image_token_id");
        outer.remove("vision_config");
    }
    Ok(value.to_string())
}

/// Told before sizes are announced that will not be written.
fn refuse_content(out: &Path) -> Result<(), Error> {
    let is_filled = std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    match is_filled {
        true => Err(cachalot_checkpoint::Error::FolderNotEmpty { path: out.to_owned() }.into()),
        false => Ok(()),
    }
}

/// Size and free space, before anything is written.
fn announce(config: &dyn Architecture, out: &Path) {
    let absolute = std::path::absolute(out).unwrap_or_else(|_| out.to_owned());
    let free = absolute
        .ancestors()
        .find(|folder| folder.is_dir())
        .and_then(available_bytes);
    eprintln!(
        "{} layer{}, {} in {} files; {}",
        config.layer_count(),
        if config.layer_count() == 1 { "" } else { "s" },
        numbers::bytes(synth::size_bytes(config)),
        synth::shard_count(config),
        free.map_or_else(
            || "free space unknown".to_owned(),
            |free| format!("{} free", numbers::bytes(free))
        )
    );
}

/// Where [`synth::write`] says that it writes until everything is there.
fn partial_folder(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(format!(".partial-{}", std::process::id()));
    name.into()
}

/// Puts the built-in model's tokenizer beside the weights, if the vocabulary has room for it.
fn write_built_in_tokenizer(out: &Path, vocab_size: usize) -> Result<bool, Error> {
    let tokenizer = built_in::tokenizer();
    if Tokenizer::from_bytes(tokenizer, vocab_size).is_err() {
        return Ok(false);
    }
    let path = out.join("tokenizer.json");
    match std::fs::write(&path, tokenizer) {
        Ok(()) => Ok(true),
        Err(source) => Err(Error::Write { path, source }),
    }
}

/// Copies what the imitated model has of its texts; tells whether there was a tokenizer.
fn copy_texts(from: &Path, to: &Path) -> Result<bool, Error> {
    for name in TEXT_FILES {
        let source = from.join(name);
        if source.is_file() {
            std::fs::copy(&source, to.join(name)).map_err(|error| Error::Write {
                path: to.join(name),
                source: error,
            })?;
        }
    }
    Ok(to.join("tokenizer.json").is_file())
}
