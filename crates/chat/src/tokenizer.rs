//! The model's vocabulary: text to token ids and back.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use deepseek_recipe_core::special_tokens::SpecialToken;
use tokenizers::{
    AddedVocabulary, DecoderWrapper, Model, ModelWrapper, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer,
};

use crate::byte_level;
use crate::utf8_stream::Utf8Stream;

/// Largest vocabulary that is accepted: a hundred times DeepSeek's, to bound what a broken file can make us allocate.
const VOCABULARY_SIZE_MAX: usize = 1 << 24;

/// Longest piece, a word or a run of spaces or signs, that is surely cut as DeepSeek's tokenizer cuts it. The regular
/// expressions stop without an error after a million steps back, which some signs reach with 111,000 characters and
/// letters and spaces with a million.
const PIECE_CHARS_MAX: usize = 100_000;

/// Why a tokenizer could not be loaded or a text not be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The bytes are no tokenizer file.
    #[error("tokenizer.json cannot be read ({reason}); fetch it again from the model's release")]
    Unreadable {
        /// What the reader met.
        reason: String,
    },
    /// The file describes another kind of tokenizer than byte-level BPE, the only one that DeepSeek's models use.
    #[error(
        "tokenizer.json has {found} as its {part}, expected {expected}; only DeepSeek's byte-level BPE tokenizers are supported"
    )]
    Unsupported {
        /// The part of the tokenizer, `model` or `decoder`.
        part: &'static str,
        /// What the file has there.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
    /// The model has more vocabulary rows than is believable.
    #[error(
        "the model's vocabulary size is {vocabulary_size}, the largest supported is {}; check vocab_size in config.json",
        VOCABULARY_SIZE_MAX
    )]
    VocabularyTooLarge {
        /// The size that the model's configuration gives.
        vocabulary_size: usize,
    },
    /// A token has an id for which the model has no row.
    #[error(
        "token {token:?} of tokenizer.json has id {id}, but the model's vocabulary has {vocabulary_size} rows; tokenizer.json and config.json belong to different models"
    )]
    OutsideVocabulary {
        /// The token as the file spells it.
        token: String,
        /// Its id.
        id: u32,
        /// Rows of the model's vocabulary.
        vocabulary_size: usize,
    },
    /// Tokens without which no prompt can be built.
    #[error("tokenizer.json lacks the special tokens {}; it belongs to another model family", .names.join(", "))]
    MissingSpecialTokens {
        /// The missing spellings.
        names: Vec<String>,
    },
    /// The text has a word, or a run of spaces or signs, that is too long to be cut as DeepSeek's tokenizer does.
    #[error(
        "text has {char_count} characters without a break, at most {} can be encoded exactly; break them up with line ends or spaces",
        PIECE_CHARS_MAX
    )]
    PieceTooLong {
        /// Its length.
        char_count: usize,
    },
    /// The text could not be cut into tokens.
    #[error("text of {text_bytes} bytes cannot be encoded ({reason})")]
    Encode {
        /// Length of the text.
        text_bytes: usize,
        /// What the encoder met.
        reason: String,
    },
}

/// A loaded `tokenizer.json`. Cloning shares it.
///
/// Encoding runs on the calling thread only, so it never competes with compute threads.
#[derive(Clone)]
pub struct Tokenizer(Arc<Vocabulary>);

struct Vocabulary {
    encoder: tokenizers::Tokenizer,
    /// An added vocabulary without tokens, for texts in which nothing is special.
    nothing_added: AddedVocabulary,
    /// Spellings and ids of the added vocabulary: control tokens, `<think>`, `｜DSML｜` and the like.
    special_ids: HashMap<String, u32>,
    /// The bytes of every token, one after the other.
    bytes: Vec<u8>,
    /// Where in `bytes` the token with this id lies.
    spans: Vec<Range<u32>>,
    /// Whether the id belongs to the added vocabulary.
    special: Vec<bool>,
    bos_id: u32,
    eos_id: u32,
}

