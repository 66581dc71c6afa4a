"""What differs between the documents to train on and the documents to measure with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

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
    odd_share: float
    """Share of odd syllables among the made-up names."""
    operations: str
    """What the kind of a sum is drawn from."""
    word_problems: tuple[str, ...]
    """What the kind of a word problem is drawn from."""
    asks_again: bool
    """Whether a recall text is followed by several questions: more answer tokens for the same reading."""
    holds_out_tools: bool
    """Whether the invented tools avoid the held-out names."""


# Measuring and the tokenizer: every document shows the plain task.
PLAIN = DataSettings(
    effort_weights=(0.8, 0.15, 0.05),
    sum_digits=(1, 2, 2, 2, 3, 3),
    operations="++--*",
    word_problems=("getting", "losing", "boxes", "together", "comparing"),
    made_name_share=0.2,
    odd_share=0.0,
    asks_again=False,
    holds_out_tools=False,
)
# Training: fewer long prefixes, more of what is hard, more answers a token read.
TRAINING = DataSettings(
    effort_weights=(0.88, 0.08, 0.04),
    sum_digits=(1, 2, 2, 3, 3, 3),
    operations="++---***",
    word_problems=("getting", "losing", "boxes", "boxes", "together", "comparing", "comparing"),
    made_name_share=0.4,
    odd_share=0.5,
    asks_again=True,
    holds_out_tools=True,
)


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
