//! API keys.

use std::path::Path;

use axum::http::{HeaderMap, header};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::Error;

/// The keys of a server; without any, nobody needs one.
#[derive(Clone, Default)]
pub struct ApiKeys {
    keys: Vec<String>,
}

/// Who asks: the place of the key in the list, or none where no key is needed.
pub type KeyIndex = Option<usize>;

impl std::fmt::Debug for ApiKeys {
    /// Keys stay out of logs.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "ApiKeys({} keys)", self.keys.len())
    }
}

impl ApiKeys {
    /// Adds a key.
    ///
    /// # Errors
    /// [`Error::Key`] if it is empty or has characters that cannot be in a header.
    pub fn add(&mut self, key: &str) -> Result<(), Error> {
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::Key);
        }
        self.keys.push(key.to_owned());
        Ok(())
    }

    /// Adds the keys of a file: one a line; empty lines and those that begin with `#` are skipped.
    ///
    /// # Errors
    /// [`Error::KeyFile`] if it cannot be read or holds no key, [`Error::Key`] as for [`ApiKeys::add`].
    pub fn add_file(&mut self, path: &Path) -> Result<(), Error> {
        let failed = |reason: String| Error::KeyFile {
            path: path.to_owned(),
            reason,
        };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let lines = text.lines().map(str::trim);
        let keys: Vec<&str> = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .collect();
        if keys.is_empty() {
            return Err(failed("it holds no key".to_owned()));
        }
        keys.into_iter().try_for_each(|key| self.add(key))
    }

    /// Whether nobody needs a key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Who sent these headers: `Authorization: Bearer KEY` or `x-api-key: KEY`.
    ///
    /// # Errors
    /// The sentence for the client when no key of the list is there.
    pub fn identify(&self, headers: &HeaderMap) -> Result<KeyIndex, &'static str> {
        if self.is_empty() {
            return Ok(None);
        }
        let Some(given) = key_of(headers) else {
            return Err("an API key is needed; send it as `Authorization: Bearer KEY` or `x-api-key: KEY`");
        };
        self.find(given.as_bytes())
            .map(Some)
            .ok_or("the API key is not known to this server")
    }

    /// Takes the same time wherever a key differs, and whichever key fits.
    fn find(&self, given: &[u8]) -> Option<usize> {
        let mut found = Choice::from(0);
        let mut place = 0u64;
        for (index, key) in self.keys.iter().enumerate() {
            let fits = key.as_bytes().ct_eq(given);
            place.conditional_assign(&(index as u64), fits);
            found |= fits;
        }
        bool::from(found).then_some(place as usize)
    }
}

fn key_of(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    bearer.or_else(|| headers.get("x-api-key")?.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    #[test]
    fn keys_are_found_in_both_headers() {
        let mut keys = ApiKeys::default();
        assert_eq!(keys.identify(&HeaderMap::new()), Ok(None));
        keys.add("first").unwrap();
        keys.add("second").unwrap();
        for (name, value, expected) in [
            ("authorization", "Bearer first", Some(0)),
            ("authorization", "bearer second", Some(1)),
            ("x-api-key", "second", Some(1)),
            ("authorization", "Bearer secon", None),
            ("authorization", "Basic first", None),
            ("x-api-key", "", None),
        ] {
            assert_eq!(keys.identify(&headers(name, value)).ok().flatten(), expected, "{value}");
        }
        assert!(keys.identify(&HeaderMap::new()).is_err());
        assert_eq!(format!("{keys:?}"), "ApiKeys(2 keys)");
    }

    #[test]
    fn files_may_have_comments_and_must_have_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let mut keys = ApiKeys::default();
        std::fs::write(&path, "# nobody\n\n").unwrap();
        assert!(keys.add_file(&path).is_err());
        std::fs::write(&path, "# Ada\n alpha \nbeta\n").unwrap();
        keys.add_file(&path).unwrap();
        assert_eq!(keys.identify(&headers("x-api-key", "alpha")), Ok(Some(0)));
        std::fs::write(&path, "two words\n").unwrap();
        assert!(matches!(keys.add_file(&path), Err(Error::Key)));
    }
}
