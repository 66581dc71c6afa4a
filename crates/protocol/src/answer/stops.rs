//! Stop strings in text that arrives in pieces.

/// Looks for stop strings across the borders of pieces.
///
/// Text that may be the beginning of a stop string is held back; whatever the pieces, what comes out joined is the
/// text before the earliest end of a stop string, the longest of those that end there.
#[derive(Debug, Clone)]
pub(crate) struct StopFinder {
    stops: Vec<String>,
    held: String,
}

/// What a piece led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Text that is certain.
    pub(crate) text: String,
    /// The stop string that came up.
    pub(crate) stop: Option<String>,
}

impl StopFinder {
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self {
            stops,
            held: String::new(),
        }
    }

    pub(crate) fn push(&mut self, text: &str) -> Found {
        if self.stops.is_empty() {
            return Found {
                text: text.to_owned(),
                stop: None,
            };
        }
        let searched = self.held.len();
        self.held.push_str(text);
        if let Some((start, stop)) = self.earliest(searched) {
            let stop = stop.to_owned();
            self.held.truncate(start);
            return Found {
                text: std::mem::take(&mut self.held),
                stop: Some(stop),
            };
        }
        let kept = self.held.len() - self.beginning_len();
        let rest = self.held.split_off(kept);
        Found {
            text: std::mem::replace(&mut self.held, rest),
            stop: None,
        }
    }

    /// What is held back: no stop string came of it.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Whether anything is held back.
    pub(crate) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Start and text of the stop string that ends first, after the `searched` bytes that hold none.
    fn earliest(&self, searched: usize) -> Option<(usize, &str)> {
        let found = self.stops.iter().filter_map(|stop| {
            let mut from = searched.saturating_sub(stop.len());
            while !self.held.is_char_boundary(from) {
                from -= 1;
            }
            let start = from + self.held[from..].find(stop.as_str())?;
            Some((start + stop.len(), start, stop.as_str()))
        });
        let (_, start, stop) = found.min_by_key(|(end, start, _)| (*end, *start))?;
        Some((start, stop))
    }

    /// Length of the longest end of the held text that begins a stop string.
    fn beginning_len(&self) -> usize {
        let held = self.held.as_bytes();
        let longest = |stop: &String| {
            let len_max = held.len().min(stop.len() - 1);
            (1..=len_max)
                .rev()
                .find(|len| stop.as_bytes().starts_with(&held[held.len() - len..]))
        };
        // A beginning of valid text that is an end of valid text lies on borders of characters at both sides.
        self.stops.iter().filter_map(longest).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<String>) {
        let mut finder = StopFinder::new(stops.iter().map(|stop| stop.to_string()).collect());
        let mut text = String::new();
        for piece in pieces {
            let found = finder.push(piece);
            text += &found.text;
            if found.stop.is_some() {
                return (text, found.stop);
            }
        }
        text += &finder.finish();
        (text, None)
    }

    #[test]
    fn stop_strings_are_found_across_pieces() {
        let stop = |text: &str| Some(text.to_owned());
        assert_eq!(run(&["END"], &["abE", "N", "Dcd"]), ("ab".into(), stop("END")));
        assert_eq!(run(&["END"], &["abE", "N"]), ("abEN".into(), None));
        assert_eq!(run(&["aab"], &["aa", "ab"]), ("a".into(), stop("aab")));
        assert_eq!(run(&["abcd", "bc"], &["xab", "cd"]), ("xa".into(), stop("bc")));
        assert_eq!(run(&["c", "bc"], &["ab", "c"]), ("a".into(), stop("bc")));
        assert_eq!(run(&["日本"], &["a日", "本b"]), ("a".into(), stop("日本")));
        assert_eq!(run(&[], &["a", "b"]), ("ab".into(), None));
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(text in "[ab日]{0,24}", stops in proptest::collection::vec("[ab日]{1,4}", 0..3), cut in 0usize..24) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let whole = run(&stops, &[&text]);
            let characters: Vec<String> = text.chars().map(String::from).collect();
            let cut = cut.min(characters.len());
            let (left, right) = (characters[..cut].concat(), characters[cut..].concat());
            prop_assert_eq!(&run(&stops, &[&left, &right]), &whole);
            let each: Vec<&str> = characters.iter().map(String::as_str).collect();
            prop_assert_eq!(&run(&stops, &each), &whole);
        }
    }
}