impl Tokenizer {
    /// Loads the bytes of a `tokenizer.json` for a model with `vocabulary_size` rows.
    ///
    /// The file may have fewer tokens than the model has rows: DeepSeek pads the vocabulary.
    ///
    /// # Errors
    /// Every variant of [`TokenizerError`] but the two of encoding. The special tokens checked here are the
    /// begin and the end of a sentence; those of the chat format are checked by [`PromptEncoder::new`](crate::PromptEncoder::new).
    pub fn from_bytes(json: &[u8], vocabulary_size: usize) -> Result<Self, TokenizerError> {
        if vocabulary_size > VOCABULARY_SIZE_MAX {
            return Err(TokenizerError::VocabularyTooLarge { vocabulary_size });
        }
        if u32::try_from(json.len()).is_err() {
            return Err(unreadable("it is larger than 4 GiB"));
        }
        check_kind(json)?;
        let mut encoder = tokenizers::Tokenizer::from_bytes(json).map_err(unreadable)?;
        encoder.with_padding(None);
        encoder.with_truncation(None).map_err(unreadable)?;
        if !matches!(encoder.get_model(), ModelWrapper::BPE(_)) {
            return Err(unsupported("model", "another kind", "BPE"));
        }
        if !matches!(encoder.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
            return Err(unsupported("decoder", "none or another kind", "ByteLevel"));
        }
        Vocabulary::new(encoder, vocabulary_size).map(|vocabulary| Self(Arc::new(vocabulary)))
    }

    /// Token ids of `text` in which special tokens spelled out (`<｜User｜>`, `<think>`, ...) become those tokens.
    ///
    /// For text that the caller wrote or trusts; anything from a user belongs into [`encode_plain`](Self::encode_plain).
    /// No token is added at either end.
    ///
    /// # Errors
    /// [`TokenizerError::PieceTooLong`] and [`TokenizerError::Encode`] when the text cannot be cut into tokens.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.0.encode(text, self.0.encoder.get_added_vocabulary())
    }

    /// Token ids of `text` in which nothing is special: `<｜User｜>` becomes the tokens of its characters.
    ///
    /// # Errors
    /// [`TokenizerError::PieceTooLong`] and [`TokenizerError::Encode`] when the text cannot be cut into tokens.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.0.encode(text, &self.0.nothing_added)
    }

    /// The text of `ids`, special tokens spelled out. Ids without a token give `⟨id⟩`, ids
    /// outside the vocabulary nothing, bytes that are no UTF-8 U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.token_bytes(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A decoder for ids that arrive one by one.
    pub fn stream(&self) -> StreamDecoder {
        StreamDecoder {
            tokenizer: self.clone(),
            utf8: Utf8Stream::new(),
        }
    }

    /// The bytes of the token `id`, which need not be whole characters; `⟨id⟩` for ids of the model without a token,
    /// empty for ids outside its vocabulary.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        match self.0.spans.get(id as usize) {
            Some(span) => &self.0.bytes[span.start as usize..span.end as usize],
            None => &[],
        }
    }

    /// The id of the special token that is spelled `text`, e.g. `<think>`; `None` where the vocabulary has none.
    pub fn special_id(&self, text: &str) -> Option<u32> {
        self.0.special_ids.get(text).copied()
    }

    /// Whether `id` is one of the added tokens (control tokens, `<think>`, `｜DSML｜`, ...), which plain text never
    /// becomes.
    pub fn is_special(&self, id: u32) -> bool {
        self.0.special.get(id as usize).copied().unwrap_or(false)
    }

    /// Id of the token that begins every prompt.
    pub fn bos_id(&self) -> u32 {
        self.0.bos_id
    }

    /// Id of the token that ends an answer.
    pub fn eos_id(&self) -> u32 {
        self.0.eos_id
    }

    /// Rows of the model's vocabulary; ids are below it.
    pub fn vocabulary_size(&self) -> usize {
        self.0.spans.len()
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Tokenizer")
            .field("vocabulary_size", &self.vocabulary_size())
            .field("special_tokens", &self.0.special_ids.len())
            .finish_non_exhaustive()
    }
}

/// Decodes ids one by one; see [`Tokenizer::stream`].
///
/// The texts joined equal [`Tokenizer::decode`] of the ids joined, and no text ever ends inside a character.
#[derive(Debug, Clone)]
pub struct StreamDecoder {
    tokenizer: Tokenizer,
    utf8: Utf8Stream,
}

impl StreamDecoder {
    /// The text that became certain with `id`; empty while a character is unfinished.
    pub fn push(&mut self, id: u32) -> String {
        let mut text = String::new();
        self.utf8.push(self.tokenizer.token_bytes(id), &mut text);
        text
    }

    /// What is left: an unfinished character as U+FFFD, else nothing.
    pub fn finish(&mut self) -> String {
        let mut text = String::new();
        self.utf8.finish(&mut text);
        text
    }
}

