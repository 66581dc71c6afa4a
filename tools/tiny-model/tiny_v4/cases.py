"""The evaluation cases: a prompt and the one right continuation each, as JSON lines.

Values are held out of training: number pairs, cities, verb and noun of the invented tools; recall texts and lists to
copy are new. Greedy decoding of the prompt must give exactly `expected` and then the end-of-sentence token.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random

from .data.copying import copying_document
from .data.facts import SMALL_TALK
from .data.questions import question_document
from .data.recall import recall_document
from .data.settings import PLAIN
from .data.sums import sum_document, word_problem_document
from .data.tools import SCHEMAS, tool_document
from .data.unseen_tools import unseen_tool_document
from .prompt import END, THINK, Document, Role

SEED = 20261
RECALL_LENGTHS = {
    "recall_160": (110, 40),
    "recall_330": (300, 40),
    "recall_1000": (1000, 30),
    "recall_3500": (3500, 20),
}
"""Length to ask the generator for, and count; the names say what comes out in tokens, question included."""


@dataclass(frozen=True)
class Case:
    kind: str
    prompt: str
    """Rendered text with its special tokens."""
    expected: str
    """What the assistant writes, reasoning included, without the end-of-sentence token."""


def all_cases(seed: int = SEED) -> list[Case]:
    rng = Random(seed)
    seen: set[str] = set()

    def draw(kind: str, count: int, documents: Callable[[], Document], turns: slice = slice(-1, None)) -> list[Case]:
        """Distinct cases of the last answer of each document, or of all its answers."""
        found: list[Case] = []
        while len(found) < count:
            for prompt, expected in list(answers(documents()))[turns]:
                if prompt not in seen and len(found) < count:
                    seen.add(prompt)
                    found.append(Case(kind, prompt, expected))
        return found

    every_turn = slice(None)
    cases = draw("facts", 80, partial(first_where, has_one_answer, partial(question_document, rng, PLAIN)))
    cases += draw("sums", 80, partial(first_where, reasons, partial(sum_document, rng, PLAIN, True)))
    cases += draw("word_problems", 80, partial(word_problem_document, rng, PLAIN, True))
    cases += draw("copying", 80, partial(copying_document, rng, PLAIN))
    for name in SCHEMAS:
        cases += draw(f"tool_{name}", 20, partial(tool_document, rng, PLAIN, True, name), every_turn)
    cases += draw("unseen_tools", 40, partial(unseen_tool_document, rng, PLAIN, True), every_turn)
    for kind, (length, count) in RECALL_LENGTHS.items():
        cases += draw(kind, count, partial(recall_document, rng, PLAIN, length=length))
    return cases


def answers(document: Document) -> Iterator[tuple[str, str]]:
    """Prompt and continuation of every answer in a document."""
    for i, (text, role) in enumerate(document):
        if role == Role.ANSWER:
            yield "".join(segment.text for segment in document[:i]), text.removesuffix(END)


def first_where(accepts: Callable[[Document], bool], documents: Callable[[], Document]) -> Document:
    while not accepts(document := documents()):
        pass
    return document


def has_one_answer(document: Document) -> bool:
    """Small talk has several good answers, of which training draws one."""
    loose = [answer for talk in SMALL_TALK for answer in talk.answers]
    return not any(answer in segment.text for segment in document for answer in loose)


def reasons(document: Document) -> bool:
    return any(THINK in segment.text for segment in document)


def write_cases(path: Path, cases: list[Case]) -> None:
    path.write_text("".join(json.dumps(asdict(case), ensure_ascii=False) + "\n" for case in cases))


def read_cases(path: Path) -> list[Case]:
    return [Case(**json.loads(line)) for line in path.read_text().splitlines()]
