//! Headers of safetensors files.
//!
//! A file is 8 bytes of header length, a JSON object from tensor names to type, shape and byte range, and
//! the tensors' bytes. Nothing that the header says is believed before it is checked against the file.

use std::fmt;

use safetensors::tensor::{Dtype as StoredDtype, TensorInfo};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::json;

/// Longest header that is read, as in the safetensors reference.
const HEADER_BYTES_MAX: u64 = 100_000_000;
const LENGTH_BYTES: usize = 8;
const METADATA: &str = "__metadata__";

/// One tensor of a file.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) dtype: StoredDtype,
    pub(crate) shape: Vec<usize>,
    /// First byte, counted from the start of the file.
    pub(crate) start: usize,
    /// Byte behind the last one.
    pub(crate) end: usize,
}

/// How a safetensors header can be wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderFault {
    /// Not even the length of the header fits in.
    #[error("the file has {byte_count} bytes, a safetensors file has at least 10")]
    TooShort {
        /// Bytes of the file.
        byte_count: usize,
    },
    /// The announced header reaches beyond the file or beyond what is sensible.
    #[error("the header claims {length} bytes, the file has {available} behind the length and 100000000 are the limit")]
    Length {
        /// The announced length.
        length: u64,
        /// Bytes behind the length field.
        available: usize,
    },
    /// The header is not JSON of the expected form.
    #[error("the header is not a safetensors header: {0}")]
    Json(serde_json::Error),
    /// A tensor without elements.
    #[error("tensor {name:?} has shape {shape:?}, expected no side of 0")]
    Empty {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Shape and type do not give the number of bytes in the range.
    #[error("tensor {name:?} of type {dtype} and shape {shape:?} does not fill its range of bytes {start}..{end}")]
    ByteCount {
        /// The tensor.
        name: String,
        /// Its type.
        dtype: String,
        /// Its shape.
        shape: Vec<usize>,
        /// First byte, counted from the end of the header.
        start: usize,
        /// Byte behind the last one.
        end: usize,
    },
    /// Two tensors share bytes.
    #[error("tensors {first:?} and {second:?} overlap")]
    Overlap {
        /// The tensor that begins first.
        first: String,
        /// The other one.
        second: String,
    },
    /// Bytes between two tensors belong to none.
    #[error("{byte_count} bytes before tensor {name:?} belong to no tensor")]
    Gap {
        /// The tensor behind the gap.
        name: String,
        /// Bytes of the gap.
        byte_count: usize,
    },
    /// A tensor lies beyond the end of the file.
    #[error("tensor {name:?} ends {missing} bytes beyond the end of the file")]
    Truncated {
        /// The tensor.
        name: String,
        /// Missing bytes.
        missing: usize,
    },
    /// Bytes behind the last tensor.
    #[error("{byte_count} bytes behind the last tensor belong to no tensor")]
    Trailing {
        /// Such bytes.
        byte_count: usize,
    },
}

/// Reads and checks the header of a whole file. Entries come in the order of their bytes.
///
/// A name that appears twice gives two entries.
pub(crate) fn read(file: &[u8]) -> Result<Vec<Entry>, HeaderFault> {
    let (header, data) = split(file)?;
    let text = std::str::from_utf8(header)
        .map_err(|error| HeaderFault::Json(serde::de::Error::custom(format_args!("not UTF-8: {error}"))))?;
    let Listing(listing) = serde_json::from_str(text).map_err(HeaderFault::Json)?;
    let mut entries = Vec::with_capacity(listing.len());
    for (name, info) in listing {
        entries.push(entry(name, info)?);
    }
    entries.sort_by_key(|entry| (entry.start, entry.end));
    check_ranges(&entries, data.len())?;
    let data_start = file.len() - data.len();
    for entry in &mut entries {
        entry.start += data_start;
        entry.end += data_start;
    }
    Ok(entries)
}

/// Length and JSON of a header of tensors in the order of their bytes, padded with spaces to a multiple of eight.
pub(crate) fn encode<'a, D: serde::Serialize>(
    tensors: impl Iterator<Item = (&'a str, D, &'a [usize], u64)>,
) -> Vec<u8> {
    let mut text = String::from(r#"{"__metadata__":{"format":"pt"}"#);
    let mut start = 0;
    for (name, dtype, shape, byte_count) in tensors {
        let end = start + byte_count;
        let info = json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] });
        text.push_str(&format!(",{}:{info}", json!(name)));
        start = end;
    }
    text.push('}');
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn split(file: &[u8]) -> Result<(&[u8], &[u8]), HeaderFault> {
    let too_short = HeaderFault::TooShort { byte_count: file.len() };
    let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(too_short);
    };
    if rest.len() < 2 {
        return Err(too_short);
    }
    let length = u64::from_le_bytes(*length);
    if length > HEADER_BYTES_MAX || length > rest.len() as u64 {
        return Err(HeaderFault::Length {
            length,
            available: rest.len(),
        });
    }
    Ok(rest.split_at(length as usize))
}

fn entry(name: String, info: TensorInfo) -> Result<Entry, HeaderFault> {
    let (start, end) = info.data_offsets;
    if info.shape.contains(&0) {
        return Err(HeaderFault::Empty {
            name,
            shape: info.shape,
        });
    }
    let bits = info
        .shape
        .iter()
        .try_fold(info.dtype.bitsize(), |bits, side| bits.checked_mul(*side));
    let byte_count = bits.filter(|bits| bits.is_multiple_of(8)).map(|bits| bits / 8);
    if byte_count.is_none() || byte_count != end.checked_sub(start) {
        return Err(HeaderFault::ByteCount {
            name,
            dtype: info.dtype.to_string(),
            shape: info.shape,
            start,
            end,
        });
    }
    Ok(Entry {
        name,
        dtype: info.dtype,
        shape: info.shape,
        start,
        end,
    })
}

/// The entries, in order, must cover the data without overlap, gap or rest.
fn check_ranges(entries: &[Entry], data_byte_count: usize) -> Result<(), HeaderFault> {
    let mut previous: Option<&Entry> = None;
    for entry in entries {
        let expected = previous.map_or(0, |previous| previous.end);
        if let Some(previous) = previous.filter(|_| entry.start < expected) {
            return Err(HeaderFault::Overlap {
                first: previous.name.clone(),
                second: entry.name.clone(),
            });
        }
        if entry.start > expected {
            return Err(HeaderFault::Gap {
                name: entry.name.clone(),
                byte_count: entry.start - expected,
            });
        }
        if entry.end > data_byte_count {
            return Err(HeaderFault::Truncated {
                name: entry.name.clone(),
                missing: entry.end - data_byte_count,
            });
        }
        previous = Some(entry);
    }
    match data_byte_count - previous.map_or(0, |previous| previous.end) {
        0 => Ok(()),
        byte_count => Err(HeaderFault::Trailing { byte_count }),
    }
}

/// All tensors of a header in the order of the text, repeated names included.
struct Listing(Vec<(String, TensorInfo)>);

impl<'de> Deserialize<'de> for Listing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListingVisitor;

        impl<'de> Visitor<'de> for ListingVisitor {
            type Value = Listing;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Listing, A::Error> {
                let mut listing = Vec::new();
                while let Some(name) = access.next_key::<String>()? {
                    if name == METADATA {
                        access.next_value::<IgnoredAny>()?;
                    } else {
                        listing.push((name, access.next_value()?));
                    }
                }
                Ok(Listing(listing))
            }
        }

        deserializer.deserialize_map(ListingVisitor)
    }
}
