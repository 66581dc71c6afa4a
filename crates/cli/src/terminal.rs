//! What a terminal is shown that a file is not.

use std::io::{IsTerminal, stderr, stdin, stdout};

/// Starts dimmed text.
pub const DIM: &str = "\x1b[2m";
/// Ends dimmed or coloured text.
pub const RESET: &str = "\x1b[0m";

const RED: &str = "\x1b[1;31m";

/// Whether standard output may have colours: on a terminal, unless `NO_COLOR` or a dumb terminal speaks against it.
pub fn output_has_colours() -> bool {
    stdout().is_terminal() && colours_wanted()
}

/// The same for standard error.
pub fn error_has_colours() -> bool {
    stderr().is_terminal() && colours_wanted()
}

/// Whether questions can be asked.
pub fn can_ask() -> bool {
    stdin().is_terminal() && stderr().is_terminal()
}

/// What error messages begin with.
pub fn error_label() -> String {
    match error_has_colours() {
        true => format!("{RED}error:{RESET}"),
        false => "error:".to_owned(),
    }
}

/// `text` without control characters but line ends and tabs: a model must not steer the terminal.
pub fn printable(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control() || matches!(character, '\n' | '\t'))
        .collect()
}

fn colours_wanted() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\r\n\tc\u{9b}1md\u{7}é"), "a[2Jb\n\tc1mdé");
    }
}
