//! The JSON text of a call's arguments, also of unfinished ones.

use std::collections::HashSet;

use serde_json::{Map, Value};

/// Where in the text of an object the outermost members begin and end.
struct Members {
    /// Ends of members, at the comma that follows.
    ends: Vec<usize>,
    /// The open string, if the text ends in one.
    in_string: bool,
    /// Whether the text ends between a name and its value.
    wants_value: bool,
}

fn members(arguments: &str) -> Members {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    let (mut ends, mut wants_value) = (Vec::new(), false);
    for (at, byte) in arguments.bytes().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 1 => ends.push(at),
            b':' if depth == 1 => {
                wants_value = true;
                continue;
            }
            b' ' => continue,
            _ => {}
        }
        wants_value = false;
    }
    Members {
        ends,
        in_string,
        wants_value,
    }
}

/// The arguments as an object; of unfinished ones the members that are whole.
pub(crate) fn whole_members(arguments: &str) -> Map<String, Value> {
    let parse = |text: String| serde_json::from_str::<Map<String, Value>>(&text).ok();
    if arguments.trim().is_empty() {
        return Map::new();
    }
    let last_end = members(arguments).ends.last().copied();
    parse(arguments.to_owned())
        .or_else(|| parse(format!("{arguments}}}")))
        .or_else(|| parse(format!("{}}}", &arguments[..last_end?])))
        .unwrap_or_default()
}

/// What makes the unfinished `arguments` an object whose last member is `name` with the text `value`.
pub(crate) fn closing_with(arguments: &str, name: &str, value: &str) -> String {
    let members = members(arguments);
    let separator = match arguments.trim() {
        "" => "{",
        "{" => "",
        _ if members.in_string => "\", ",
        _ if members.wants_value => "null, ",
        _ => ", ",
    };
    format!("{separator}{}: {}}}", Value::from(name), Value::from(value))
}

/// Names of outermost members that come more than once.
pub(crate) fn repeated_members(arguments: &str) -> Vec<String> {
    let mut starts = vec![0];
    starts.extend(members(arguments).ends);
    let (mut seen, mut repeated) = (HashSet::new(), Vec::new());
    for start in starts {
        // Skips the brace or comma and the space after it.
        let text = arguments[start..].get(1..).unwrap_or_default();
        let mut names = serde_json::Deserializer::from_str(text).into_iter::<String>();
        if let Some(Ok(name)) = names.next()
            && !seen.insert(name.clone())
            && !repeated.contains(&name)
        {
            repeated.push(name);
        }
    }
    repeated
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unfinished_arguments() {
        let text = r#"{"a": "x, \"y\"", "b": [1, {"c": 2}], "d": "{e"}"#;
        let after = |part: &str| text.find(part).expect("a part") + part.len();
        let (first, second, third) = (after(r#"y\""#) + 1, after("2}]"), after(r#""{e""#));
        for end in 0..text.len() {
            let cut = &text[..end];
            let whole = Value::Object(whole_members(cut));
            let expected = match end {
                _ if end >= third => json!({"a": "x, \"y\"", "b": [1, {"c": 2}], "d": "{e"}),
                _ if end >= second => json!({"a": "x, \"y\"", "b": [1, {"c": 2}]}),
                _ if end >= first => json!({"a": "x, \"y\""}),
                _ => json!({}),
            };
            assert_eq!(whole, expected, "{cut}");
        }
    }

    #[test]
    fn closed_arguments_are_objects() {
        // The parser gives out values that are no strings in one piece, so cuts fall only into strings and behind names.
        for cut in [
            "",
            "{",
            r#"{"a": "#,
            r#"{"a": ""#,
            r#"{"a": "x\n"#,
            r#"{"a": "x""#,
            r#"{"a": [1, 2]"#,
        ] {
            let closed = format!("{cut}{}", closing_with(cut, "m", "<raw>"));
            let object: Map<String, Value> = serde_json::from_str(&closed).expect(&closed);
            assert_eq!(object["m"], "<raw>");
        }
    }

    #[test]
    fn repeated_names_are_found() {
        assert_eq!(repeated_members(r#"{"a": 1, "b": {"a": 2}, "a": "a", "a": 3}"#), ["a"]);
        assert!(repeated_members(r#"{"a": ", \"a\": "}"#).is_empty());
        assert!(repeated_members("{}").is_empty());
    }
}
