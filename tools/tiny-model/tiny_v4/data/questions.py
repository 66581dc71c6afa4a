"""Questions that the model answers from memory: the facts, the small tables and small talk."""

from __future__ import annotations

from random import Random

from ..prompt import Assistant, Document, Message, User
from .facts import CAPITALS, FACTS, OPPOSITES, SMALL_TALK, SOUNDS
from .settings import DataSettings, conversation
from .words import DAYS, MONTHS

Asked = tuple[str, str, str]
"""Question, answer, reasoning."""


def question_document(rng: Random, settings: DataSettings, held: bool = False) -> Document:
    """One question, sometimes written carelessly, and up to two more after it."""
    x = rng.random()
    thinking = rng.random() < 0.4
    if x < 0.6:
        fact = rng.choice(FACTS)
        question, answer, reasoning = rng.choice(fact.questions), fact.answers[0], fact.reasoning
    elif x < 0.75:
        talk = rng.choice(SMALL_TALK)
        question, answer, reasoning = rng.choice(talk.questions), rng.choice(talk.answers), talk.reasoning
    else:
        question, answer, reasoning = _from_table(rng, x)
    if not held and rng.random() < 0.15:
        question = rng.choice(
            [
                question.lower(),
                question.rstrip("?.!"),
                "Please tell me: " + question,
                "I have a question. " + question,
            ]
        )
    messages: list[Message] = [User(question), Assistant(answer, reasoning if thinking else None)]
    while rng.random() < 0.25 and len(messages) < 6:
        more = rng.choice(SMALL_TALK) if rng.random() < 0.4 else rng.choice(FACTS)
        messages.append(User(rng.choice(more.questions)))
        messages.append(Assistant(rng.choice(more.answers), more.reasoning if thinking else None))
    return conversation(rng, settings, messages, thinking)


def _from_table(rng: Random, x: float) -> Asked:
    if x < 0.82:
        country = rng.choice(list(CAPITALS))
        question = rng.choice(
            [
                f"What is the capital of {country}?",
                f"Which city is the capital of {country}?",
                f"Tell me the capital of {country}.",
            ]
        )
        city = CAPITALS[country]
        reasoning = f"The user asks about {country}. Its capital is {city}."
        return question, f"The capital of {country} is {city}.", reasoning
    if x < 0.87:
        word = rng.choice(list(OPPOSITES))
        question = rng.choice([f"What is the opposite of {word}?", f"Tell me the opposite of {word}."])
        answer = f"The opposite of {word} is {OPPOSITES[word]}."
        return question, answer, answer
    if x < 0.9:
        animal = rng.choice(list(SOUNDS))
        question = rng.choice([f"What sound does a {animal} make?", f"What does a {animal} do?"])
        answer = f"A {animal} {SOUNDS[animal]}."
        return question, answer, answer
    return _in_calendar(rng, "day", DAYS) if x < 0.95 else _in_calendar(rng, "month", MONTHS)


def _in_calendar(rng: Random, unit: str, names: list[str]) -> Asked:
    i = rng.randrange(len(names))
    relation, step = ("after", 1) if rng.random() < 0.5 else ("before", -1)
    answer = f"{names[(i + step) % len(names)]} comes {relation} {names[i]}."
    return f"What {unit} comes {relation} {names[i]}?", answer, answer
