"""Conversations with seven fixed tools: call, result, answer; a missing tool; no tool needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from ..prompt import Assistant, Document, Schema, ToolCall, ToolResults, User
from .facts import SMALL_TALK
from .settings import DataSettings, conversation
from .words import (
    ADJECTIVES,
    ANIMALS,
    CITIES,
    COLORS,
    FOODS,
    HELD_OUT_CITIES,
    NAMES,
    OBJECTS,
    SKIES,
    made_name,
    number_pair,
)


def schema(name: str, description: str, /, **properties: str) -> Schema:
    """A JSON schema whose properties are all required; values are the JSON type names."""
    return {
        "name": name,
        "description": description,
        "parameters": {
            "type": "object",
            "properties": {key: {"type": kind} for key, kind in properties.items()},
            "required": list(properties),
        },
    }


SCHEMAS = {
    tool["name"]: tool
    for tool in (
        schema("get_weather", "Get the current weather in a city.", city="string"),
        schema("get_time", "Get the current local time in a city.", city="string"),
        schema("calculator", "Evaluate an arithmetic expression.", expression="string"),
        schema(
            "convert_units",
            "Convert a value from one unit to another.",
            value="number",
            from_unit="string",
            to_unit="string",
        ),
        schema("set_timer", "Set a timer.", minutes="integer"),
        schema("search", "Search the web.", query="string"),
        schema("send_message", "Send a text message to a person.", to="string", text="string"),
    )
}
UNIT_FACTORS = [
    ("miles", "kilometers", 1.61),
    ("kilometers", "miles", 0.62),
    ("pounds", "kilograms", 0.45),
    ("kilograms", "pounds", 2.2),
    ("inches", "centimeters", 2.54),
    ("feet", "meters", 0.3),
    ("hours", "minutes", 60),
    ("liters", "cups", 4.2),
]
MESSAGES = [
    "I will be late",
    "dinner is ready",
    "call me back",
    "the meeting is at noon",
    "happy birthday",
    "see you soon",
    "the train is on time",
    "please buy milk",
]


class Use(NamedTuple):
    """One use of a tool: what is asked, what is called with which reasoning, what comes back and what is said."""

    question: str
    arguments: dict[str, Any]
    reasoning: str
    result: dict[str, Any]
    answer: str
    answer_reasoning: str


def tool_document(rng: Random, settings: DataSettings, held: bool = False, name: str | None = None) -> Document:
    """A conversation about one tool among up to three others; held-out values and always a call when `held`."""
    name = name or rng.choice(list(SCHEMAS))
    others = rng.sample([other for other in SCHEMAS if other != name], rng.choice((0, 0, 1, 1, 2, 3)))
    offered_names = [name, *others]
    rng.shuffle(offered_names)
    offered = [SCHEMAS[offered_name] for offered_name in offered_names]
    if held:
        city = rng.choice(HELD_OUT_CITIES)
    else:
        city = rng.choice(CITIES) if rng.random() < 0.6 else made_name(rng, settings.odd_share)
    use = USES[name](rng, settings, held, city)
    thinking = rng.random() < 0.5
    x = rng.random()
    if not held:
        without = [tool for tool in offered if tool["name"] != name]
        if x < 0.06 and without:
            answer = Assistant("I am sorry, I have no tool for that.", "I have no tool for this." if thinking else None)
            return conversation(rng, settings, [User(use.question), answer], thinking, without)
        if x < 0.12:
            talk = rng.choice(SMALL_TALK)
            question = User(rng.choice(talk.questions))
            reasoning = talk.reasoning + " No tool is needed." if thinking else None
            answer = Assistant(rng.choice(talk.answers), reasoning)
            return conversation(rng, settings, [question, answer], thinking, offered)
    messages = [
        User(use.question),
        Assistant("", use.reasoning if thinking else None, (ToolCall(name, use.arguments),)),
        ToolResults((json.dumps(use.result),)),
        Assistant(use.answer, use.answer_reasoning if thinking else None),
    ]
    return conversation(rng, settings, messages, thinking, offered)


def _get_weather(rng: Random, settings: DataSettings, held: bool, city: str) -> Use:
    question = rng.choice(
        [
            f"What is the weather in {city}?",
            f"How is the weather in {city} today?",
            f"Is it raining in {city}?",
            f"Weather in {city} please.",
            f"Do I need a coat in {city}?",
        ]
    )
    degrees, sky = rng.randint(-9, 38), rng.choice(SKIES)
    return Use(
        question,
        {"city": city},
        f"The user wants the weather in {city}. I call get_weather.",
        {"city": city, "temperature": degrees, "sky": sky},
        f"It is {sky} in {city} with {degrees} degrees.",
        f"The result says {sky} and {degrees} degrees.",
    )


def _get_time(rng: Random, settings: DataSettings, held: bool, city: str) -> Use:
    question = rng.choice(
        [
            f"What time is it in {city}?",
            f"Tell me the time in {city}.",
            f"What is the local time in {city}?",
            f"Is it late in {city}?",
        ]
    )
    time = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
    return Use(
        question,
        {"city": city},
        f"The user wants the time in {city}. I call get_time.",
        {"city": city, "time": time},
        f"It is {time} in {city}.",
        f"The result says {time}.",
    )


def _calculator(rng: Random, settings: DataSettings, held: bool, city: str) -> Use:
    a, b = number_pair(rng, (100, 9999), (2, 999), held)
    sign = rng.choice("+-*")
    expression = f"{a} {sign} {b}"
    question = rng.choice(
        [
            f"What is {expression}?",
            f"Use the calculator for {expression}.",
            f"Compute {expression}.",
            f"How much is {expression}?",
        ]
    )
    value = {"+": a + b, "-": a - b, "*": a * b}[sign]
    return Use(
        question,
        {"expression": expression},
        f"The user wants {expression}. I call calculator.",
        {"result": value},
        f"{expression} = {value}.",
        f"The result is {value}.",
    )


def _convert_units(rng: Random, settings: DataSettings, held: bool, city: str) -> Use:
    source, target, factor = rng.choice(UNIT_FACTORS)
    value, _ = number_pair(rng, (2, 200), (1, 50), held)
    question = rng.choice(
        [
            f"Convert {value} {source} to {target}.",
            f"How many {target} are {value} {source}?",
            f"What is {value} {source} in {target}?",
        ]
    )
    converted = round(value * factor, 1)
    converted = int(converted) if converted == int(converted) else converted
    return Use(
        question,
        {"value": value, "from_unit": source, "to_unit": target},
        f"The user wants {value} {source} in {target}. I call convert_units.",
        {"result": converted},
        f"{value} {source} are {converted} {target}.",
        f"The result is {converted}.",
    )


def _set_timer(rng: Random, settings: DataSettings, held: bool, city: str) -> Use:
    minutes, _ = number_pair(rng, (1, 90), (1, 50), held)
    question = rng.choice(
        [
            f"Set a timer for {minutes} minutes.",
            f"Wake me in {minutes} minutes.",
            f"Start a timer of {minutes} minutes please.",
        ]
    )
    return Use(
        question,
        {"minutes": minutes},
        f"The user wants a timer of {minutes} minutes. I call set_timer.",
        {"ok": True},
        f"The timer is set for {minutes} minutes.",
        "The timer is set.",
    )


def _search(rng: Random, settings: DataSettings, held: bool, city: str) -> Use:
    query = rng.choice(
        [
            f"{rng.choice(COLORS)} {rng.choice(OBJECTS)}",
            f"{rng.choice(ADJECTIVES)} {rng.choice(ANIMALS)}",
            f"hotels in {city}",
            f"history of {city}",
            f"how to cook {rng.choice(FOODS)}",
        ]
    )
    question = rng.choice([f"Search for {query}.", f"Find {query} on the web.", f"Look up {query} please."])
    hits = rng.randint(2, 90)
    return Use(
        question,
        {"query": query},
        f"The user wants to search for {query}. I call search.",
        {"hits": hits, "first": f"All about {query}"},
        f"I found {hits} pages. The first one is: All about {query}.",
        f"There are {hits} hits.",
    )


def _send_message(rng: Random, settings: DataSettings, held: bool, city: str) -> Use:
    person = rng.choice(NAMES) if rng.random() < 0.7 and not held else made_name(rng, settings.odd_share)
    text = rng.choice(MESSAGES)
    question = rng.choice(
        [f"Tell {person} that {text}.", f"Send a message to {person}: {text}.", f"Write to {person}: {text}."]
    )
    return Use(
        question,
        {"to": person, "text": text},
        f"The user wants to tell {person} something. I call send_message.",
        {"sent": True},
        f"I sent the message to {person}.",
        "The message was sent.",
    )


USES: dict[str, Callable[[Random, DataSettings, bool, str], Use]] = {
    "get_weather": _get_weather,
    "get_time": _get_time,
    "calculator": _calculator,
    "convert_units": _convert_units,
    "set_timer": _set_timer,
    "search": _search,
    "send_message": _send_message,
}
