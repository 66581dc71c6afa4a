use std::fmt;

use ring::digest;

use crate::repository::is_lower_hexadecimal;

/// The hash that a hub lists for a file; it is also the name of the file's blob in the cache.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContentHash {
    algorithm: HashAlgorithm,
    hexadecimal: String,
}

/// How a hub hashes a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HashAlgorithm {
    /// SHA-256 of the content: large files.
    Sha256,
    /// Git's blob identity, SHA-1 of `blob <length>\0` and the content: small files.
    GitSha1,
}

impl ContentHash {
    /// Takes 64 (SHA-256) or 40 (git) lower-case hexadecimal digits.
    pub fn parse(hexadecimal: &str) -> Option<Self> {
        let algorithm = match hexadecimal.len() {
            64 => HashAlgorithm::Sha256,
            40 => HashAlgorithm::GitSha1,
            _ => return None,
        };
        is_lower_hexadecimal(hexadecimal, hexadecimal.len()).then(|| ContentHash {
            algorithm,
            hexadecimal: hexadecimal.to_owned(),
        })
    }

    /// Which algorithm the digits belong to.
    pub fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// The digits, lower case.
    pub fn hexadecimal(&self) -> &str {
        &self.hexadecimal
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            HashAlgorithm::Sha256 => "sha256",
            HashAlgorithm::GitSha1 => "git sha1",
        })
    }
}

/// Hashes a file while it arrives.
pub(crate) struct ContentHasher {
    context: digest::Context,
}

impl ContentHasher {
    /// `size_bytes` is the length of the whole file, which git hashes before the content.
    pub(crate) fn new(algorithm: HashAlgorithm, size_bytes: u64) -> Self {
        let context = match algorithm {
            HashAlgorithm::Sha256 => digest::Context::new(&digest::SHA256),
            HashAlgorithm::GitSha1 => {
                let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
                context.update(format!("blob {size_bytes}\0").as_bytes());
                context
            }
        };
        ContentHasher { context }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The digits of the hash of what was given so far, lower case.
    pub(crate) fn digits(&self) -> String {
        self.context
            .clone()
            .finish()
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values from `printf 'hello\n' | sha256sum` and `printf 'hello\n' | git hash-object --stdin`.
    #[test]
    fn hashes_agree_with_sha256sum_and_git() {
        for expected in [
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
            "ce013625030ba8dba906f756967f9e9ca394464a",
        ] {
            let hash = ContentHash::parse(expected).unwrap();
            let mut hasher = ContentHasher::new(hash.algorithm(), 6);
            hasher.update(b"hel");
            hasher.update(b"lo\n");
            assert_eq!(hasher.digits(), expected);
        }
    }

    #[test]
    fn only_digits_are_hashes() {
        for bad in [
            "",
            "ce01",
            &"g".repeat(40),
            &"A".repeat(64),
            "../../../../../../../../../../../etc/pwd",
        ] {
            assert!(ContentHash::parse(bad).is_none(), "{bad:?}");
        }
    }
}
