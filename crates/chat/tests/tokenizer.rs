//! The tokenizer: what it refuses, and that text survives the way there and back.

mod support;

use std::sync::LazyLock;

use cachalot_chat::{Tokenizer, TokenizerError};
use proptest::prelude::*;
use support::{VOCABULARY_SIZE, tokenizer, tokenizer_json};

/// The built-in tokenizer's file with `edit` made to it.
fn edited(edit: impl Fn(&mut serde_json::Value)) -> Result<Tokenizer, TokenizerError> {
    let mut json = serde_json::from_slice(&tokenizer_json()).expect("the built-in tokenizer is JSON");
    edit(&mut json);
    Tokenizer::from_bytes(json.to_string().as_bytes(), VOCABULARY_SIZE)
}

#[test]
fn wrong_files_are_refused() {
    use TokenizerError::*;
    let refused = |edit: &dyn Fn(&mut serde_json::Value)| edited(edit).expect_err("an edited file");
    assert!(matches!(Tokenizer::from_bytes(b"", 8), Err(Unreadable { .. })));
    assert!(matches!(
        Tokenizer::from_bytes(b"{\"model\": {\"type\": \"BPE\"}}", 8),
        Err(Unreadable { .. })
    ));
    assert!(matches!(
        refused(&|json| json["model"]["type"] = "WordPiece".into()),
        Unsupported { part: "model", found, .. } if found == "WordPiece"
    ));
    assert!(matches!(
        refused(&|json| json["model"]["continuing_subword_prefix"] = "##".into()),
        Unsupported { part: "model", .. }
    ));
    assert!(matches!(
        refused(&|json| json["decoder"] = serde_json::Value::Null),
        Unsupported { part: "decoder", .. }
    ));
    assert_eq!(
        refused(&|json| json["model"]["vocab"]["stray"] = VOCABULARY_SIZE.into()),
        OutsideVocabulary {
            token: "stray".into(),
            id: 2048,
            vocabulary_size: 2048
        }
    );
    let without_eos = String::from_utf8(tokenizer_json())
        .unwrap()
        .replace("<｜end▁of▁sentence｜>", "<eos>");
    assert_eq!(
        Tokenizer::from_bytes(without_eos.as_bytes(), VOCABULARY_SIZE).unwrap_err(),
        MissingSpecialTokens {
            names: vec!["<｜end▁of▁sentence｜>".into()]
        }
    );
    assert_eq!(
        Tokenizer::from_bytes(&tokenizer_json(), 1 << 30).unwrap_err(),
        VocabularyTooLarge {
            vocabulary_size: 1 << 30
        }
    );
}

#[test]
fn model_may_have_more_rows_than_tokens() {
    let tokenizer = Tokenizer::from_bytes(&tokenizer_json(), VOCABULARY_SIZE + 100).unwrap();
    assert_eq!(tokenizer.vocabulary_size(), VOCABULARY_SIZE + 100);
    assert_eq!(tokenizer.token_bytes(VOCABULARY_SIZE as u32 + 5), "⟨2053⟩".as_bytes());
    assert_eq!(tokenizer.token_bytes(u32::MAX), b"");
    assert!(!tokenizer.is_special(u32::MAX));
    let hi = tokenizer.encode_plain("Hi").unwrap();
    assert_eq!(
        tokenizer.decode(&[hi.clone(), vec![VOCABULARY_SIZE as u32 + 5]].concat()),
        "Hi⟨2053⟩"
    );
}

/// Ids of the built-in tokenizer as its file lists them.
#[test]
fn special_tokens_are_found_by_their_text() {
    let tokenizer = tokenizer();
    for (text, id) in [("<｜User｜>", 3), ("<think>", 6), ("</think>", 7), ("｜DSML｜", 8)] {
        assert_eq!(tokenizer.special_id(text), Some(id));
        assert_eq!(tokenizer.token_bytes(id), text.as_bytes());
        assert!(tokenizer.is_special(id));
        assert_eq!(tokenizer.encode_prompt(text).unwrap(), [id]);
        assert!(
            tokenizer
                .encode_plain(text)
                .unwrap()
                .iter()
                .all(|&id| !tokenizer.is_special(id))
        );
    }
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_id()), (0, 1));
    assert_eq!(tokenizer.special_id("the"), None);
    assert_eq!(tokenizer.special_id("<image>"), None);
}

