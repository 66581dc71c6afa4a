"""Rows of packed documents with a loss weight for every position."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .data import mixture
from .data.recall import recall_document
from .data.settings import TRAINING
from .prompt import PAD_ID, Role
from .tokenizer import Tokenizer

PROMPT_WEIGHT = 0.1
PROMPT_SHARE = 0.15
"""Share of the prompt tokens that count at all: the output head works on the others for nothing."""
DOCUMENT_ALIGNMENT = 4
"""So that no entry of the compressed sparse attention mixes two documents."""
POOL = 48
"""Documents waiting for a gap that fits them."""
SMALLEST_GAP = 24


class Batch(NamedTuple):
    ids: Tensor
    documents: Tensor
    """Document number of each position, -1 in gaps."""
    weights: Tensor
    """Loss weight of predicting the next token from here."""
    kinds: Tensor
    """Index into mixture.KINDS, -1 in gaps."""

    def targets(self) -> Tensor:
        return torch.roll(self.ids, -1, 1)


class Packer:
    """Draws documents of a mixture and packs them into rows of `length` tokens.

    With `long_share`, that part of the documents are recall texts of one of `long_lengths` instead.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        seed: int,
        length: int,
        shares: Mapping[str, float],
        long_lengths: tuple[int, ...] = (),
        long_share: float = 0.0,
    ) -> None:
        self.tokenizer, self.length, self.shares = tokenizer, length, shares
        self.long_lengths, self.long_share = long_lengths, long_share
        self.rng, self.prompt_rng = Random(seed), Random(seed + 1)
        self.pool: list[tuple[list[int], list[Role], str]] = []

    def batch(self, rows: int) -> Batch:
        return Batch(*(torch.from_numpy(np.stack(column)) for column in zip(*(self._row() for _ in range(rows)))))

    def _row(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        ids, documents = np.full(self.length, PAD_ID, np.int64), np.full(self.length, -1, np.int64)
        weights, kinds = np.zeros(self.length, np.float32), np.full(self.length, -1, np.int64)
        start, number = 0, 0
        while self.length - start >= SMALLEST_GAP:
            while len(self.pool) < POOL:
                self.pool.append(self._document())
            fitting = (i for i, (tokens, _, _) in enumerate(self.pool) if len(tokens) <= self.length - start)
            index = next(fitting, None)
            if index is None:
                break
            tokens, roles, kind = self.pool.pop(index)
            end = start + len(tokens)
            ids[start:end], documents[start:end], kinds[start:end] = tokens, number, mixture.KINDS.index(kind)
            weights[start : end - 1] = [self._weight(role, kind) for role in roles][1:]
            start = -(-end // DOCUMENT_ALIGNMENT) * DOCUMENT_ALIGNMENT
            number += 1
        return ids, documents, weights, kinds

    def _document(self) -> tuple[list[int], list[Role], str]:
        """Documents that are longer than a row are drawn again."""
        while True:
            if self.long_share and self.rng.random() < self.long_share:
                document = recall_document(self.rng, TRAINING, length=self.rng.choice(self.long_lengths))
                kind = "recall"
            else:
                document, kind = mixture.draw(self.rng, TRAINING, self.shares)
            ids, roles = self.tokenizer.encode_document(document)
            if len(ids) <= self.length:
                return ids, roles, kind

    def _weight(self, role: Role, kind: str) -> float:
        if role == Role.ANSWER:
            return mixture.ANSWER_WEIGHTS[kind]
        return PROMPT_WEIGHT if role == Role.PROMPT and self.prompt_rng.random() < PROMPT_SHARE else 0.0
