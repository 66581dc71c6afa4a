//! Reading JSON bodies field by field, with errors that name the field.

use serde_json::{Map, Value};

use crate::error::{ErrorKind, ProtocolError};
use crate::limits::Limits;

/// The JSON object of `body`.
///
/// # Errors
/// The body is no JSON object or nested deeper than `limits.nesting_depth`.
pub(crate) fn parse_object(body: &[u8], limits: &Limits) -> Result<Map<String, Value>, ProtocolError> {
    let depth_max = limits.nesting_depth.min(100);
    if nesting_depth(body) > depth_max {
        let message = format!("the body is nested deeper than {depth_max} arrays and objects");
        return Err(ProtocolError::new(ErrorKind::InvalidRequest, message));
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(ProtocolError::new(
            ErrorKind::InvalidRequest,
            format!("the body is {}, expected a JSON object", kind_of(&other)),
        )),
        Err(error) => Err(ProtocolError::new(
            ErrorKind::InvalidRequest,
            format!("the body is no JSON ({error})"),
        )),
    }
}

/// Depth of arrays and objects, counted without parsing.
fn nesting_depth(body: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0usize, false, false);
    for byte in body {
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
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// What a value is, in words.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// An object of the body and where it stands. `null` counts as absent everywhere.
#[derive(Clone)]
pub(crate) struct Fields<'b> {
    object: &'b Map<String, Value>,
    path: String,
    pub(crate) limits: &'b Limits,
}

impl<'b> Fields<'b> {
    pub(crate) fn new(object: &'b Map<String, Value>, path: impl Into<String>, limits: &'b Limits) -> Self {
        Self {
            object,
            path: path.into(),
            limits,
        }
    }

    /// `value` at `path` as an object.
    pub(crate) fn of(value: &'b Value, path: String, limits: &'b Limits) -> Result<Self, ProtocolError> {
        match value {
            Value::Object(object) => Ok(Self::new(object, path, limits)),
            other => Err(wrong_type(path, "an object", other)),
        }
    }

    /// The full name of the field `name`.
    pub(crate) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// Where this object stands.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn value(&self, name: &str) -> Option<&'b Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn object(&self, name: &str) -> Result<Option<Fields<'b>>, ProtocolError> {
        self.value(name)
            .map(|value| Self::of(value, self.path_of(name), self.limits))
            .transpose()
    }

    pub(crate) fn array(&self, name: &str) -> Result<&'b [Value], ProtocolError> {
        match self.value(name) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(wrong_type(self.path_of(name), "an array", other)),
        }
    }

    /// The objects of the array `name`, bounded by `count_max`.
    pub(crate) fn objects(&self, name: &str, count_max: usize) -> Result<Vec<Fields<'b>>, ProtocolError> {
        let items = self.array(name)?;
        if items.len() > count_max {
            return Err(self.invalid(
                name,
                format!("has {} entries, at most {count_max} are taken", items.len()),
            ));
        }
        let at = |index: usize| format!("{}[{index}]", self.path_of(name));
        items
            .iter()
            .enumerate()
            .map(|(index, item)| Self::of(item, at(index), self.limits))
            .collect()
    }

    pub(crate) fn bool(&self, name: &str) -> Result<Option<bool>, ProtocolError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(wrong_type(self.path_of(name), "a boolean", other)),
        }
    }

    /// A short text: a name, an id.
    pub(crate) fn name(&self, name: &str) -> Result<Option<&'b str>, ProtocolError> {
        self.bounded_text(name, self.limits.name_bytes)
    }

    pub(crate) fn required_name(&self, name: &str) -> Result<&'b str, ProtocolError> {
        match self.name(name)? {
            None | Some("") => Err(self.invalid(name, "is missing")),
            Some(text) => Ok(text),
        }
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<&'b str>, ProtocolError> {
        self.bounded_text(name, self.limits.text_bytes)
    }

    fn bounded_text(&self, name: &str, bytes_max: usize) -> Result<Option<&'b str>, ProtocolError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= bytes_max => Ok(Some(text)),
            Some(Value::String(text)) => {
                Err(self.invalid(name, format!("has {} bytes, at most {bytes_max} are taken", text.len())))
            }
            Some(other) => Err(wrong_type(self.path_of(name), "a string", other)),
        }
    }

    /// A number within `range`.
    pub(crate) fn number(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<f64>,
    ) -> Result<Option<f32>, ProtocolError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let number = value
            .as_f64()
            .ok_or_else(|| wrong_type(self.path_of(name), "a number", value))?;
        if range.contains(&number) {
            Ok(Some(number as f32))
        } else {
            Err(self.invalid(
                name,
                format!("is {number}, expected {} to {}", range.start(), range.end()),
            ))
        }
    }

    /// A whole number within `range`.
    pub(crate) fn integer(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Result<Option<i64>, ProtocolError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        // Some clients send whole numbers as floats.
        let whole = value
            .as_f64()
            .filter(|number| number.fract() == 0.0 && number.abs() < 9e15);
        let number = value
            .as_i64()
            .or(whole.map(|number| number as i64))
            .ok_or_else(|| wrong_type(self.path_of(name), "a whole number", value))?;
        if range.contains(&number) {
            Ok(Some(number))
        } else {
            Err(self.invalid(
                name,
                format!("is {number}, expected {} to {}", range.start(), range.end()),
            ))
        }
    }

    pub(crate) fn count(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<usize>,
    ) -> Result<Option<usize>, ProtocolError> {
        let bound = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let range = bound(*range.start())..=bound(*range.end());
        // The range starts at 0 or above, so the number is not negative.
        Ok(self.integer(name, range)?.map(|number| number as usize))
    }

    pub(crate) fn invalid(&self, name: &str, message: impl std::fmt::Display) -> ProtocolError {
        ProtocolError::invalid(self.path_of(name), message)
    }

    pub(crate) fn unsupported(&self, name: &str, message: impl std::fmt::Display) -> ProtocolError {
        ProtocolError::unsupported(self.path_of(name), message)
    }

    /// Refuses the fields `names` unless they are absent, `false`, empty or `"none"`.
    pub(crate) fn refuse(&self, names: &[(&str, &str)]) -> Result<(), ProtocolError> {
        for (name, reason) in names {
            let asks = match self.value(name) {
                None | Some(Value::Bool(false)) => false,
                Some(Value::Array(items)) => !items.is_empty(),
                Some(Value::Object(object)) => !object.is_empty(),
                Some(Value::String(text)) => !text.is_empty() && text != "none",
                Some(_) => true,
            };
            if asks {
                return Err(self.unsupported(name, reason));
            }
        }
        Ok(())
    }
}

pub(crate) fn wrong_type(path: String, expected: &str, found: &Value) -> ProtocolError {
    ProtocolError::invalid(path, format_args!("is {}, expected {expected}", kind_of(found)))
}