#[test]
fn padding_and_truncation_of_the_file_are_ignored() {
    let limited = edited(|json| {
        json["truncation"] = serde_json::json!({
            "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0
        });
        json["padding"] = serde_json::json!({
            "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 2,
            "pad_type_id": 0, "pad_token": "x"
        });
    })
    .unwrap();
    let text = "a text of several tokens";
    assert_eq!(limited.encode_prompt(text), tokenizer().encode_prompt(text));
    assert_eq!(limited.encode_plain(text), tokenizer().encode_prompt(text));
}

/// Above a limit the regular expressions would give up in silence and leave the rest of the text in one piece. The
/// signs are the ones for which that happens first.
#[test]
fn runs_are_cut_exactly_or_refused() {
    let tokenizer = tokenizer();
    let end = tokenizer.encode_plain(" y. z").unwrap();
    for run in ["x", " ", "\n", ".", "\u{1}", "\u{E000}", "🤭", "\u{301}", "中"] {
        let ids = tokenizer.encode_plain(&(run.repeat(99_990) + "x y. z")).unwrap();
        assert!(ids.ends_with(&end), "{run:?}");
        let refused = tokenizer.encode_prompt(&(run.repeat(150_000) + "x y. z")).unwrap_err();
        assert!(
            matches!(refused, TokenizerError::PieceTooLong { char_count: 149_999.. }),
            "{run:?}: {refused}"
        );
    }
    assert!(tokenizer.encode_plain(&"x".repeat(1_100_000)).is_err());
}

#[test]
fn small_file_is_whole() {
    let tokenizer = Tokenizer::from_bytes(SMALL.as_bytes(), 6).unwrap();
    assert_eq!(
        tokenizer.encode_prompt("ab<｜end▁of▁sentence｜>  ba").unwrap(),
        [3, 5, 4, 4, 2, 1]
    );
}

proptest! {
    #[test]
    fn text_survives(text in "\\PC{0,40}|[ \\n\\ra-c0-9<>/｜]{0,40}|(<｜User｜>|</think>|é| |🤭|\n){0,12}") {
        let tokenizer = tokenizer();
        let plain = tokenizer.encode_plain(&text).unwrap();
        prop_assert!(plain.iter().all(|&id| !tokenizer.is_special(id)));
        prop_assert_eq!(tokenizer.decode(&plain), text.clone());
        prop_assert_eq!(tokenizer.decode(&tokenizer.encode_prompt(&text).unwrap()), text);
    }

    #[test]
    fn decoding_one_by_one_equals_decoding_at_once(ids in proptest::collection::vec(0u32..2100, 0..40)) {
        let tokenizer = tokenizer();
        let mut stream = tokenizer.stream();
        let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
        text += &stream.finish();
        prop_assert_eq!(&text, &tokenizer.decode(&ids));
        static REFERENCE: LazyLock<tokenizers::Tokenizer> =
            LazyLock::new(|| tokenizers::Tokenizer::from_bytes(tokenizer_json()).unwrap());
        prop_assert_eq!(text, REFERENCE.decode(&ids, false).unwrap());
    }

    #[test]
    fn damaged_files_do_not_panic(cuts in proptest::collection::vec((0usize..1500, 0usize..12, "[\\[\\]{}:,\"a0-9-]{0,3}"), 1..4)) {
        let mut json = SMALL.as_bytes().to_vec();
        for (at, len, with) in cuts {
            let at = at.min(json.len());
            let end = (at + len).min(json.len());
            json.splice(at..end, with.bytes());
        }
        if let Ok(tokenizer) = Tokenizer::from_bytes(&json, 16) {
            let ids = tokenizer.encode_prompt("ab<｜end▁of▁sentence｜>  ba").unwrap_or_default();
            tokenizer.decode(&ids);
        }
    }
}

/// A whole tokenizer with the parts of DeepSeek's.
const SMALL: &str = r#"{"version": "1.0", "truncation": null, "padding": null,
"added_tokens": [{"id": 0, "content": "<｜begin▁of▁sentence｜>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
{"id": 5, "content": "<｜end▁of▁sentence｜>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": true, "special": true}],
"normalizer": {"type": "Sequence", "normalizers": []}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
{"type": "Split", "pattern": {"Regex": "[a-b]+|\\s+(?!\\S)"}, "behavior": "Isolated", "invert": false},
{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]},
"post_processor": null, "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
"model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
"fuse_unk": false, "byte_fallback": false, "vocab": {"<｜begin▁of▁sentence｜>": 0, "a": 1, "b": 2, "ab": 3, "Ġ": 4, "<｜end▁of▁sentence｜>": 5}, "merges": ["a b"]}}"#;
