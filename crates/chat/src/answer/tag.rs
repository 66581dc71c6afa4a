//! Tags of tool call markup: what stands between `｜DSML｜` and `>`.

/// A tag, taken in piece by piece.
#[derive(Debug)]
pub(super) struct Tag {
    /// Whether it is `</｜DSML｜...>`.
    pub(super) closes: bool,
    text: String,
    quoted: bool,
}

/// What a tag means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Block,
    Invoke {
        tool: String,
    },
    /// `is_string` is `None` where the tag does not say.
    Parameter {
        name: String,
        is_string: Option<bool>,
    },
    BlockEnd,
    InvokeEnd,
    ParameterEnd,
    Unknown,
}

impl Tag {
    pub(super) fn new(closes: bool) -> Self {
        Self {
            closes,
            text: String::new(),
            quoted: false,
        }
    }

    /// Takes in `text` up to the end of the tag, `>` or the end of the line; returns what follows it, or `None` if
    /// the tag goes on.
    pub(super) fn take<'t>(&mut self, text: &'t str) -> Option<&'t str> {
        for (at, character) in text.char_indices() {
            match character {
                '>' | '\n' if !self.quoted => return Some(&text[at + 1..]),
                '"' => self.quoted = !self.quoted,
                _ => {}
            }
            self.text.push(character);
        }
        None
    }

    /// Whether the tag is inside a quoted name, where anything may stand.
    pub(super) fn quoted(&self) -> bool {
        self.quoted
    }

    /// Ends a tag without `>` at the opening of another one; returns whether that one closes.
    pub(super) fn cut_at_opening(&mut self) -> bool {
        let (text, closes) = split_opening(&self.text);
        self.text.truncate(text.len());
        closes
    }

    /// The meaning of a whole tag. V4.1 writes a space before the tag's name.
    pub(super) fn meaning(&self) -> Meaning {
        let text = self.text.trim();
        let (name, attributes) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        match (name, self.closes) {
            ("tool_calls" | "calls", false) => Meaning::Block,
            ("tool_calls" | "calls", true) => Meaning::BlockEnd,
            ("invoke", true) => Meaning::InvokeEnd,
            ("parameter", true) => Meaning::ParameterEnd,
            ("invoke", false) => match attribute(attributes, "name") {
                Some(tool) if !tool.is_empty() => Meaning::Invoke { tool: tool.to_owned() },
                _ => Meaning::Unknown,
            },
            ("parameter", false) => match attribute(attributes, "name") {
                Some(name) => Meaning::Parameter {
                    name: name.to_owned(),
                    is_string: attribute(attributes, "string").and_then(|value| value.parse().ok()),
                },
                None => Meaning::Unknown,
            },
            _ => Meaning::Unknown,
        }
    }
}

/// Splits the opening of a tag, `<` or `</`, from the end of `text`; returns whether it closes. Without an opening
/// the text comes back whole.
pub(super) fn split_opening(text: &str) -> (&str, bool) {
    match text.strip_suffix("</") {
        Some(before) => (before, true),
        None => (text.strip_suffix('<').unwrap_or(text), false),
    }
}

/// The value of `name="..."` among `attributes`.
fn attribute<'t>(attributes: &'t str, name: &str) -> Option<&'t str> {
    let mut rest = attributes.trim_start();
    loop {
        let (found, after) = rest.split_once("=\"")?;
        let (value, after) = after.split_once('"')?;
        if found.trim() == name {
            return Some(value);
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(closes: bool, text: &str) -> Meaning {
        let mut tag = Tag::new(closes);
        assert_eq!(tag.take(text), Some("rest"));
        tag.meaning()
    }

    #[test]
    fn tags_of_both_releases() {
        let parameter = |name: &str, is_string| Meaning::Parameter {
            name: name.into(),
            is_string,
        };
        for (closes, text, expected) in [
            (false, "tool_calls>rest", Meaning::Block),
            (true, " calls>rest", Meaning::BlockEnd),
            (false, "invoke name=\"f\">rest", Meaning::Invoke { tool: "f".into() }),
            (
                false,
                " invoke  name=\"a > b\" >rest",
                Meaning::Invoke { tool: "a > b".into() },
            ),
            (false, "invoke name=\"\">rest", Meaning::Unknown),
            (false, "invoke>rest", Meaning::Unknown),
            (
                false,
                "parameter name=\"p\" string=\"true\">rest",
                parameter("p", Some(true)),
            ),
            (
                false,
                " parameter string=\"false\" name=\"a b\">rest",
                parameter("a b", Some(false)),
            ),
            (false, "parameter name=\"p\">rest", parameter("p", None)),
            (
                false,
                "parameter name=\"p\" string=\"maybe\">rest",
                parameter("p", None),
            ),
            (true, "parameter>rest", Meaning::ParameterEnd),
            (true, "invoke >rest", Meaning::InvokeEnd),
            (false, "invoke name=\"f\"\nrest", Meaning::Invoke { tool: "f".into() }),
            (false, ">rest", Meaning::Unknown),
        ] {
            assert_eq!(meaning(closes, text), expected, "{text}");
        }
    }
}
