//! Constraints made of JSON Schemas, regular expressions and grammars, by llguidance.
//!
//! [`Grammars`] is made once for a vocabulary; compiling a grammar then takes about a millisecond. A constraint may be
//! dormant until a given token was drawn, so a model can think freely before it answers in the demanded form.

use std::sync::Arc;

use llguidance::{
    Matcher, ParserFactory,
    api::TopLevelGrammar,
    toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie},
};

use crate::{Constraint, Error, TokenMask};

/// Spaces, tabs and line breaks that a constrained JSON text may have between two of its tokens: a model that likes white
/// space must not write it for ever.
const WHITESPACE_PATTERN: &str = r"[ \t\r\n]{0,40}";

/// Bytes of a grammar or schema at most.
const GRAMMAR_BYTE_COUNT_MAX: usize = 1 << 20;

/// What an answer has to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Grammar {
    /// A JSON text that fulfils a JSON Schema. Keywords that cannot be enforced are refused.
    JsonSchema(serde_json::Value),
    /// A text that matches a regular expression as a whole.
    Regex(String),
    /// A text of a Lark grammar in llguidance's dialect; `<[128825]>` stands for a token by its id.
    Lark(String),
}

/// A token's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenText<'a> {
    /// Bytes, not necessarily whole characters.
    Bytes(&'a [u8]),
    /// A special token: never part of constrained text, unless a grammar names it by its id.
    Special(&'a str),
    /// An id that stands for nothing.
    Unused,
}

/// How a constraint sleeps at the beginning of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dormancy<'a> {
    /// The token, `</think>` for example, after which the constraint holds.
    pub until: u32,
    /// Tokens that may not be drawn before, besides those that end the answer: those that would begin elsewhere what the
    /// constraint describes. Ids outside the vocabulary are ignored.
    pub forbidden: &'a [u32],
}

/// Compiles grammars for one vocabulary.
pub struct Grammars {
    factory: ParserFactory,
    vocabulary: usize,
    end_tokens: Vec<u32>,
}

impl Grammars {
    /// `vocabulary` holds the text of each token id; `end_tokens`, at least one, end an answer.
    ///
    /// # Errors
    /// [`Error::Constraint`] if there is no end token or one is outside the vocabulary.
    pub fn new<'a>(vocabulary: impl IntoIterator<Item = TokenText<'a>>, end_tokens: &[u32]) -> Result<Self, Error> {
        let failed = |reason: String| Error::Constraint {
            what: "the vocabulary",
            reason,
        };
        let words: Vec<Vec<u8>> = vocabulary.into_iter().map(word).collect();
        let Some(first) = end_tokens.first() else {
            return Err(failed("it has no token that ends an answer".to_owned()));
        };
        if let Some(token) = end_tokens.iter().find(|token| **token as usize >= words.len()) {
            return Err(failed(format!(
                "its end token {token} is outside of its {} tokens",
                words.len()
            )));
        }
        let info = TokRxInfo::new(words.len() as u32, *first);
        let trie = TokTrie::from(&info, &words).with_eos_tokens(end_tokens);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&environment).map_err(|error| failed(error.to_string()))?;
        factory.quiet();
        Ok(Grammars {
            factory,
            vocabulary: words.len(),
            end_tokens: end_tokens.to_vec(),
        })
    }

    /// A constraint for one answer, which may sleep at first: until it wakes everything is allowed but the end of the
    /// answer and what [`Dormancy`] forbids.
    ///
    /// # Errors
    /// [`Error::Constraint`] if the grammar is not valid, too large, or asks for what cannot be enforced.
    pub fn constraint(&self, grammar: &Grammar, dormancy: Option<Dormancy<'_>>) -> Result<GrammarConstraint, Error> {
        let what = grammar.name();
        let failed = |reason: String| Error::Constraint { what, reason };
        let size = grammar.byte_count();
        if size > GRAMMAR_BYTE_COUNT_MAX {
            return Err(failed(format!(
                "it has {size} bytes, {GRAMMAR_BYTE_COUNT_MAX} are possible"
            )));
        }
        let parser = self.factory.create_parser(grammar.to_llguidance());
        let mut constraint = GrammarConstraint {
            what,
            matcher: Matcher::new(parser),
            mask: None,
            after: dormancy.map(|dormancy| dormancy.until),
            open_mask: None,
            end_tokens: self.end_tokens.clone(),
        };
        // Some mistakes only show when the first mask is asked for.
        constraint.compute_mask()?;
        if let Some(dormancy) = dormancy {
            let mut words = vec![u32::MAX; self.vocabulary.div_ceil(32)];
            for token in self.end_tokens.iter().chain(dormancy.forbidden) {
                if let Some(word) = words.get_mut(*token as usize / 32) {
                    *word &= !(1 << (token % 32));
                }
            }
            constraint.open_mask = Some(TokenMask::from_words(words));
        }
        Ok(constraint)
    }
}

