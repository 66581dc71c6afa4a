//! The names that the model may call.

use crate::call::{Tool, ToolShape};
use crate::warning::Warning;

/// The tools on offer, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct ToolNames(Vec<(String, ToolShape)>);

/// What a name that the model wrote stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) name: String,
    pub(crate) shape: ToolShape,
    pub(crate) warning: Option<Warning>,
}

impl ToolNames {
    pub(crate) fn new(tools: &[Tool]) -> Self {
        Self(
            tools
                .iter()
                .map(|tool| (tool.definition.name.clone(), tool.shape))
                .collect(),
        )
    }

    /// The tool called `name`, or the only one whose name differs in case, spaces or a `functions.` before it. An
    /// unknown name is passed on: the client tells the model.
    pub(crate) fn resolve(&self, name: &str) -> Resolved {
        let resolved = |name: &str, shape, warning| Resolved {
            name: name.to_owned(),
            shape,
            warning,
        };
        if let Some((name, shape)) = self.0.iter().find(|(offered, _)| offered == name) {
            return resolved(name, *shape, None);
        }
        let plain = |name: &str| {
            let name = name.trim();
            name.strip_prefix("functions.").unwrap_or(name).to_lowercase()
        };
        let mut alike = self.0.iter().filter(|(offered, _)| plain(offered) == plain(name));
        if let (Some((offered, shape)), None) = (alike.next(), alike.next()) {
            let message = format!("the model called {name:?}, which was taken for the tool {offered:?}");
            return resolved(offered, *shape, Some(Warning::new("tool_renamed", message, name)));
        }
        let message = format!("the model called {name:?}, which is not among the tools");
        resolved(
            name,
            ToolShape::Function,
            Some(Warning::new("tool_unknown", message, name)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_resolved() {
        let names = ["read_file", "Bash", "bash2", "a", "A"];
        let tools = ToolNames(names.map(|name| (name.to_owned(), ToolShape::Function)).to_vec());
        for (written, name, code) in [
            ("Bash", "Bash", None),
            ("bash", "Bash", Some("tool_renamed")),
            (" functions.read_file ", "read_file", Some("tool_renamed")),
            ("a", "a", None),
            (" a", " a", Some("tool_unknown")),
            ("write", "write", Some("tool_unknown")),
        ] {
            let resolved = tools.resolve(written);
            assert_eq!(resolved.name, name);
            assert_eq!(resolved.warning.map(|warning| warning.code), code, "{written}");
        }
    }
}
