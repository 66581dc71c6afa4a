"""Which kinds of documents there are, and how often each is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from ..prompt import Document
from .copying import copying_document
from .questions import question_document
from .recall import recall_document
from .settings import DataSettings
from .stories import story_document
from .sums import sum_document, word_problem_document
from .tools import tool_document
from .unseen_tools import unseen_tool_document

GENERATORS: dict[str, Callable[..., Document]] = {
    "story": story_document,
    "sum": sum_document,
    "word_problem": word_problem_document,
    "question": question_document,
    "tool": tool_document,
    "recall": recall_document,
    "copying": copying_document,
    "unseen_tool": unseen_tool_document,
}
KINDS = list(GENERATORS)

# Shares of documents, not of tokens: a tool document has 420 tokens, a copying one 35.
SHORT_ROWS = {
    "story": 0.05,
    "sum": 0.26,
    "word_problem": 0.17,
    "question": 0.14,
    "tool": 0.09,
    "recall": 0.15,
    "copying": 0.10,
    "unseen_tool": 0.04,
}
LONG_ROWS = {"story": 0.1, "tool": 0.15, "recall": 0.65, "unseen_tool": 0.1}
# What the tokenizer's merges were counted on.
TOKENIZER = {
    "story": 0.20,
    "sum": 0.20,
    "word_problem": 0.10,
    "question": 0.14,
    "tool": 0.10,
    "recall": 0.10,
    "copying": 0.06,
    "unseen_tool": 0.10,
}

# Loss weight of an answer token: long stories must not drown the short exact answers.
ANSWER_WEIGHTS = {
    "story": 0.2,
    "sum": 1.0,
    "word_problem": 1.0,
    "question": 1.5,
    "tool": 1.5,
    "recall": 3.0,
    "copying": 3.0,
    "unseen_tool": 1.5,
}


def draw(rng: Random, settings: DataSettings, shares: Mapping[str, float]) -> tuple[Document, str]:
    """A document and its kind; kinds missing from `shares` are not drawn."""
    kind = rng.choices(KINDS, [shares.get(kind, 0.0) for kind in KINDS])[0]
    return GENERATORS[kind](rng, settings), kind
