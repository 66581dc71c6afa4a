//! `cachalot run`: one prompt, one answer.

use std::io::{IsTerminal, Read, stdin};

use cachalot_chat::{Prompt, message};
use cachalot_chip::Support;
use cachalot_engine::SamplingOptions;
use clap::Args;
use serde_json::json;

use crate::{
    answering::{self, Turn},
    compute::ComputeOptions,
    error::Error,
    loading::{self, Loaded},
    location::Location,
    memory, numbers,
    printer::Printer,
    sampling::SamplingArguments,
    texts::{Texts, ThinkingArguments},
};

/// Longest text that is read from standard input: some twenty times the longest context.
const INPUT_BYTES_MAX: u64 = 64 << 20;

/// Answer one prompt.
///
/// The answer goes to standard output as it is written. On a terminal the model's reasoning is shown dimmed before
/// it; elsewhere only the answer is written (the reasoning is part of --json).
#[derive(Args, Debug)]
pub struct RunArguments {
    /// The prompt; `-`, or nothing when text is piped in, reads it from standard input
    #[arg(value_name = "PROMPT")]
    prompt: Vec<String>,

    /// Folder of a model, or its name on the hub, such as deepseek-ai/DeepSeek-V4-Flash [default: the built-in model]
    #[arg(short, long)]
    model: Option<String>,

    /// Download the model without asking if it is not on this machine
    #[arg(short, long)]
    yes: bool,

    #[command(flatten)]
    thinking: ThinkingArguments,

    /// Instructions to the model
    #[arg(short, long, value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,

    /// Go on with the prompt as plain text instead of answering it
    #[arg(long, conflicts_with_all = ["think", "no_think", "effort"])]
    raw: bool,

    /// Tokens of the answer at most, reasoning included [default: what the context leaves]
    #[arg(short = 'n', long, value_name = "COUNT")]
    max_tokens: Option<usize>,

    /// Print one JSON object when the answer is complete
    #[arg(long)]
    json: bool,

    /// Tell on standard error what runs where, and how fast
    #[arg(short, long)]
    verbose: bool,

    #[command(flatten)]
    sampling: SamplingArguments,

    #[command(flatten)]
    compute: ComputeOptions,
}

pub fn run(arguments: &RunArguments) -> Result<(), Error> {
    let text = prompt_text(&arguments.prompt)?;
    let location = Location::find(arguments.model.as_deref(), arguments.yes.into())?;
    let loaded = loading::load(&location, &arguments.compute)?;
    let texts = Texts::of(&loaded)?;
    let sampling = arguments.sampling.over(&texts.sampling)?;
    if arguments.verbose {
        tell_setup(&loaded, &sampling);
    }
    let prompt = build_prompt(arguments, &texts, text)?;
    let mut session = loaded.engine.new_session()?;
    let mut printer = (!arguments.json).then(Printer::to_output);
    let turn = answering::answer(
        &mut session,
        &texts,
        &prompt,
        sampling.clone(),
        arguments.max_tokens,
        |event| printer.as_mut().map_or(Ok(()), |printer| printer.show(event)),
    )?;
    if arguments.json {
        super::print_json(&as_json(&turn, &loaded, &sampling))?;
    }
    if arguments.verbose {
        tell_turn(&turn);
        if let Some(traffic) = loaded.engine.model().chip().expert_traffic() {
            eprintln!("experts    {}", memory::sentence(&traffic, computed_token_count(&turn)));
        }
    }
    if !arguments.json && turn.finish_reason() == "length" {
        // A cut answer looks like a wrong one, and one that was cut while thinking like none at all.
        eprintln!(
            "notice: stopped after {} tokens, at the limit of --max-tokens or --context",
            turn.token_count
        );
    }
    match turn.is_cancelled() {
        true => Err(Error::interrupted()),
        false => Ok(()),
    }
}

fn prompt_text(words: &[String]) -> Result<String, Error> {
    let text = match words {
        [] if stdin().is_terminal() => return Err(Error::PromptMissing),
        [] => read_input()?,
        [word] if word == "-" => read_input()?,
        words => words.join(" "),
    };
    match text.trim().is_empty() {
        true => Err(Error::PromptMissing),
        false => Ok(text),
    }
}

fn read_input() -> Result<String, Error> {
    let what = || "standard input".to_owned();
    let mut bytes = Vec::new();
    let limited = stdin().lock().take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes);
    limited.map_err(|source| Error::Read { what: what(), source })?;
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        return Err(Error::TooLarge {
            what: what(),
            limit_bytes: INPUT_BYTES_MAX,
        });
    }
    super::utf8(bytes, &what())
}

