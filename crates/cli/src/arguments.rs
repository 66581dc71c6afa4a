//! The command line.

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands::{
    bench, bench_serve, chat, chips, convert, distance, download, eval, inspect, plan, run, score, serve, synth,
};

/// Runs DeepSeek-V4 models from their released files.
#[derive(Debug, Parser)]
#[command(name = "cachalot", version, about, propagate_version = false)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer one prompt
    Run(run::RunArguments),
    /// Talk with a model
    Chat(chat::ChatArguments),
    /// Offer a model over HTTP, in the protocols of OpenAI and Anthropic
    Serve(serve::ServeArguments),
    /// Tell a model's size and costs, from its headers or its name alone
    Inspect(inspect::InspectArguments),
    /// Get a model by name, into the cache that the Hugging Face tools share
    Download(download::DownloadArguments),
    /// Tell how likely a model finds given texts, and compare with reference logits
    Score(score::ScoreArguments),
    /// Tell how far each numeric mode and each low-bit dense part is from the reference
    Distance(distance::DistanceArguments),
    /// Measure how many known questions a model answers exactly
    Eval(eval::EvalArguments),
    /// Measure how fast a model runs here, beside the machine's ceilings
    Bench(bench::BenchArguments),
    /// Load a server with requests and measure how it answers
    BenchServe(bench_serve::BenchServeArguments),
    /// Write a random model of true shapes, for trying machines without a download
    Synth(synth::SynthArguments),
    /// Store a model with its dense part in fewer bits
    Convert(convert::ConvertArguments),
    /// List chips and what runs on them how
    Chips(chips::ChipsArguments),
    /// Tell what fits, how fast, how many chips and at what cost
    Plan(plan::PlanArguments),
}

/// Shown for `cachalot` without arguments.
pub const WELCOME: &str = "\
Cachalot runs DeepSeek-V4 models from their released files. A small one is built in, so this works at once:

  cachalot run \"Tell me a story about a fox\"
  cachalot chat

Real models by folder or by name, and what they need before anything is downloaded:

  cachalot inspect deepseek-ai/DeepSeek-V4-Flash

`cachalot --help` lists all commands.";

/// Parses the command line. Wrong usage, `--help` and `--version` end the process here.
pub fn parse() -> Arguments {
    let command = Arguments::command().long_version(version());
    Arguments::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

/// The version and one line for each chip.
fn version() -> String {
    let mut text = env!("CARGO_PKG_VERSION").to_owned();
    for (name, evidence) in chips::labels() {
        text.push_str(&format!("\nchip {name}: {evidence}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
