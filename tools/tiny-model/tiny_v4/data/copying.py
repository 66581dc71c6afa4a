"""Lists of words to repeat, to reverse, or to take the ends of."""

from __future__ import annotations

from random import Random

from ..prompt import Assistant, Document, User
from .settings import DataSettings, conversation
from .words import ANIMALS, COLORS, FOODS, NAMES, OBJECTS, PLACES, made_name

POOL = OBJECTS + FOODS + ANIMALS + COLORS + NAMES + PLACES


def copying_document(rng: Random, settings: DataSettings, held: bool = False) -> Document:
    """Half of the tasks repeat the list; the words are partly made up, so that they can only be copied."""
    task = rng.choice(("repeat", "repeat", "repeat", "first", "last", "reverse"))
    count = rng.randint(3, 14) if task == "repeat" else rng.randint(2, 8)
    words = [
        made_name(rng, settings.odd_share) if rng.random() < settings.made_name_share else rng.choice(POOL)
        for _ in range(count)
    ]
    listed = ", ".join(words)
    match task:
        case "repeat":
            answer = " ".join(words)
            question = rng.choice([f"Repeat: {answer}", f"Say this again: {answer}", f"Repeat after me: {answer}"])
        case "first":
            question, answer = f"What is the first word of this list: {listed}?", words[0]
        case "last":
            question, answer = f"What is the last word of this list: {listed}?", words[-1]
        case _:
            question, answer = f"Write this list in reverse order: {listed}", ", ".join(reversed(words))
    return conversation(rng, settings, [User(question), Assistant(answer)], False)
