"""Byte-level BPE with DeepSeek's pre-tokenizer; its merges are counted on the generated documents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from .data import mixture
from .data.settings import PLAIN
from .prompt import DSML, EFFORT_PREFIXES, END_THINK, SPECIAL_TOKENS, THINK, TOOLS_HEAD, Document, Role

CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
WORDS_AND_SPACES = (
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
)
DOCUMENTS = 60_000


class Tokenizer:
    def __init__(self, path: Path) -> None:
        self.inner = tokenizers.Tokenizer.from_file(str(path))

    def encode(self, text: str) -> list[int]:
        return self.inner.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        return self.inner.decode(ids, skip_special_tokens=False)

    def encode_document(self, document: Document) -> tuple[list[int], list[Role]]:
        """Token ids and the role of each."""
        ids: list[int] = []
        roles: list[Role] = []
        for text, role in document:
            encoded = self.encode(text)
            ids += encoded
            roles += [role] * len(encoded)
        return ids, roles


def pre_tokenizer(digits: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(digits), "isolated"),
            pre_tokenizers.Split(tokenizers.Regex(CJK), "isolated"),
            pre_tokenizers.Split(tokenizers.Regex(WORDS_AND_SPACES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _texts(seed: int) -> Iterator[str]:
    rng = Random(seed)
    for i in range(DOCUMENTS):
        text = "".join(segment.text for segment in mixture.draw(rng, PLAIN, mixture.TOKENIZER)[0])
        for special in SPECIAL_TOKENS:
            text = text.replace(special, "\n")
        yield text
        if i % 400 == 0:
            yield from EFFORT_PREFIXES.values()
            yield TOOLS_HEAD


def train_tokenizer(path: Path, vocab_size: int, seed: int = 1) -> None:
    """Writes tokenizer.json: special tokens first, then bytes and merges.

    Trained with single digits, so that no digits ever merge: the official pattern of up to three digits, which the
    file gets afterwards, then still gives one token a digit.
    """
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer(r"\p{N}")
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=4,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(seed), trainer)
    content = json.loads(tokenizer.to_str())
    learned = content["model"]["vocab"]
    entries = SPECIAL_TOKENS + sorted(learned, key=learned.get)
    content["model"]["vocab"] = {entry: i for i, entry in enumerate(entries)}
    content["added_tokens"] = [
        {
            "id": i,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            # These three are text to a chat front end, as in the official file.
            "special": token not in (THINK, END_THINK, DSML),
        }
        for i, token in enumerate(SPECIAL_TOKENS)
    ]
    official = tokenizers.Tokenizer.from_str(json.dumps(content))
    official.pre_tokenizer = pre_tokenizer(r"\p{N}{1,3}")
    official.save(str(path))
