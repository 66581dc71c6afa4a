//! Shows an answer while it is written.

use std::io::{self, IsTerminal, Write, stdout};

use cachalot_chat::Event;

use crate::{
    error::Error,
    terminal::{self, DIM, RESET},
};

/// What becomes of the reasoning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reasoning {
    /// A file or a pipe gets the answer only.
    Hidden,
    /// A terminal shows it dimmed.
    Dimmed,
    /// A terminal without colours shows it between `<think>` and `</think>`.
    Tagged,
}

/// Writes the pieces of one answer.
pub struct Printer<W: Write> {
    out: W,
    reasoning: Reasoning,
    is_terminal: bool,
    in_reasoning: bool,
    /// Whether the cursor is at the beginning of a line.
    at_line_start: bool,
}

impl Printer<io::Stdout> {
    /// A printer to standard output.
    pub fn to_output() -> Self {
        let is_terminal = stdout().is_terminal();
        let reasoning = match is_terminal {
            false => Reasoning::Hidden,
            true if terminal::output_has_colours() => Reasoning::Dimmed,
            true => Reasoning::Tagged,
        };
        Printer::new(stdout(), reasoning, is_terminal)
    }
}

impl<W: Write> Printer<W> {
    fn new(out: W, reasoning: Reasoning, is_terminal: bool) -> Self {
        Printer {
            out,
            reasoning,
            is_terminal,
            in_reasoning: false,
            at_line_start: true,
        }
    }

    /// Shows one event.
    pub fn show(&mut self, event: &Event) -> Result<(), Error> {
        match event {
            Event::Reasoning(_) if self.reasoning == Reasoning::Hidden => return Ok(()),
            Event::Reasoning(text) => {
                if !self.in_reasoning {
                    self.in_reasoning = true;
                    match self.reasoning {
                        Reasoning::Tagged => self.write("<think>\n")?,
                        _ => self.write_raw(DIM)?,
                    }
                }
                self.write(text)?;
            }
            Event::Text(text) => {
                self.leave_reasoning()?;
                self.write(text)?;
            }
            Event::ToolCall { call, .. } => {
                self.leave_reasoning()?;
                self.start_line()?;
                self.write(&format!("[{} {}]\n", call.name, call.arguments))?;
            }
            Event::Finish(_) => {
                self.end_reasoning()?;
                self.start_line()?;
            }
            _ => return Ok(()),
        }
        self.out.flush().map_err(Error::Output)
    }

    /// Ends the reasoning and leaves an empty line after it.
    fn leave_reasoning(&mut self) -> Result<(), Error> {
        if !self.in_reasoning {
            return Ok(());
        }
        self.end_reasoning()?;
        self.start_line()?;
        self.write("\n")
    }

    fn end_reasoning(&mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.in_reasoning) {
            return Ok(());
        }
        match self.reasoning {
            Reasoning::Tagged => {
                self.start_line()?;
                self.write("</think>\n")
            }
            _ => self.write_raw(RESET),
        }
    }

    fn start_line(&mut self) -> Result<(), Error> {
        if self.at_line_start { Ok(()) } else { self.write("\n") }
    }

    fn write(&mut self, text: &str) -> Result<(), Error> {
        if text.is_empty() {
            return Ok(());
        }
        self.at_line_start = text.ends_with('\n');
        match self.is_terminal {
            true => self.write_raw(&terminal::printable(text)),
            false => self.write_raw(text),
        }
    }

    fn write_raw(&mut self, text: &str) -> Result<(), Error> {
        self.out.write_all(text.as_bytes()).map_err(Error::Output)
    }
}

#[cfg(test)]
mod tests {
    use cachalot_chat::FinishReason;

    use super::*;

    fn shown(reasoning: Reasoning, is_terminal: bool, events: &[Event]) -> String {
        let mut printer = Printer::new(Vec::new(), reasoning, is_terminal);
        for event in events {
            printer.show(event).unwrap();
        }
        String::from_utf8(printer.out).unwrap()
    }

    #[test]
    fn reasoning_is_dimmed_tagged_or_hidden() {
        let events = [
            Event::Reasoning("2+2".into()),
            Event::Reasoning("=4\x1b[2J".into()),
            Event::Text("It is 4.".into()),
            Event::Finish(FinishReason::Stop),
        ];
        let cases = [
            (Reasoning::Dimmed, true, "\x1b[2m2+2=4[2J\x1b[0m\n\nIt is 4.\n"),
            (Reasoning::Tagged, true, "<think>\n2+2=4[2J\n</think>\n\nIt is 4.\n"),
            (Reasoning::Hidden, false, "It is 4.\n"),
        ];
        for (reasoning, is_terminal, expected) in cases {
            assert_eq!(shown(reasoning, is_terminal, &events), expected);
        }
    }

    #[test]
    fn colours_end_with_an_answer_that_is_cut_in_its_reasoning() {
        let events = [Event::Reasoning("hm".into()), Event::Finish(FinishReason::Cancelled)];
        assert_eq!(shown(Reasoning::Dimmed, true, &events), "\x1b[2mhm\x1b[0m\n");
    }
}
