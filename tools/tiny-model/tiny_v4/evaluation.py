"""Exact match on the evaluation cases, and samples.

With the right answer fed in, greedy decoding gives exactly that answer if and only if the arg-max is right at every
one of its positions: one forward pass measures the same as decoding.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from .cases import Case
from .data.tools import SCHEMAS
from .model import TinyV4
from .prompt import BEGIN, END_ID, PAD_ID, Assistant, ToolCall, ToolResults, User, open_prompt
from .tokenizer import Tokenizer

BATCH_TOKENS = 8192


@dataclass
class Score:
    exact: int = 0
    cases: int = 0
    tokens_right: int = 0
    tokens: int = 0
    prompt_tokens: int = 0


def padded(length: int, window: int) -> int:
    return -(-length // window) * window


def as_row(ids: list[int], length: int) -> Tensor:
    return torch.tensor(ids + [PAD_ID] * (length - len(ids)))


@torch.no_grad()
def measure(model: TinyV4, tokenizer: Tokenizer, cases: list[Case]) -> dict[str, Score]:
    """Scores by kind, in the order of the cases; tokens are those of the answers, end of sentence included."""
    scores: dict[str, Score] = {case.kind: Score() for case in cases}
    encoded = [(case, tokenizer.encode(case.prompt), [*tokenizer.encode(case.expected), END_ID]) for case in cases]
    by_length = defaultdict(list)
    for item in encoded:
        by_length[padded(len(item[1]) + len(item[2]), model.config.window)].append(item)
    for length, items in by_length.items():
        rows = max(1, BATCH_TOKENS // length)
        for start in range(0, len(items), rows):
            group = items[start : start + rows]
            best = model(torch.stack([as_row(prompt + answer, length) for _, prompt, answer in group])).argmax(-1)
            for (case, prompt, answer), row in zip(group, best):
                predicted = row[len(prompt) - 1 : len(prompt) + len(answer) - 1].tolist()
                right = sum(p == a for p, a in zip(predicted, answer))
                score = scores[case.kind]
                score.exact += right == len(answer)
                score.cases += 1
                score.tokens_right += right
                score.tokens += len(answer)
                score.prompt_tokens += len(prompt)
    return scores


def table(scores: dict[str, Score]) -> str:
    """As Markdown."""
    lines = ["| kind | cases | mean prompt tokens | exact | answer tokens right |", "|---|---:|---:|---:|---:|"]
    for kind, score in scores.items():
        lines.append(
            f"| {kind} | {score.cases} | {score.prompt_tokens / score.cases:.0f} | {score.exact / score.cases:.1%} "
            f"| {score.tokens_right / score.tokens:.2%} |"
        )
    return "\n".join(lines)


@torch.no_grad()
def generate(model: TinyV4, tokenizer: Tokenizer, prompt: str, token_count_max: int, temperature: float = 0.0) -> str:
    """Without a cache: for samples only."""
    ids = tokenizer.encode(prompt)
    prompt_length = len(ids)
    while len(ids) < prompt_length + token_count_max and ids[-1] != END_ID:
        row = as_row(ids, padded(len(ids), model.config.window))
        logits = model(row.unsqueeze(0))[0, len(ids) - 1]
        if temperature == 0:
            ids.append(int(logits.argmax()))
        else:
            ids.append(int(torch.multinomial(torch.softmax(logits / temperature, -1), 1)))
    return tokenizer.decode(ids[prompt_length:])


def sample_prompts() -> list[str]:
    weather, timer = SCHEMAS["get_weather"], SCHEMAS["set_timer"]
    asked = User("What is the weather in Krakow?")
    called = Assistant("", calls=(ToolCall("get_weather", {"city": "Krakow"}),))
    result = ToolResults(('{"city": "Krakow", "temperature": 7, "sky": "rainy"}',))
    return [
        BEGIN + "Once upon a time",
        open_prompt([User("Who are you?")]),
        open_prompt([User("What is the HBM size of the H200?")], thinking=True),
        open_prompt([User("what is moe")]),
        open_prompt([User("What is 347 + 285?")], thinking=True),
        open_prompt([User("How much is 902 - 467?")], thinking=True),
        open_prompt(
            [User("Lily has 37 shells. Lily finds 25 more. How many shells does Lily have now?")], thinking=True
        ),
        open_prompt([asked], [weather, timer]),
        open_prompt([asked, called, result], [weather, timer]),
    ]
