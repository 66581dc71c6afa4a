//! `cachalot chat`: a conversation.

mod directive;
mod input;
mod lines;
mod talk;

use std::io::{IsTerminal, stderr, stdin};

use clap::Args;

use crate::{
    compute::ComputeOptions,
    error::Error,
    loading::{self, Loaded},
    location::Location,
    model_choice::ModelChoice,
    sampling::SamplingArguments,
    terminal::{self, DIM, RESET},
    texts::{Texts, ThinkingArguments},
};
use directive::{Directive, HELP};
use input::{Collector, Input};
use lines::{Line, Lines};
use talk::Talk;

/// Talk with a model.
///
/// A line is a message; a backslash at its end or an open ``` block goes on in the next line. /help lists commands.
/// Ctrl-C stops an answer, Ctrl-D leaves. Without a terminal, each line of standard input is a message.
#[derive(Args, Debug)]
pub struct ChatArguments {
    #[command(flatten)]
    model: ModelChoice,

    #[command(flatten)]
    thinking: ThinkingArguments,

    /// Instructions to the model
    #[arg(short, long, value_name = "TEXT")]
    system: Option<String>,

    /// Tokens of each answer at most, reasoning included [default: what the context leaves]
    #[arg(short = 'n', long, value_name = "COUNT")]
    max_tokens: Option<usize>,

    #[command(flatten)]
    sampling: SamplingArguments,

    #[command(flatten)]
    compute: ComputeOptions,
}

/// Whether the conversation goes on.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    Leave,
}

pub fn run(arguments: &ChatArguments) -> Result<(), Error> {
    let location = Location::find(arguments.model.name(), arguments.model.yes.into())?;
    let loaded = loading::load(&location, &arguments.compute)?;
    let texts = Texts::of(&loaded)?;
    let sampling = arguments.sampling.over(&texts.sampling)?;
    let mut talk = Talk {
        session: loaded.engine.new_session()?,
        context: loaded.engine.context(),
        texts: &texts,
        sampling,
        token_count_max: arguments.max_tokens,
        thinking: arguments.thinking.choice(),
        system: arguments.system.clone(),
        exchanges: Vec::new(),
        question: None,
        cost: None,
    };
    let mut lines = match stdin().is_terminal() {
        true => Lines::editor()?,
        false => Lines::pipe(),
    };
    if lines.is_editor() {
        greet(&loaded);
    }
    let mut collector = Collector::default();
    loop {
        let prompt = if collector.is_empty() { "> " } else { "… " };
        let input = match lines.next(prompt)? {
            Line::Text(text) => collector.push(&text),
            Line::Interrupted if collector.interrupt() => return Ok(()),
            Line::Interrupted => {
                note("Ctrl-C again or Ctrl-D leaves");
                continue;
            }
            Line::End => collector.end(),
        };
        if act(&mut talk, input)? == Next::Leave {
            return Ok(());
        }
    }
}

fn act(talk: &mut Talk<'_>, input: Input) -> Result<Next, Error> {
    let result = match input {
        Input::Unfinished => Ok(()),
        Input::Message(text) => talk.ask(text),
        Input::Last(None) => return Ok(Next::Leave),
        Input::Last(Some(text)) => return survive(talk.ask(text)).map(|()| Next::Leave),
        Input::Wrong(reason) => {
            note(&reason);
            Ok(())
        }
        Input::Directive(Directive::Exit) => return Ok(Next::Leave),
        Input::Directive(directive) => follow(talk, directive),
    };
    survive(result).map(|()| Next::GoOn)
}

fn follow(talk: &mut Talk<'_>, directive: Directive) -> Result<(), Error> {
    match directive {
        Directive::Help => note(HELP),
        Directive::Clear => {
            talk.exchanges.clear();
            note("the conversation starts anew");
        }
        Directive::System(text) => {
            note(match text {
                Some(_) => "the model has new instructions",
                None => "the model has no instructions any more",
            });
            talk.system = text;
        }
        Directive::Think(is_on) => {
            talk.set_thinking(is_on);
            note(if is_on {
                "the model thinks before it answers"
            } else {
                "the model answers at once"
            });
        }
        Directive::Regenerate => return talk.ask_again(),
        Directive::Stats => note(&talk.stats()),
        Directive::Save(path) => {
            talk.save(&path)?;
            note(&format!("saved to {}", path.display()));
        }
        Directive::Exit => {}
    }
    Ok(())
}

/// What goes wrong with one message does not end the conversation, unless nobody hears it.
fn survive(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error @ Error::Output(_)) => Err(error),
        Err(Error::Interrupted { .. }) => {
            note("stopped; /regenerate asks again");
            Ok(())
        }
        Err(error) => {
            eprintln!("{} {}", terminal::error_label(), error.sentence());
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

fn greet(loaded: &Loaded) {
    let chip = loaded.engine.model().chip().description();
    note(&format!(
        "{} on {} ({}). /help lists commands, Ctrl-D leaves.",
        loaded.name, chip.name, chip.evidence
    ));
}

/// Something that the model did not say.
fn note(text: &str) {
    match stderr().is_terminal() && terminal::error_has_colours() {
        true => eprintln!("{DIM}{text}{RESET}"),
        false => eprintln!("{text}"),
    }
}
