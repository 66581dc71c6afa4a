//! The alphabet in which byte-level vocabularies spell bytes.
//!
//! Every byte has one printable character: the printable Latin-1 characters stand for themselves, the other 68
//! bytes for U+0100 onwards in rising order (so `Ġ`, U+0120, is a space).

/// The byte that `character` stands for, or `None` where it is no letter of the alphabet.
pub(crate) fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => Some(code as u8),
        // 0x00..=0x20, 0x7F..=0xA0 and 0xAD, in that order.
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121 + 0x7F) as u8),
        0x143 => Some(0xAD),
        _ => None,
    }
}

/// The bytes that the vocabulary entry `token` stands for; an entry with a character outside the alphabet stands
/// for its own UTF-8.
pub(crate) fn bytes_of(token: &str) -> Vec<u8> {
    token
        .chars()
        .map(byte_of)
        .collect::<Option<Vec<u8>>>()
        .unwrap_or_else(|| token.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alphabet_is_that_of_the_tokenizers_crate() {
        let letters = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        assert_eq!(letters.len(), 256);
        let mut bytes: Vec<u8> = letters
            .iter()
            .map(|&letter| byte_of(letter).expect("a letter of the alphabet"))
            .collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(byte_of('Ġ'), Some(b' '));
        assert_eq!(byte_of('Ċ'), Some(b'\n'));
        assert_eq!(byte_of('｜'), None);
    }
}
