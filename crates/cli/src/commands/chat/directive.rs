//! Lines that begin with a slash.

use std::path::PathBuf;

pub const HELP: &str = "\
/clear           start the conversation anew
/system TEXT     give the model instructions; without TEXT take them back
/think on|off    let the model think before it answers, or not
/regenerate      ask the last question again
/stats           tokens and speed
/save FILE       write the conversation as JSON
/exit            leave (also Ctrl-D)
A backslash at the end of a line goes on in the next one, an open ``` block until it is closed.
A line that begins with a space is never a command.";

/// What the user wants of the program and not of the model.
#[derive(Debug, PartialEq, Eq)]
pub enum Directive {
    Help,
    Clear,
    /// New instructions, or none.
    System(Option<String>),
    Think(bool),
    Regenerate,
    Stats,
    Save(PathBuf),
    Exit,
}

impl Directive {
    /// Reads a line that begins with a slash, or says what is wrong with it.
    pub fn parse(line: &str) -> Result<Self, String> {
        let line = line.trim();
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let alone = |directive| match rest {
            "" => Ok(directive),
            _ => Err(format!("{name} stands alone")),
        };
        match name {
            "/help" | "/?" => alone(Directive::Help),
            "/clear" => alone(Directive::Clear),
            "/system" => Ok(Directive::System((!rest.is_empty()).then(|| rest.to_owned()))),
            "/think" => match rest {
                "on" => Ok(Directive::Think(true)),
                "off" => Ok(Directive::Think(false)),
                _ => Err("say /think on or /think off".to_owned()),
            },
            "/regenerate" => alone(Directive::Regenerate),
            "/stats" => alone(Directive::Stats),
            "/save" if rest.is_empty() => Err("say /save FILE".to_owned()),
            "/save" => Ok(Directive::Save(rest.into())),
            "/exit" | "/quit" => alone(Directive::Exit),
            _ => Err(format!("there is no {name}; /help lists commands")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directive_of_the_help_is_read() {
        let cases = [
            ("/help", Directive::Help),
            ("/clear ", Directive::Clear),
            ("/system  Be brief. ", Directive::System(Some("Be brief.".into()))),
            ("/system", Directive::System(None)),
            ("/think on", Directive::Think(true)),
            ("/think off", Directive::Think(false)),
            ("/regenerate", Directive::Regenerate),
            ("/stats", Directive::Stats),
            ("/save a b.json", Directive::Save("a b.json".into())),
            ("/exit", Directive::Exit),
        ];
        for (line, directive) in cases {
            assert_eq!(Directive::parse(line), Ok(directive), "{line}");
        }
        for line in ["/", "/save", "/think", "/think maybe", "/clear all", "/frob", "//"] {
            assert!(Directive::parse(line).is_err(), "{line}");
        }
        for line in HELP.lines().filter(|line| line.starts_with('/')) {
            let name = line.split_whitespace().next().unwrap_or_default();
            let error = Directive::parse(name).err().unwrap_or_default();
            assert!(!error.contains("there is no"), "{name}");
        }
    }
}