impl Grammar {
    fn name(&self) -> &'static str {
        match self {
            Grammar::JsonSchema(_) => "the JSON schema",
            Grammar::Regex(_) => "the regular expression",
            Grammar::Lark(_) => "the grammar",
        }
    }

    fn byte_count(&self) -> usize {
        match self {
            Grammar::JsonSchema(schema) => schema.to_string().len(),
            Grammar::Regex(text) | Grammar::Lark(text) => text.len(),
        }
    }

    fn to_llguidance(&self) -> TopLevelGrammar {
        match self {
            Grammar::JsonSchema(schema) => {
                let mut schema = schema.clone();
                if let Some(object) = schema.as_object_mut() {
                    let options = serde_json::json!({ "whitespace_pattern": WHITESPACE_PATTERN });
                    object.entry("x-guidance").or_insert(options);
                }
                TopLevelGrammar::from_json_schema(schema)
            }
            Grammar::Regex(expression) => TopLevelGrammar::from_regex(expression),
            Grammar::Lark(grammar) => TopLevelGrammar::from_lark(grammar.clone()),
        }
    }
}

/// A grammar's state in one answer.
pub struct GrammarConstraint {
    what: &'static str,
    matcher: Matcher,
    /// Tokens that may come next, if computed since the last commit.
    mask: Option<TokenMask>,
    /// The token that wakes the constraint, while it is dormant.
    after: Option<u32>,
    /// What a dormant constraint allows.
    open_mask: Option<TokenMask>,
    end_tokens: Vec<u32>,
}

impl GrammarConstraint {
    /// Whether the answer may end here.
    ///
    /// # Errors
    /// [`Error::Constraint`].
    pub fn is_complete(&mut self) -> Result<bool, Error> {
        if self.after.is_some() {
            return Ok(false);
        }
        let accepting = self.matcher.is_accepting();
        accepting.map_err(|error| self.failed(&error.to_string()))
    }

    fn compute_mask(&mut self) -> Result<(), Error> {
        let mask = self.matcher.compute_mask_or_eos();
        let mask = mask.map_err(|error| self.failed(&error.to_string()))?;
        self.mask = Some(TokenMask::from_words(mask.as_slice().to_vec()));
        Ok(())
    }

    fn failed(&self, reason: &str) -> Error {
        // llguidance adds its state after the first line.
        let reason = reason.lines().next().unwrap_or_default();
        Error::Constraint {
            what: self.what,
            reason: reason.chars().take(500).collect(),
        }
    }
}

impl Constraint for GrammarConstraint {
    fn mask(&mut self) -> Result<Option<&TokenMask>, Error> {
        if self.after.is_some() {
            return Ok(self.open_mask.as_ref());
        }
        if self.mask.is_none() {
            self.compute_mask()?;
        }
        Ok(self.mask.as_ref())
    }

    fn commit(&mut self, token: u32) -> Result<(), Error> {
        if self.after.is_some() {
            if self.after == Some(token) {
                self.after = None;
            }
            return Ok(());
        }
        // The end of the answer needs no state after it.
        if self.end_tokens.contains(&token) {
            return Ok(());
        }
        self.mask = None;
        let outcome = self.matcher.consume_token(token);
        outcome.map_err(|error| self.failed(&error.to_string()))
    }
}

