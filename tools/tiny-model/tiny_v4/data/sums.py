"""Sums with digit-by-digit reasoning, and word problems that lead to such sums."""

from __future__ import annotations

from random import Random

from ..prompt import Assistant, Document, User
from .settings import DataSettings, conversation
from .words import FOODS, NAMES, THINGS, number_pair


def digits_from_right(value: int, count: int) -> list[int]:
    return [value // 10**i % 10 for i in range(count)]


def addition_steps(a: int, b: int) -> str:
    carry, steps = 0, []
    count = max(len(str(a)), len(str(b)))
    for x, y in zip(digits_from_right(a, count), digits_from_right(b, count)):
        total = x + y + carry
        step = f"{x}+{y}" + (f"+{carry}" if carry else "") + f"={total}, write {total % 10}"
        carry = total // 10
        steps.append(step + (f" carry {carry}" if carry else ""))
    if carry:
        steps.append(f"write {carry}")
    return "; ".join(steps) + f". So {a}+{b}={a + b}."


def subtraction_steps(a: int, b: int) -> str:
    """Wants a >= b: the model knows no negative results."""
    borrow, steps = 0, []
    count = len(str(a))
    for x, y in zip(digits_from_right(a, count), digits_from_right(b, count)):
        difference = x - y - borrow
        step = f"{x}-{y}" + (f"-{borrow}" if borrow else "")
        borrow = int(difference < 0)
        digit = difference % 10
        steps.append(f"{step}, borrow, write {digit}" if borrow else f"{step}={digit}, write {digit}")
    return "; ".join(steps) + f". So {a}-{b}={a - b}."


def product_steps(a: int, b: int) -> str:
    """Multiplies each digit of `a` with the one-digit `b`, then adds the parts."""
    parts, steps = [], []
    for i, digit in enumerate(digits_from_right(a, len(str(a)))):
        value = digit * 10**i
        if value or a < 10:
            steps.append(f"{value}*{b}={value * b}")
            parts.append(value * b)
    total = parts[0]
    for part in parts[1:]:
        steps.append(f"{total}+{part}={total + part}")
        total += part
    return "; ".join(steps) + f". So {a}*{b}={a * b}."


def sum_document(rng: Random, settings: DataSettings, held: bool = False) -> Document:
    """`a + b`, `a - b` or `a * b`; reasoning always when a number is above 20."""
    operation = rng.choice(settings.operations)
    if operation == "*":
        first = rng.choice(((1, 9), (10, 99)))
        a, b = number_pair(rng, first, (2, 9), held)
        result, reasoning, word, sign = a * b, product_steps(a, b), "times", rng.choice("*x")
    else:
        first, second = (digit_range(rng.choice(settings.sum_digits)) for _ in range(2))
        a, b = number_pair(rng, first, second, held)
        if operation == "+":
            result, reasoning, word, sign = a + b, addition_steps(a, b), "plus", "+"
        else:
            a, b = max(a, b), min(a, b)
            result, reasoning, word, sign = a - b, subtraction_steps(a, b), "minus", "-"
    question = rng.choice(
        [
            f"What is {a} {sign} {b}?",
            f"{a} {sign} {b} = ?",
            f"What is {a} {word} {b}?",
            f"Calculate {a} {sign} {b}.",
            f"{a}{sign}{b}",
            f"How much is {a} {sign} {b}?",
        ]
    )
    answer = rng.choice([f"{a} {operation} {b} = {result}."])
    thinking = rng.random() < 0.85 or a > 20 or b > 20
    return conversation(rng, settings, [User(question), Assistant(answer, reasoning if thinking else None)], thinking)


def digit_range(digit_count: int) -> tuple[int, int]:
    return 10 ** (digit_count - 1), 10**digit_count - 1


def word_problem_document(rng: Random, settings: DataSettings, held: bool = False) -> Document:
    """Getting, losing, boxes, together, or who has more; always with reasoning."""
    one, other = rng.sample(NAMES, 2)
    thing = rng.choice(FOODS + THINGS)
    story = WORD_PROBLEMS[rng.choice(settings.word_problems)]
    question, reasoning, answer = story(rng, held, one, other, thing)
    return conversation(rng, settings, [User(question), Assistant(answer, reasoning)], True)


def _getting(rng: Random, held: bool, one: str, other: str, thing: str) -> tuple[str, str, str]:
    a, b = number_pair(rng, (2, 99), (2, 60), held)
    event = rng.choice([f"{other} gives {one} {b} more.", f"{one} finds {b} more.", f"{one} buys {b} more."])
    question = f"{one} has {a} {thing}. {event} How many {thing} does {one} have now?"
    return question, f"{one} has {a} and gets {b} more. {addition_steps(a, b)}", f"{one} has {a + b} {thing} now."


def _losing(rng: Random, held: bool, one: str, other: str, thing: str) -> tuple[str, str, str]:
    a, b = number_pair(rng, (20, 99), (2, 19), held)
    event = rng.choice([f"{one} gives {b} to {other}.", f"{one} loses {b}.", f"{one} sells {b}."])
    question = f"{one} has {a} {thing}. {event} How many {thing} are left?"
    return question, f"{one} has {a} and {b} go away. {subtraction_steps(a, b)}", f"There are {a - b} {thing} left."


def _boxes(rng: Random, held: bool, one: str, other: str, thing: str) -> tuple[str, str, str]:
    a, b = number_pair(rng, (2, 30), (2, 9), held)
    question = f"There are {b} boxes with {a} {thing} each. How many {thing} are there in all?"
    return question, f"{b} boxes with {a} each. {product_steps(a, b)}", f"There are {a * b} {thing} in all."


def _together(rng: Random, held: bool, one: str, other: str, thing: str) -> tuple[str, str, str]:
    a, b = number_pair(rng, (2, 99), (2, 99), held)
    question = f"{one} has {a} {thing} and {other} has {b} {thing}. How many {thing} do they have together?"
    reasoning = f"{one} has {a} and {other} has {b}. {addition_steps(a, b)}"
    return question, reasoning, f"Together they have {a + b} {thing}."


def _comparing(rng: Random, held: bool, one: str, other: str, thing: str) -> tuple[str, str, str]:
    a, b = number_pair(rng, (2, 99), (2, 99), held)
    if a == b:
        b += 1
    question = f"{one} has {a} {thing} and {other} has {b} {thing}. Who has more?"
    winner = one if a > b else other
    reasoning = f"{max(a, b)} is more than {min(a, b)}. {winner} has {max(a, b)}."
    return question, reasoning, f"{winner} has more {thing}."


WORD_PROBLEMS = {
    "getting": _getting,
    "losing": _losing,
    "boxes": _boxes,
    "together": _together,
    "comparing": _comparing,
}
