//! Bytes in pieces to text in pieces.

/// Turns bytes that arrive in pieces into text, without ever giving out half a character.
///
/// A character whose bytes have not all arrived is held back (at most three bytes). Bytes that cannot be UTF-8
/// come out as U+FFFD. Whatever the pieces, the texts joined equal [`String::from_utf8_lossy`] of the bytes joined.
///
/// ```
/// let mut stream = cachalot_chat::Utf8Stream::new();
/// let mut text = String::new();
/// stream.push(&[b'a', 0xC3], &mut text);
/// assert_eq!(text, "a");
/// stream.push(&[0xA9], &mut text);
/// assert_eq!(text, "aé");
/// ```
#[derive(Debug, Clone, Default)]
pub struct Utf8Stream {
    /// The start of a character, always a valid beginning and never a whole one.
    held: Vec<u8>,
}

impl Utf8Stream {
    /// A stream that holds nothing back yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends to `text` what became certain with `bytes`.
    pub fn push(&mut self, bytes: &[u8], text: &mut String) {
        if self.held.is_empty() {
            let certain = certain_len(bytes);
            append_lossy(&bytes[..certain], text);
            self.held.extend_from_slice(&bytes[certain..]);
        } else {
            self.held.extend_from_slice(bytes);
            let certain = certain_len(&self.held);
            append_lossy(&self.held[..certain], text);
            self.held.drain(..certain);
        }
    }

    /// Appends what is left, an unfinished character, as U+FFFD; afterwards the stream is as new.
    pub fn finish(&mut self, text: &mut String) {
        append_lossy(&self.held, text);
        self.held.clear();
    }
}

fn append_lossy(bytes: &[u8], text: &mut String) {
    text.push_str(&String::from_utf8_lossy(bytes));
}

/// Length of the part of `bytes` that later bytes cannot change: all but an unfinished character at the end.
fn certain_len(bytes: &[u8]) -> usize {
    let mut start = 0;
    while let Err(error) = std::str::from_utf8(&bytes[start..]) {
        start += error.valid_up_to();
        match error.error_len() {
            Some(invalid_len) => start += invalid_len,
            None => return start,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes that are often the parts of characters of every length.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            any::<char>().prop_map(|character| character.to_string().into_bytes()),
            proptest::collection::vec(any::<u8>(), 1..4),
            proptest::sample::select(vec![0xF0u8, 0x9F, 0xE2, 0x82, 0xC3, 0x80, 0xFF]).prop_map(|byte| vec![byte]),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn pieces_give_the_same_text_as_the_whole(bytes in bytes(), cuts in proptest::collection::vec(0usize..40, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let (mut stream, mut text, mut start) = (Utf8Stream::new(), String::new(), 0);
            for cut in cuts {
                stream.push(&bytes[start..cut], &mut text);
                start = cut;
            }
            stream.finish(&mut text);
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn unfinished_character_is_held_and_ends_as_replacement() {
        let (mut stream, mut text) = (Utf8Stream::new(), String::new());
        stream.push("日".as_bytes()[..2].as_ref(), &mut text);
        assert_eq!(text, "");
        stream.finish(&mut text);
        assert_eq!(text, "\u{FFFD}");
    }
}