fn build_prompt(arguments: &RunArguments, texts: &Texts, text: String) -> Result<Prompt, Error> {
    if arguments.raw {
        return texts
            .encoder
            .completion(&text)
            .map_err(|error| Error::Prompt(error.into()));
    }
    let system = arguments.system.as_ref().map(message::system);
    // The line end that a shell puts behind piped text is not meant for the model.
    let user = message::user(text.strip_suffix('\n').unwrap_or(&text));
    let messages: Vec<_> = system.into_iter().chain([user]).collect();
    texts.prompt(&messages, arguments.thinking.choice())
}

fn as_json(turn: &Turn, loaded: &Loaded, sampling: &SamplingOptions) -> serde_json::Value {
    let mut value = turn.to_json();
    value["model"] = json!(loaded.name);
    value["seed"] = json!(sampling.seed);
    if let Some(traffic) = loaded.engine.model().chip().expert_traffic() {
        value["experts"] = memory::as_json(&traffic, computed_token_count(turn));
    }
    value["timings"] = json!({
        "load_seconds": loaded.load_time.as_secs_f64(),
        "first_token_seconds": turn.prompt_time.as_secs_f64(),
        "answer_seconds": turn.answer_time.as_secs_f64(),
        "prompt_tokens_per_second": turn.prompt_tokens_per_second(),
        "tokens_per_second": turn.tokens_per_second(),
    });
    value
}

/// Tokens that went through the model: the last one of an answer is not fed.
fn computed_token_count(turn: &Turn) -> usize {
    turn.prompt_token_count - turn.reused_token_count + turn.token_count.saturating_sub(1)
}

fn tell_setup(loaded: &Loaded, sampling: &SamplingOptions) {
    let engine = &loaded.engine;
    let chip = engine.model().chip().description();
    eprintln!(
        "model      {}, {} of weights, loaded in {}",
        loaded.name,
        numbers::bytes(loaded.checkpoint.byte_count()),
        numbers::seconds(loaded.load_time.as_secs_f64())
    );
    if let (Some(low_bit), Some(width)) = (loaded.low_bit, loaded.checkpoint.config().low_bit()) {
        eprintln!(
            "dense      {} matrices as {width}, {} of memory instead of {} mapped; {} kept as stored",
            low_bit.converted,
            numbers::bytes(low_bit.bytes_after),
            numbers::bytes(low_bit.bytes_before),
            low_bit.kept
        );
    }
    eprintln!("chip       {} ({}): {}", chip.name, chip.evidence, chip.details);
    eprintln!(
        "mode       {}, context of {} tokens",
        engine.model().options().mode,
        numbers::grouped(engine.context() as u64)
    );
    if let Some(traffic) = engine.model().chip().expert_traffic() {
        eprintln!(
            "experts    {} of {} fit into memory, {} each",
            numbers::grouped(traffic.slot_count as u64),
            numbers::grouped(traffic.expert_count as u64),
            numbers::bytes(traffic.slot_bytes as u64)
        );
    }
    for support in [Support::Native, Support::Composed, Support::Reference, Support::Missing] {
        let operators: Vec<String> = engine
            .model()
            .support()
            .into_iter()
            .filter(|(_, found)| *found == support)
            .map(|(kind, _)| kind.to_string())
            .collect();
        if !operators.is_empty() {
            eprintln!("{:10} {}", support.to_string(), operators.join(", "));
        }
    }
    eprintln!(
        "sampling   temperature {}, top-p {}, top-k {}, min-p {}, seed {}",
        sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p, sampling.seed
    );
}

fn tell_turn(turn: &Turn) {
    eprintln!(
        "prompt     {} tokens, first token after {} ({:.0} tokens/s)",
        turn.prompt_token_count,
        numbers::seconds(turn.prompt_time.as_secs_f64()),
        turn.prompt_tokens_per_second()
    );
    eprintln!(
        "answer     {} tokens in {} ({:.1} tokens/s), ended by {}",
        turn.token_count,
        numbers::seconds(turn.answer_time.as_secs_f64()),
        turn.tokens_per_second(),
        turn.finish_reason()
    );
    for irregularity in &turn.answer.irregularities {
        eprintln!("irregular  {irregularity:?}");
    }
}
