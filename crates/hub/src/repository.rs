use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

const REPOSITORY_NAME_BYTES_MAX: usize = 96;
const REVISION_BYTES_MAX: usize = 200;

/// The name of a model on a hub: `organisation/name`.
///
/// ```
/// # use cachalot_hub::Repository;
/// let repository: Repository = "deepseek-ai/DeepSeek-V4-Flash".parse()?;
/// assert_eq!(repository.to_string(), "deepseek-ai/DeepSeek-V4-Flash");
/// assert!("../etc/passwd".parse::<Repository>().is_err());
/// # Ok::<(), cachalot_hub::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Repository {
    name: String,
}

impl Repository {
    /// The whole name, `organisation/name`.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The folder of the repository inside a cache: `models--organisation--name`.
    ///
    /// Unambiguous because a name holds no `--`.
    pub(crate) fn folder_name(&self) -> String {
        format!("models--{}", self.name.replace('/', "--"))
    }
}

impl FromStr for Repository {
    type Err = Error;

    /// # Errors
    /// [`Error::RepositoryName`] unless the text is two parts of letters, digits, `-`, `_` and `.`,
    /// at most 96 bytes, no part starting or ending with `-` or `.`, without `--`, `..` and a final `.git`.
    fn from_str(name: &str) -> Result<Self> {
        let refuse = |reason| {
            Err(Error::RepositoryName {
                name: name.to_owned(),
                reason,
            })
        };
        if name.len() > REPOSITORY_NAME_BYTES_MAX {
            return refuse("it is longer than 96 bytes");
        }
        let Some((organisation, model)) = name.split_once('/') else {
            return refuse("it has no '/'");
        };
        for part in [organisation, model] {
            if !part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            {
                return refuse("only letters, digits, '-', '_' and '.' are allowed around one '/'");
            }
            if part.is_empty() || part.starts_with(['-', '.']) || part.ends_with(['-', '.']) {
                return refuse("both parts must start and end with a letter, a digit or '_'");
            }
        }
        if name.contains("--") || name.contains("..") || name.ends_with(".git") {
            return refuse("'--', '..' and a final '.git' are not allowed");
        }
        Ok(Repository { name: name.to_owned() })
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

/// A branch, a tag, or a commit of a repository. The default is the branch `main`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Revision {
    name: String,
}

impl Revision {
    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The commit, if the revision is one in full (40 lower-case hexadecimal digits).
    pub fn commit(&self) -> Option<Commit> {
        Commit::parse(&self.name)
    }
}

impl Default for Revision {
    fn default() -> Self {
        Revision {
            name: "main".to_owned(),
        }
    }
}

impl FromStr for Revision {
    type Err = Error;

    /// # Errors
    /// [`Error::RevisionName`] for what git would not take as a reference name. The name becomes a path
    /// below `refs/`, so parts that are empty or start with `.` are refused above all.
    fn from_str(revision: &str) -> Result<Self> {
        let refuse = |reason| {
            Err(Error::RevisionName {
                revision: revision.to_owned(),
                reason,
            })
        };
        if revision.is_empty() || revision.len() > REVISION_BYTES_MAX {
            return refuse("it must have 1 to 200 bytes");
        }
        let forbidden =
            |character: char| character.is_control() || character.is_whitespace() || "~^:?*[\\".contains(character);
        if revision.contains(forbidden) || revision.contains("..") || revision.contains("@{") {
            return refuse("it holds characters that git does not allow");
        }
        let part_is_bad = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
        if revision.split('/').any(part_is_bad) {
            return refuse("a part between '/' is empty, starts with '.' or ends with '.lock'");
        }
        Ok(Revision {
            name: revision.to_owned(),
        })
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

/// The identity of one state of a repository: 40 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Commit {
    digits: String,
}

impl Commit {
    /// Takes exactly 40 lower-case hexadecimal digits, as the cache's folders are spelt.
    pub fn parse(text: &str) -> Option<Self> {
        is_lower_hexadecimal(text, 40).then(|| Commit {
            digits: text.to_owned(),
        })
    }

    /// The 40 digits.
    pub fn as_str(&self) -> &str {
        &self.digits
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.digits)
    }
}

pub(crate) fn is_lower_hexadecimal(text: &str, digit_count: usize) -> bool {
    text.len() == digit_count && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_names() {
        for good in ["deepseek-ai/DeepSeek-V4-Flash", "a/b", "A_b.c/1", "_a/b_"] {
            assert_eq!(good.parse::<Repository>().unwrap().as_str(), good);
        }
        let long = format!("a/{}", "b".repeat(95));
        for bad in [
            "",
            "gpt2",
            "/b",
            "a/",
            "a/b/c",
            "../b",
            "a/..",
            ".a/b",
            "a/b.",
            "a--b/c",
            "a/b..c",
            "a/b.git",
            "a\\b/c",
            "a b/c",
            "a/é",
            "a/b\n",
            "/etc/passwd",
            &long,
        ] {
            assert!(bad.parse::<Repository>().is_err(), "{bad:?}");
        }
        assert_eq!("a/B-c".parse::<Repository>().unwrap().folder_name(), "models--a--B-c");
    }

    #[test]
    fn revision_names() {
        for good in ["main", "v1.0", "refs/pr/1", "feature/x-1", "a@b"] {
            assert_eq!(good.parse::<Revision>().unwrap().as_str(), good);
        }
        let long = "r".repeat(201);
        for bad in [
            "", "..", "a/../b", "/a", "a/", "a//b", ".git", "a/.b", "x.lock", "a b", "a\\b", "a:b", "a\u{0}", &long,
        ] {
            assert!(bad.parse::<Revision>().is_err(), "{bad:?}");
        }
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(commit.parse::<Revision>().unwrap().commit().unwrap().as_str(), commit);
        assert!("main".parse::<Revision>().unwrap().commit().is_none());
        assert!(Commit::parse(&commit.to_uppercase()).is_none());
    }
}
