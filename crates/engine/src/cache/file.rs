//! Files of the prefix cache: one page, or one snapshot's tails with its last, partial page.
//!
//! All numbers are little-endian.
//!
//! | bytes | content |
//! | --- | --- |
//! | 8 | `CACHALOT` |
//! | 4 | version of this format |
//! | 4 | kind: 1 page, 2 snapshot |
//! | 16 | identity of checkpoint, numeric mode, KV format and chip |
//! | 16 | key of the text that ends here |
//! | 16 | key of the text of the pages before |
//! | 8 | tokens of the whole text |
//! | 4 | tokens by which the snapshot can be rolled back |
//! | 4 | number of tokens in this file, at most a page |
//! | 8 | bytes of the content |
//! | 16 | XXH3 of the content |
//! | 4 each | the tokens |
//! | 8 | XXH3 of everything above |
//! | … | the content |

use cachalot_model::PAGE_TOKEN_COUNT;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

const MAGIC: &[u8; 8] = b"CACHALOT";
const VERSION: u32 = 1;
const FIXED_BYTE_COUNT: usize = 104;
const HASH_BYTE_COUNT: usize = 8;

/// Bytes that surely hold a whole header.
pub(super) const HEADER_BYTE_COUNT_MAX: usize = FIXED_BYTE_COUNT + 4 * PAGE_TOKEN_COUNT + HASH_BYTE_COUNT;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Page,
    Snapshot,
}

/// What a file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub kind: Kind,
    pub identity: u128,
    pub key: u128,
    pub parent: u128,
    pub position: u64,
    pub rollback: u32,
    pub tokens: Vec<u32>,
    pub content_byte_count: u64,
    pub content_hash: u128,
}

impl Header {
    /// The header of a content, as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTE_COUNT_MAX);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        let kind: u32 = match self.kind {
            Kind::Page => 1,
            Kind::Snapshot => 2,
        };
        bytes.extend_from_slice(&kind.to_le_bytes());
        for number in [self.identity, self.key, self.parent] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.position.to_le_bytes());
        bytes.extend_from_slice(&self.rollback.to_le_bytes());
        bytes.extend_from_slice(&(self.tokens.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.content_byte_count.to_le_bytes());
        bytes.extend_from_slice(&self.content_hash.to_le_bytes());
        bytes.extend(self.tokens.iter().flat_map(|token| token.to_le_bytes()));
        let hash = xxh3_64(&bytes);
        bytes.extend_from_slice(&hash.to_le_bytes());
        bytes
    }

    /// Reads the header at the start of a file's bytes; none if it is cut, damaged or of another version.
    pub fn decode(bytes: &[u8]) -> Option<Header> {
        let mut fields = Fields(bytes);
        if fields.take::<8>()? != *MAGIC || fields.u32()? != VERSION {
            return None;
        }
        let kind = match fields.u32()? {
            1 => Kind::Page,
            2 => Kind::Snapshot,
            _ => return None,
        };
        let [identity, key, parent] = [fields.u128()?, fields.u128()?, fields.u128()?];
        let (position, rollback) = (fields.u64()?, fields.u32()?);
        let token_count = fields.u32()? as usize;
        let (content_byte_count, content_hash) = (fields.u64()?, fields.u128()?);
        if token_count > PAGE_TOKEN_COUNT {
            return None;
        }
        let tokens = (0..token_count).map(|_| fields.u32()).collect::<Option<Vec<u32>>>()?;
        let hashed = &bytes[..bytes.len() - fields.0.len()];
        if fields.u64()? != xxh3_64(hashed) {
            return None;
        }
        Some(Header {
            kind,
            identity,
            key,
            parent,
            position,
            rollback,
            tokens,
            content_byte_count,
            content_hash,
        })
    }

    /// Bytes of the header.
    pub fn byte_count(&self) -> usize {
        FIXED_BYTE_COUNT + 4 * self.tokens.len() + HASH_BYTE_COUNT
    }

    /// Bytes of the file, if that is a number.
    pub fn file_byte_count(&self) -> Option<u64> {
        self.content_byte_count.checked_add(self.byte_count() as u64)
    }

    /// The content of a file with this header; none if it is cut, too long or damaged.
    pub fn content<'a>(&self, file: &'a [u8]) -> Option<&'a [u8]> {
        if self.file_byte_count() != Some(file.len() as u64) {
            return None;
        }
        let content = &file[self.byte_count()..];
        (xxh3_128(content) == self.content_hash).then_some(content)
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> Option<u128> {
        self.take().map(u128::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(token_count: usize, content: &[u8]) -> (Header, Vec<u8>) {
        let header = Header {
            kind: if token_count == PAGE_TOKEN_COUNT {
                Kind::Page
            } else {
                Kind::Snapshot
            },
            identity: 1,
            key: 2 << 70,
            parent: 3,
            position: 700,
            rollback: 8,
            tokens: (0..token_count as u32).collect(),
            content_byte_count: content.len() as u64,
            content_hash: xxh3_128(content),
        };
        let bytes = [header.encode().as_slice(), content].concat();
        (header, bytes)
    }

    #[test]
    fn headers_are_as_long_as_they_say() {
        let (header, bytes) = file(PAGE_TOKEN_COUNT, &[]);
        assert_eq!(
            (header.byte_count(), bytes.len()),
            (HEADER_BYTE_COUNT_MAX, HEADER_BYTE_COUNT_MAX)
        );
    }

    proptest! {
        #[test]
        fn whole_files_are_read_and_damaged_ones_refused(
            token_count in 0..=PAGE_TOKEN_COUNT,
            content in prop::collection::vec(any::<u8>(), 0..300),
            at in any::<prop::sample::Index>(),
            bit in 0u8..8,
            cut in any::<prop::sample::Index>(),
        ) {
            let read = |bytes: &[u8]| {
                let header = Header::decode(bytes)?;
                header.content(bytes).map(|content| (header.clone(), content.to_vec()))
            };
            let (header, bytes) = file(token_count, &content);
            prop_assert_eq!(read(&bytes), Some((header, content)));
            let mut flipped = bytes.clone();
            flipped[at.index(bytes.len())] ^= 1u8 << bit;
            prop_assert_eq!(read(&flipped), None);
            prop_assert_eq!(read(&bytes[..cut.index(bytes.len())]), None);
            prop_assert_eq!(read(&[bytes.as_slice(), &[0]].concat()), None);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(Header::decode(&bytes), None);
        }
    }
}
