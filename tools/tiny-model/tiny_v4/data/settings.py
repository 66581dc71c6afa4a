"""What differs between the documents to train on and the documents to measure with."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Sequence

from ..prompt import Document, Message, Schema, render

SYSTEM_PROMPTS = [
    None,
    None,
    None,
    None,
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are a kind assistant. Answer in short sentences.",
]


@dataclass(frozen=True)
class DataSettings:
    effort_weights: tuple[float, float, float]
    """Chances of no, the high and the max effort prefix in a thinking conversation."""
    sum_digits: tuple[int, ...]
    """Digit counts that the operands of a sum are drawn from."""
    made_name_share: float
    """Share of made-up names in the lists to copy."""
    asks_again: bool
    """Whether a recall text is followed by several questions: more answer tokens for the same reading."""
    holds_out_tools: bool
    """Whether the invented tools avoid the held-out names."""


# Measuring and the tokenizer: every document shows the plain task.
PLAIN = DataSettings((0.8, 0.15, 0.05), (1, 2, 2, 2, 3, 3), 0.2, asks_again=False, holds_out_tools=False)
# Training: fewer long prefixes, more of what is hard, more answers a token read.
TRAINING = DataSettings((0.88, 0.08, 0.04), (1, 2, 2, 3, 3, 3), 0.35, asks_again=True, holds_out_tools=True)


def conversation(
    rng: Random,
    settings: DataSettings,
    messages: Sequence[Message],
    thinking: bool,
    tools: Sequence[Schema] | None = None,
) -> Document:
    """Renders the messages with a random effort prefix and system prompt."""
    effort = None
    if thinking:
        effort = rng.choices([None, "high", "max"], settings.effort_weights)[0]
    return render(messages, tools, thinking, effort, rng.choice(SYSTEM_PROMPTS))
