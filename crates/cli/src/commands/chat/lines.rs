//! Where lines come from: an editor with history on a terminal, else standard input.

use std::{
    env,
    io::{BufRead, stdin},
    path::{Path, PathBuf},
};

use rustyline::{
    Cmd, ConditionalEventHandler, Config, Editor, Event, EventContext, EventHandler, KeyEvent, Movement, RepeatCount,
    error::ReadlineError, history::FileHistory,
};

use crate::{commands, error::Error};

const HISTORY_LINES_MAX: usize = 1000;

pub enum Line {
    Text(String),
    /// Ctrl-C with nothing in the line.
    Interrupted,
    /// Ctrl-D, or the end of the input.
    End,
}

pub enum Lines {
    Editor {
        editor: Box<Editor<(), FileHistory>>,
        history: Option<PathBuf>,
    },
    Pipe,
}

impl Lines {
    /// An editor on the terminal. A history that cannot be read or written is done without.
    pub fn editor() -> Result<Self, Error> {
        let config = Config::builder()
            .max_history_size(HISTORY_LINES_MAX)?
            .history_ignore_space(false)
            .build();
        let mut editor = Editor::<(), FileHistory>::with_config(config)?;
        editor.bind_sequence(
            KeyEvent::ctrl('c'),
            EventHandler::Conditional(Box::new(EmptyTheLineFirst)),
        );
        let history = history_file();
        if let Some(path) = &history {
            // There is none before the first conversation.
            let _ = editor.load_history(path);
        }
        Ok(Lines::Editor {
            editor: Box::new(editor),
            history,
        })
    }

    /// Standard input, line by line.
    pub fn pipe() -> Self {
        Lines::Pipe
    }

    pub fn is_editor(&self) -> bool {
        matches!(self, Lines::Editor { .. })
    }

    /// The next line, after `prompt` on a terminal.
    pub fn next(&mut self, prompt: &str) -> Result<Line, Error> {
        match self {
            Lines::Pipe => read_line(),
            Lines::Editor { editor, history } => match editor.readline(prompt) {
                Ok(text) => {
                    if editor.add_history_entry(&text)? {
                        append_history(editor, history);
                    }
                    Ok(Line::Text(text))
                }
                Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(error) => Err(error.into()),
            },
        }
    }
}

/// Ctrl-C empties the line; in an empty line it is told to the program.
struct EmptyTheLineFirst;

impl ConditionalEventHandler for EmptyTheLineFirst {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext<'_>) -> Option<Cmd> {
        match context.line().is_empty() {
            true => Some(Cmd::Interrupt),
            false => Some(Cmd::Kill(Movement::WholeBuffer)),
        }
    }
}

fn append_history(editor: &mut Editor<(), FileHistory>, history: &mut Option<PathBuf>) {
    let Some(path) = history else { return };
    if let Err(error) = editor.append_history(path) {
        super::note(&format!("the history cannot be kept in {}: {error}", path.display()));
        *history = None;
    }
}

fn read_line() -> Result<Line, Error> {
    let what = "standard input";
    let mut bytes = Vec::new();
    let count = stdin()
        .lock()
        .read_until(b'\n', &mut bytes)
        .map_err(|source| Error::Read {
            what: what.to_owned(),
            source,
        })?;
    if count == 0 {
        return Ok(Line::End);
    }
    let text = commands::utf8(bytes, what)?;
    Ok(Line::Text(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// `cachalot/chat_history` in the folder for states of programs, made if need be.
fn history_file() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| Some(env::home_dir()?.join(".local/state")))?;
    let folder = state.join("cachalot");
    std::fs::create_dir_all(&folder).ok()?;
    Some(Path::new(&folder).join("chat_history"))
}