fn word(text: TokenText<'_>) -> Vec<u8> {
    match text {
        TokenText::Bytes(bytes) => bytes.to_vec(),
        TokenText::Special(name) => [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat(),
        TokenText::Unused => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const END: u32 = 256;
    const THINK_END: u32 = 257;

    /// Every byte is a token; two special ones.
    fn grammars() -> Grammars {
        let bytes: Vec<[u8; 1]> = (0..=255).map(|byte| [byte]).collect();
        let texts = bytes.iter().map(|byte| TokenText::Bytes(byte));
        let special = [
            TokenText::Special("end"),
            TokenText::Special("/think"),
            TokenText::Unused,
        ];
        Grammars::new(texts.chain(special), &[END]).expect("a valid vocabulary")
    }

    /// Whether a constraint allows a text and its end right after.
    fn allows(constraint: &mut GrammarConstraint, text: &str) -> bool {
        for byte in text.bytes() {
            let mask = constraint.mask().expect("a mask").expect("awake");
            if !mask.is_allowed(byte.into()) {
                return false;
            }
            constraint.commit(byte.into()).expect("allowed");
        }
        constraint.mask().expect("a mask").expect("awake").is_allowed(END)
    }

    #[test]
    fn only_what_the_grammar_describes_is_allowed() {
        let grammars = grammars();
        let schema = json!({
            "type": "object",
            "properties": { "city": { "type": "string" }, "days": { "type": "integer", "maximum": 14 } },
            "required": ["city", "days"],
            "additionalProperties": false,
        });
        let cases = [
            (
                Grammar::JsonSchema(schema.clone()),
                r#"{"city": "Oslo", "days": 3}"#,
                true,
            ),
            (
                Grammar::JsonSchema(schema.clone()),
                r#"{"city": "Oslo", "days": 99}"#,
                false,
            ),
            (Grammar::JsonSchema(schema.clone()), r#"{"city": "Oslo"}"#, false),
            (Grammar::JsonSchema(schema), r#"{"city": "Os"#, false),
            (Grammar::Regex("[a-c]+x?".to_owned()), "abcx", true),
            (Grammar::Regex("[a-c]+x?".to_owned()), "abxx", false),
            (Grammar::Lark("start: \"yes\" | \"no\"".to_owned()), "no", true),
            (Grammar::Lark("start: \"yes\" | \"no\"".to_owned()), "nes", false),
        ];
        for (grammar, text, expected) in cases {
            let mut constraint = grammars.constraint(&grammar, None).expect("valid");
            assert_eq!(allows(&mut constraint, text), expected, "{text} in {grammar:?}");
            assert!(!expected || constraint.is_complete().expect("no error"), "{text}");
        }
    }

    #[test]
    fn white_space_has_an_end() {
        let mut constraint = grammars()
            .constraint(&Grammar::JsonSchema(json!({ "type": "array" })), None)
            .expect("valid");
        assert!(!allows(&mut constraint, "["));
        assert!(!allows(&mut constraint, &" ".repeat(40)));
        assert!(
            !constraint
                .mask()
                .expect("a mask")
                .expect("awake")
                .is_allowed(b' '.into())
        );
    }

    #[test]
    fn dormant_constraints_wake_after_their_token() {
        let grammar = Grammar::Regex("ok".to_owned());
        let dormancy = Dormancy {
            until: THINK_END,
            forbidden: &[b'<'.into(), 9999],
        };
        let mut constraint = grammars().constraint(&grammar, Some(dormancy)).expect("valid");
        for byte in b"well, {" {
            let mask = constraint.mask().expect("a mask").expect("all but the end");
            assert!(mask.is_allowed((*byte).into()) && mask.is_allowed(THINK_END));
            // An answer that ended while thinking would not have the demanded form.
            assert!(!mask.is_allowed(END) && !mask.is_allowed(b'<'.into()));
            constraint.commit((*byte).into()).expect("allowed");
        }
        assert!(!constraint.is_complete().expect("no error"));
        constraint.commit(THINK_END).expect("allowed");
        assert_eq!(constraint.mask().expect("a mask").expect("awake").count(), 1);
        assert!(allows(&mut constraint, "ok"));
    }

    #[test]
    fn grammars_name_special_tokens_by_id() {
        let grammar = Grammar::Lark("start: <[257]> \"a\"".to_owned());
        let mut constraint = grammars().constraint(&grammar, None).expect("valid");
        assert!(constraint.mask().expect("a mask").expect("awake").is_allowed(THINK_END));
        constraint.commit(THINK_END).expect("allowed");
        assert!(allows(&mut constraint, "a"));
    }

    #[test]
    fn bad_grammars_are_errors() {
        let grammars = grammars();
        for grammar in [
            Grammar::JsonSchema(json!({ "type": "nonsense" })),
            Grammar::JsonSchema(json!({ "type": "object", "dependentSchemas": { "a": {} }, "unevaluatedItems": 1 })),
            Grammar::JsonSchema(json!(17)),
            Grammar::JsonSchema(json!({ "$ref": "https://example.org/elsewhere" })),
            Grammar::Regex("(".to_owned()),
            Grammar::Lark("start: missing".to_owned()),
            Grammar::Lark("x".repeat(GRAMMAR_BYTE_COUNT_MAX + 1)),
        ] {
            let error = grammars.constraint(&grammar, None).err();
            assert!(
                matches!(&error, Some(Error::Constraint { .. })),
                "{grammar:?}: {error:?}"
            );
        }
        assert!(Grammars::new([], &[]).is_err());
        assert!(Grammars::new([TokenText::Bytes(b"a")], &[1]).is_err());
    }
}
