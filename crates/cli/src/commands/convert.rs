//! `cachalot convert`: a model with a low-bit dense part, stored.

use std::{path::PathBuf, time::Instant};

use cachalot_numerics::IntegerWidth;
use clap::Args;
use serde_json::json;

use crate::{compute, error::Error, interrupt::Cooperation, location::Location, numbers, progress::LateBar};

/// Store a model with its dense part in fewer bits.
///
/// The new folder is a model like any other: what `--dense` makes of the released bits while loading is in its files.
/// Shards that do not change are linked where the disk allows it, tokenizer and licence are copied. Interrupted, the
/// same command goes on where it stopped.
#[derive(Args, Debug)]
pub struct ConvertArguments {
    /// Folder of a model, its name on the hub, or `built-in`
    #[arg(value_name = "MODEL")]
    model: String,

    /// New or empty folder
    #[arg(value_name = "OUT")]
    out: PathBuf,

    /// Integers for attention, shared experts, head, compressors and indexers, where that makes them smaller
    #[arg(long, value_name = "FORMAT", value_parser = compute::dense_parser())]
    dense: IntegerWidth,

    /// Download the model without asking if it is not on this machine
    #[arg(short, long)]
    yes: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &ConvertArguments) -> Result<(), Error> {
    let location = Location::find(Some(&arguments.model), arguments.yes.into())?;
    let checkpoint = location.open()?;
    let bytes_before = checkpoint.byte_count();
    let cooperation = Cooperation::begin();
    let bar = LateBar::of_bytes("converting");
    let started = Instant::now();
    let converted = checkpoint.convert(arguments.dense, &arguments.out, cooperation.flag(), |progress| {
        bar.set(progress.bytes_done, progress.bytes_total);
    });
    let converted = converted.map_err(|error| match error {
        cachalot_checkpoint::Error::Stopped { .. } => Error::Interrupted {
            remedy: "; the same command goes on where this one stopped".to_owned(),
        },
        error => error.into(),
    })?;
    let seconds = started.elapsed().as_secs_f64();
    drop(bar);
    let low_bit = converted.low_bit;
    if arguments.json {
        return super::print_json(&json!({
            "folder": arguments.out,
            "format": arguments.dense.to_string(),
            "matrices": low_bit.converted,
            "kept": low_bit.kept,
            "dense_bytes_before": low_bit.bytes_before,
            "dense_bytes": low_bit.bytes_after,
            "bytes_before": bytes_before,
            "bytes": converted.bytes,
            "files": converted.shards,
            "linked_files": converted.linked,
            "seconds": seconds,
        }));
    }
    eprintln!(
        "{} matrices from {} to {} of {}, {} kept; {}, {} of {} files linked, instead of {}; {}",
        low_bit.converted,
        numbers::bytes(low_bit.bytes_before),
        numbers::bytes(low_bit.bytes_after),
        arguments.dense,
        low_bit.kept,
        numbers::bytes(converted.bytes),
        converted.linked,
        converted.shards,
        numbers::bytes(bytes_before),
        numbers::seconds(seconds),
    );
    super::print(&arguments.out.display().to_string())
}
