"""Finding notes in a long text: the task that the compressed sparse attention exists for."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from ..prompt import Assistant, Document, Message, User
from .facts import FACTS
from .settings import DataSettings, conversation
from .stories import story
from .words import ANIMALS, COLORS, FOODS, NAMES, OBJECTS, PLACES, SKIES

Asked = tuple[str, str, str]
"""Question, answer, reasoning."""

# Plain and training lengths of the text in tokens.
LENGTHS = (60, 120, 200, 300, 300, 400)
TRAINING_LENGTHS = (60, 60, 90, 120, 200, 300, 400)
TOKENS_PER_WORD = 1.3


def recall_document(rng: Random, settings: DataSettings, held: bool = False, length: int | None = None) -> Document:
    """Notes hidden among filler text of about `length` tokens, then a question about one of them.

    Objects, secret words and room numbers come as several notes, one for each person; the magic number is a single
    needle. In training more notes are asked for: the text is read once either way.
    """
    if length is None:
        length = rng.choice(TRAINING_LENGTHS if settings.asks_again else LENGTHS)
    # The needle is easy, so training shows it less.
    kind = rng.choice((0, 0, 0, 1, 1, 2, 2, 2, 3)) if settings.asks_again else rng.randrange(4)
    needle = kind == 3
    ask: Callable[[str], Asked] | None = None
    names: list[str] = []
    if needle:
        notes, first = _magic_number(rng)
    else:
        tokens_per_note = rng.choice((40, 14)) if settings.asks_again else 40
        names = rng.sample(NAMES, max(2, min(40, length // tokens_per_note)))
        notes, ask = (_kept_objects, _secret_words, _room_numbers)[kind](rng, names)
        first = ask(rng.choice(names))
    text = _hide(rng, notes, length, needle)
    question, answer, reasoning = first
    asking = rng.choice(
        [
            f"Read this text:\n{text}\n\n{question}",
            f"{text}\n\nQuestion: {question}",
            f"Here are some notes.\n{text}\n{question}",
        ]
    )
    thinking = rng.random() < 0.3
    messages: list[Message] = [User(asking), Assistant(answer, reasoning if thinking else None)]
    if settings.asks_again and ask is not None and rng.random() < 0.85:
        for name in rng.sample(names, min(len(names), 1 + len(names) // 3 + rng.randrange(3))):
            question, answer, reasoning = ask(name)
            messages += [User(question), Assistant(answer, reasoning if thinking else None)]
    return conversation(rng, settings, messages, thinking)


def _kept_objects(rng: Random, names: list[str]) -> tuple[list[str], Callable[[str], Asked]]:
    kept = {name: (rng.choice(COLORS), rng.choice(OBJECTS), rng.choice(PLACES)) for name in names}

    def ask(name: str) -> Asked:
        color, thing, place = kept[name]
        answer = f"{name} keeps the {color} {thing} in the {place}."
        return rng.choice(
            [
                (
                    f"Where does {name} keep the {color} {thing}?",
                    answer,
                    f"The text says {name} keeps it in the {place}.",
                ),
                (
                    f"What does {name} keep in the {place}?",
                    answer,
                    f"The text says {name} keeps the {color} {thing} there.",
                ),
            ]
        )

    notes = [f"{name} keeps the {color} {thing} in the {place}." for name, (color, thing, place) in kept.items()]
    return notes, ask


def _secret_words(rng: Random, names: list[str]) -> tuple[list[str], Callable[[str], Asked]]:
    words = {name: rng.choice(OBJECTS + FOODS + ANIMALS) for name in names}

    def ask(name: str) -> Asked:
        answer = f"The secret word of {name} is {words[name]}."
        return f"What is the secret word of {name}?", answer, f"I look for {name}. The word is {words[name]}."

    return [f"The secret word of {name} is {word}." for name, word in words.items()], ask


def _room_numbers(rng: Random, names: list[str]) -> tuple[list[str], Callable[[str], Asked]]:
    rooms = {name: rng.randint(10, 99) for name in names}

    def ask(name: str) -> Asked:
        question = rng.choice([f"What is the room number of {name}?", f"Which room does {name} have?"])
        answer = f"The room of {name} is number {rooms[name]}."
        return question, answer, f"I look for {name}. The number is {rooms[name]}."

    return [f"The room of {name} is number {room}." for name, room in rooms.items()], ask


def _magic_number(rng: Random) -> tuple[list[str], Asked]:
    number = rng.randint(1000, 9999)
    question = rng.choice(["What is the magic number?", "Tell me the magic number."])
    first = question, f"The magic number is {number}.", f"The text says the magic number is {number}."
    return [f"The magic number is {number}. Remember it."], first


def _hide(rng: Random, notes: list[str], length: int, needle: bool) -> str:
    """Inserts filler until the text has about `length` tokens."""
    used = sum(len(note.split()) * TOKENS_PER_WORD for note in notes)
    parts = list(notes)
    while used < length:
        extra = filler(rng)
        size = len(extra.split()) * TOKENS_PER_WORD
        if used + size > length * 1.15 and used > length * 0.7:
            break
        parts.insert(rng.choice((0, len(parts))) if needle else rng.randrange(len(parts) + 1), extra)
        used += size
    if not needle and rng.random() < 0.5:
        rng.shuffle(parts)
    return rng.choice((" ", "\n")).join(parts)


def filler(rng: Random) -> str:
    """A story, a few loose sentences or a known fact."""
    x = rng.random()
    if x < 0.4:
        return story(rng)
    if x < 0.7:
        name, place = rng.choice(NAMES), rng.choice(PLACES)
        return " ".join(
            rng.choice(
                [
                    f"{name} went to the {place}.",
                    f"The {rng.choice(ANIMALS)} sat near the {place}.",
                    f"It was {rng.choice(SKIES)} that day.",
                    f"A {rng.choice(COLORS)} {rng.choice(OBJECTS)} lay on the table.",
                    f"They ate {rng.choice(FOODS)} in the {place}.",
                ]
            )
            for _ in range(rng.randint(2, 5))
        )
    return rng.choice(FACTS).answers[0]
