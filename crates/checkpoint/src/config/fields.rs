//! Reading single keys of config.json, with errors that name key, value and expectation.

use std::path::Path;

use serde_json::{Map, Value};

use crate::Error;

pub(crate) const DOWNLOAD_AGAIN: &str = "take config.json from the release again";

/// One JSON object of config.json.
pub(crate) struct Fields<'a> {
    pub(crate) origin: &'a Path,
    /// Dotted path of this object, empty for the outermost one.
    pub(crate) path: &'static str,
    pub(crate) map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The outermost object of a config.json.
    pub(crate) fn new(map: &'a Map<String, Value>, origin: &'a Path) -> Self {
        Fields { origin, path: "", map }
    }

    /// The value of `key`; `null` counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn require(&self, key: &str) -> Result<&'a Value, Error> {
        self.get(key).ok_or_else(|| self.missing(key))
    }

    /// An integer of `1..=most`.
    pub(crate) fn count(&self, key: &str, most: usize) -> Result<usize, Error> {
        self.integer(key, 1, most)
    }

    /// An integer of `least..=most`.
    pub(crate) fn integer(&self, key: &str, least: usize, most: usize) -> Result<usize, Error> {
        let value = self.require(key)?;
        integer_of(value)
            .filter(|count| (least..=most).contains(count))
            .ok_or_else(|| self.wrong(key, value, format!("an integer from {least} to {most}")))
    }

    /// A list of integers, each checked by `accept`, at most `length_most` long.
    pub(crate) fn integers(
        &self,
        key: &str,
        length_most: usize,
        expected: &str,
        accept: impl Fn(usize) -> bool,
    ) -> Result<Vec<usize>, Error> {
        let value = self.require(key)?;
        let list = value
            .as_array()
            .filter(|list| list.len() <= length_most)
            .and_then(|list| {
                let numbers = list.iter().map(integer_of);
                numbers.map(|number| number.filter(|n| accept(*n))).collect()
            });
        list.ok_or_else(|| self.wrong(key, value, format!("a list of {expected}")))
    }

    /// A number above zero and at most `most`.
    pub(crate) fn positive(&self, key: &str, most: f64) -> Result<f64, Error> {
        let value = self.require(key)?;
        self.positive_of(key, value, most)
    }

    pub(crate) fn positive_of(&self, key: &str, value: &Value, most: f64) -> Result<f64, Error> {
        value
            .as_f64()
            .filter(|number| *number > 0.0 && *number <= most)
            .ok_or_else(|| self.wrong(key, value, format!("a number above 0 and at most {most}")))
    }

    pub(crate) fn boolean(&self, key: &str) -> Result<bool, Error> {
        let value = self.require(key)?;
        value
            .as_bool()
            .ok_or_else(|| self.wrong(key, value, "true or false".into()))
    }

    /// A text, if the key is there.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, Error> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value.as_str() {
            Some(text) => Ok(Some(text)),
            None => Err(self.wrong(key, value, "a text".into())),
        }
    }

    /// A nested object, if the key is there.
    pub(crate) fn object(&self, key: &'static str) -> Result<Option<Fields<'a>>, Error> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value.as_object() {
            Some(map) => Ok(Some(Fields {
                origin: self.origin,
                path: key,
                map,
            })),
            None => Err(self.wrong(key, value, "an object".into())),
        }
    }

    /// Refuses a switch that this engine knows in one position only; an absent key is that position.
    pub(crate) fn fixed(&self, key: &str, only: Value) -> Result<(), Error> {
        match self.get(key) {
            Some(value) if !same(value, &only) => Err(Error::ConfigValue {
                origin: self.origin.to_owned(),
                key: self.full(key),
                value: shorten(value),
                expected: format!("{only}, the only one that the released models of this family use"),
                remedy: "this variant of the model is not supported",
            }),
            _ => Ok(()),
        }
    }

    pub(crate) fn missing(&self, key: &str) -> Error {
        Error::ConfigKeyMissing {
            origin: self.origin.to_owned(),
            key: self.full(key),
            remedy: DOWNLOAD_AGAIN,
        }
    }

    pub(crate) fn wrong(&self, key: &str, value: &Value, expected: String) -> Error {
        self.refuse(key, shorten(value), expected, DOWNLOAD_AGAIN)
    }

    pub(crate) fn refuse(&self, key: &str, value: String, expected: String, remedy: &'static str) -> Error {
        Error::ConfigValue {
            origin: self.origin.to_owned(),
            key: self.full(key),
            value,
            expected,
            remedy,
        }
    }

    fn full(&self, key: &str) -> String {
        match self.path {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }
}

fn integer_of(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|number| usize::try_from(number).ok())
}

/// Equality that does not tell 1 from 1.0.
fn same(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    }
}

/// The value as JSON, cut after some 80 characters.
pub(crate) fn shorten(value: &Value) -> String {
    const CHARACTERS_MAX: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
