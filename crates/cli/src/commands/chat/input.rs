//! From lines to messages and directives.

use super::directive::Directive;

const FENCE: &str = "```";

/// What the lines so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// Nothing yet.
    Unfinished,
    Message(String),
    Directive(Directive),
    /// A line that begins as a directive but is none, with the reason.
    Wrong(String),
    /// There are no more lines; what was begun counts as a message.
    Last(Option<String>),
}

/// Collects the lines of a message.
#[derive(Debug, Default)]
pub struct Collector {
    text: String,
    is_begun: bool,
    in_block: bool,
    /// Whether Ctrl-C was pressed at an empty prompt just now.
    is_interrupted: bool,
}

impl Collector {
    /// Whether the next line begins something.
    pub fn is_empty(&self) -> bool {
        !self.is_begun
    }

    /// Takes the next line, without its end; pasted text comes as one line with line ends in it.
    pub fn push(&mut self, line: &str) -> Input {
        self.is_interrupted = false;
        if !self.is_begun && line.starts_with('/') && !line.contains('\n') {
            return Directive::parse(line).map_or_else(Input::Wrong, Input::Directive);
        }
        for line in line.lines().filter(|line| line.trim_start().starts_with(FENCE)) {
            // A block may be closed in the line that opens it.
            self.in_block ^= line.matches(FENCE).count() % 2 == 1;
        }
        let continued = if self.in_block { None } else { line.strip_suffix('\\') };
        if std::mem::replace(&mut self.is_begun, true) {
            self.text.push('\n');
        }
        self.text.push_str(continued.unwrap_or(line));
        if self.in_block || continued.is_some() {
            return Input::Unfinished;
        }
        self.take().map_or(Input::Unfinished, Input::Message)
    }

    /// Ctrl-C: drops what was begun. True if the user wants to leave: twice with nothing begun.
    pub fn interrupt(&mut self) -> bool {
        let (was_empty, is_second) = (!self.is_begun, self.is_interrupted);
        self.take();
        self.is_interrupted = was_empty;
        was_empty && is_second
    }

    /// The end of all lines.
    pub fn end(&mut self) -> Input {
        Input::Last(self.take())
    }

    fn take(&mut self) -> Option<String> {
        let text = std::mem::take(self).text;
        let text = text.trim_matches('\n').to_owned();
        (!text.trim().is_empty()).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(lines: &[&str]) -> Vec<Input> {
        let mut collector = Collector::default();
        let mut inputs: Vec<Input> = lines.iter().map(|line| collector.push(line)).collect();
        inputs.push(collector.end());
        inputs.retain(|input| !matches!(input, Input::Unfinished | Input::Last(None)));
        inputs
    }

    fn message(text: &str) -> Input {
        Input::Message(text.to_owned())
    }

    #[test]
    fn lines_become_messages() {
        let cases: [(&[&str], Vec<Input>); 11] = [
            (&["/pasted\n/text"], vec![message("/pasted\n/text")]),
            (&["a\n```\nb", "c", "```\nd"], vec![message("a\n```\nb\nc\n```\nd")]),
            (&["Hi", "", "  ", "there"], vec![message("Hi"), message("there")]),
            (&["one \\", "two\\", "three"], vec![message("one \ntwo\nthree")]),
            (
                &["```", "a\\", "/exit", "", "```"],
                vec![message("```\na\\\n/exit\n\n```")],
            ),
            (
                &["look:\\", "```rust", "x", "```"],
                vec![message("look:\n```rust\nx\n```")],
            ),
            (&["```x```", "y"], vec![message("```x```"), message("y")]),
            (&["/exit"], vec![Input::Directive(Directive::Exit)]),
            (&[" /exit"], vec![message(" /exit")]),
            (&["text\\", "/exit"], vec![message("text\n/exit")]),
            (&["begun\\"], vec![Input::Last(Some("begun".to_owned()))]),
        ];
        for (lines, expected) in cases {
            assert_eq!(inputs(lines), expected, "{lines:?}");
        }
        assert!(matches!(inputs(&["/frob"]).as_slice(), [Input::Wrong(_)]));
    }

    #[test]
    fn the_second_interrupt_in_a_row_leaves() {
        let mut collector = Collector::default();
        assert!(!collector.interrupt());
        assert_eq!(collector.push("Hi"), message("Hi"));
        assert!(!collector.interrupt());
        assert!(collector.interrupt());
        assert_eq!(collector.push("begun\\"), Input::Unfinished);
        assert!(!collector.interrupt(), "it only drops what was begun");
        assert!(collector.is_empty());
        assert!(!collector.interrupt());
        assert!(collector.interrupt());
    }
}