impl Vocabulary {
    fn new(encoder: tokenizers::Tokenizer, vocabulary_size: usize) -> Result<Self, TokenizerError> {
        let special_ids: HashMap<String, u32> = encoder
            .get_added_vocabulary()
            .get_vocab()
            .iter()
            .map(|(token, &id)| (token.clone(), id))
            .collect();
        let mut spans = vec![0..0; vocabulary_size];
        let mut special = vec![false; vocabulary_size];
        let mut bytes = Vec::new();
        for (token, id) in encoder.get_vocab(true) {
            let Some(span) = spans.get_mut(id as usize) else {
                return Err(TokenizerError::OutsideVocabulary {
                    token,
                    id,
                    vocabulary_size,
                });
            };
            let start = bytes.len() as u32;
            if special_ids.get(&token) == Some(&id) {
                special[id as usize] = true;
                bytes.extend_from_slice(token.as_bytes());
            } else {
                bytes.extend(byte_level::bytes_of(&token));
            }
            *span = start..bytes.len() as u32;
        }
        // Models have more rows than their tokenizers have tokens. Trained ones never choose the others; of an untrained
        // one something should be seen.
        for (id, span) in spans.iter_mut().enumerate().filter(|(_, span)| span.start == span.end) {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(format!("⟨{id}⟩").as_bytes());
            *span = start..bytes.len() as u32;
        }
        let names = [SpecialToken::Bos, SpecialToken::Eos].map(SpecialToken::default_str);
        let [Some(bos_id), Some(eos_id)] = names.map(|name| special_ids.get(name).copied()) else {
            let missing = names.iter().filter(|name| !special_ids.contains_key(**name));
            return Err(TokenizerError::MissingSpecialTokens {
                names: missing.map(|name| name.to_string()).collect(),
            });
        };
        Ok(Self {
            encoder,
            nothing_added: AddedVocabulary::new(),
            special_ids,
            bytes,
            spans,
            special,
            bos_id,
            eos_id,
        })
    }

    /// The ids of `text`, in which the tokens of `added` are taken as they are spelled.
    ///
    /// This is what the `tokenizers` crate does for one text, with a look at the pieces on the way.
    fn encode(&self, text: &str, added: &AddedVocabulary) -> Result<Vec<u32>, TokenizerError> {
        let mut pieces = added.extract_and_normalize(self.encoder.get_normalizer(), text);
        let encode_error = |reason| encode_error(text, reason);
        if let Some(pre_tokenizer) = self.encoder.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces).map_err(encode_error)?;
        }
        check_pieces(text, &pieces)?;
        pieces
            .tokenize(|piece| self.encoder.get_model().tokenize(piece.get()))
            .map_err(encode_error)?;
        let encoding = pieces.into_encoding(None, 0, OffsetType::None).map_err(encode_error)?;
        Ok(encoding.get_ids().to_vec())
    }
}

/// Refuses pieces so long that the regular expressions may have given up on them without a word.
fn check_pieces(text: &str, pieces: &PreTokenizedString) -> Result<(), TokenizerError> {
    for (_, (start, end), _) in pieces.get_splits(OffsetReferential::Original, OffsetType::Byte) {
        if end - start > PIECE_CHARS_MAX {
            let char_count = text.get(start..end).map_or(end - start, |piece| piece.chars().count());
            if char_count > PIECE_CHARS_MAX {
                return Err(TokenizerError::PieceTooLong { char_count });
            }
        }
    }
    Ok(())
}

/// The parts of the file that decide whether the `tokenizers` crate may read it: other models could make it panic.
#[derive(serde::Deserialize)]
struct Kind {
    model: ModelKind,
}

#[derive(serde::Deserialize)]
struct ModelKind {
    #[serde(rename = "type")]
    kind: Option<String>,
    continuing_subword_prefix: Option<String>,
}

fn check_kind(json: &[u8]) -> Result<(), TokenizerError> {
    let Kind { model } = serde_json::from_slice(json).map_err(unreadable)?;
    match (model.kind.as_deref(), model.continuing_subword_prefix.as_deref()) {
        (Some("BPE"), None | Some("")) => Ok(()),
        (Some("BPE"), Some(_)) => Err(unsupported(
            "model",
            "BPE with a continuing_subword_prefix",
            "byte-level BPE",
        )),
        (kind, _) => Err(unsupported("model", kind.unwrap_or("no type"), "BPE")),
    }
}

fn unreadable(reason: impl std::fmt::Display) -> TokenizerError {
    TokenizerError::Unreadable {
        reason: reason.to_string(),
    }
}

fn unsupported(part: &'static str, found: &str, expected: &'static str) -> TokenizerError {
    TokenizerError::Unsupported {
        part,
        found: found.to_owned(),
        expected,
    }
}

fn encode_error(text: &str, reason: impl std::fmt::Display) -> TokenizerError {
    TokenizerError::Encode {
        text_bytes: text.len(),
        reason: reason.to_string(),
    }
}
