use std::fmt;
use std::path::PathBuf;

const PATH_BYTES_MAX: usize = 1024;
const PART_BYTES_MAX: usize = 255;
const PART_COUNT_MAX: usize = 16;

/// The name of a file inside a repository: parts separated by `/`, none of which can lead out of a folder.
///
/// Names come from a server; a value of this type is safe to join to a folder.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilePath {
    path: String,
}

impl FilePath {
    /// Takes a name as a server spells it, or gives the rule that the name breaks.
    pub fn parse(path: &str) -> Result<Self, &'static str> {
        if path.is_empty() || path.len() > PATH_BYTES_MAX {
            return Err("a name has 1 to 1024 bytes");
        }
        if path.starts_with('/') {
            return Err("absolute names are not allowed");
        }
        if path.contains('\\') {
            return Err("backslashes are not allowed");
        }
        if path.contains(char::is_control) {
            return Err("control characters are not allowed");
        }
        let mut part_count = 0;
        for part in path.split('/') {
            part_count += 1;
            if part.is_empty() || part == "." || part == ".." {
                return Err("'.', '..' and empty parts are not allowed");
            }
            if part.len() > PART_BYTES_MAX || part_count > PART_COUNT_MAX {
                return Err("a name has at most 16 parts of at most 255 bytes");
            }
        }
        Ok(FilePath { path: path.to_owned() })
    }

    /// The name, with `/` between its parts.
    pub fn as_str(&self) -> &str {
        &self.path
    }

    /// How many folders the file is below the top of the repository; 0 at the top.
    pub fn depth(&self) -> usize {
        self.path.matches('/').count()
    }

    /// The name as a relative path of this system.
    pub(crate) fn to_relative_path(&self) -> PathBuf {
        self.path.split('/').collect()
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.path)
    }
}

/// Whether a file belongs to what is needed to run a model: the default filter of a download.
///
/// At the top of the repository: `config.json`, `generation_config.json`, `tokenizer.json`,
/// `tokenizer_config.json`, every `*.safetensors` and `*.safetensors.index.json`, the licence and the
/// readme. Nothing below a folder.
pub fn is_model_file(file: &FilePath) -> bool {
    let name = file.as_str();
    file.depth() == 0
        && (name.ends_with(".safetensors")
            || name.ends_with(".safetensors.index.json")
            || matches!(
                name,
                "config.json"
                    | "generation_config.json"
                    | "tokenizer.json"
                    | "tokenizer_config.json"
                    | "LICENSE"
                    | "LICENSE.md"
                    | "LICENSE.txt"
                    | "README.md"
            ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_folder_are_refused() {
        for good in ["config.json", "a/b/c.py", "…/é", "..a", "a..b", ".gitattributes", "C:x"] {
            assert_eq!(FilePath::parse(good).unwrap().as_str(), good);
        }
        let (long, deep) = ("a".repeat(256), "a/".repeat(16) + "a");
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "../a",
            "a/../b",
            "a/..",
            "a//b",
            "a/",
            "./a",
            "a\\..\\b",
            "a\0",
            "a\nb",
            &long,
            &deep,
        ] {
            assert!(FilePath::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_default_filter_takes_the_top_of_a_model() {
        let names = |wanted: bool, names: &[&str]| {
            for name in names {
                assert_eq!(is_model_file(&FilePath::parse(name).unwrap()), wanted, "{name}");
            }
        };
        names(
            true,
            &[
                "config.json",
                "model-00001-of-00046.safetensors",
                "model.safetensors.index.json",
                "LICENSE",
            ],
        );
        names(
            false,
            &[
                "inference/config.json",
                "x/a.safetensors",
                "pytorch_model.bin",
                ".gitattributes",
                "a.pdf",
            ],
        );
    }
}
