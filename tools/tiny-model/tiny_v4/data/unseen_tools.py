"""Invented tools with random schemas, so that calling does not stop at the fixed list."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from ..prompt import Assistant, Document, Schema, ToolCall, ToolResults, User
from .settings import DataSettings, conversation
from .tools import SCHEMAS, schema
from .words import ADJECTIVES, ANIMALS, CITIES, COLORS, DAYS, FOODS, MONTHS, NAMES, OBJECTS, PLACES, made_name

VERBS = (
    "open close start stop lock unlock paint order book cancel check count move copy sort print share play pause save "
    "load mix heat cool clean"
).split()
NOUNS = (
    "door window light fan heater oven printer song movie ticket room table car train flight order letter file list "
    "photo alarm pump robot camera"
).split()


def _name_from(names: list[str]) -> Callable[[Random, DataSettings], str]:
    """Half of the values are made up."""
    return lambda rng, settings: rng.choice(names) if rng.random() < 0.5 else made_name(rng, settings.odd_share)


PARAMETERS: dict[str, tuple[str, Callable[[Random, DataSettings], Any]]] = {
    "color": ("string", lambda rng, _: rng.choice(COLORS)),
    "place": ("string", lambda rng, _: rng.choice(PLACES)),
    "name": ("string", _name_from(NAMES)),
    "city": ("string", _name_from(CITIES)),
    "day": ("string", lambda rng, _: rng.choice(DAYS)),
    "month": ("string", lambda rng, _: rng.choice(MONTHS)),
    "count": ("integer", lambda rng, _: rng.randint(1, 99)),
    "level": ("integer", lambda rng, _: rng.randint(1, 10)),
    "size": ("string", lambda rng, _: rng.choice(["small", "medium", "large"])),
    "minutes": ("integer", lambda rng, _: rng.randint(1, 90)),
    "price": ("integer", lambda rng, _: rng.randint(1, 999)),
    "fast": ("boolean", lambda rng, _: rng.random() < 0.5),
    "title": ("string", lambda rng, _: f"{rng.choice(ADJECTIVES)} {rng.choice(ANIMALS)}"),
    "item": ("string", lambda rng, _: rng.choice(OBJECTS + FOODS)),
}


class InventedTool(NamedTuple):
    schema: Schema
    verb: str
    noun: str
    parameters: list[str]


def is_held_out_tool(verb: str, noun: str) -> bool:
    """One pair of verb and noun in seven is never trained on."""
    return (VERBS.index(verb) * 31 + NOUNS.index(noun) * 17) % 7 == 0


def invented_tool(rng: Random, held: bool | None) -> InventedTool:
    """A tool named after a verb and a noun; `held` None takes any pair."""
    while True:
        verb, noun = rng.choice(VERBS), rng.choice(NOUNS)
        if held is None or is_held_out_tool(verb, noun) == held:
            break
    name = rng.choice([f"{verb}_{noun}", f"{noun}_{verb}", f"{verb}{noun.capitalize()}"])
    parameters = rng.sample(list(PARAMETERS), rng.choice((0, 1, 1, 2, 2, 3)))
    description = rng.choice(
        [f"{verb.capitalize()} the {noun}.", f"{verb.capitalize()} a {noun}.", f"Use this to {verb} a {noun}."]
    )
    kinds = {parameter: PARAMETERS[parameter][0] for parameter in parameters}
    return InventedTool(schema(name, description, **kinds), verb, noun, parameters)


def unseen_tool_document(rng: Random, settings: DataSettings, held: bool = False) -> Document:
    """A call of one of up to four invented tools, beside at most one of the fixed ones; some calls fail."""
    restriction = held if held or settings.holds_out_tools else None
    by_name: dict[str, InventedTool] = {}
    for _ in range(rng.choice((1, 1, 2, 2, 3, 4))):
        tool = invented_tool(rng, restriction)
        by_name.setdefault(tool.schema["name"], tool)
    invented = list(by_name.values())
    chosen = rng.choice(invented)
    fixed = [SCHEMAS[name] for name in rng.sample(list(SCHEMAS), rng.choice((0, 0, 1)))]
    offered = [tool.schema for tool in invented] + fixed
    rng.shuffle(offered)
    arguments = {parameter: PARAMETERS[parameter][1](rng, settings) for parameter in chosen.parameters}
    verb, noun, name = chosen.verb, chosen.noun, chosen.schema["name"]
    question = _request(rng, verb, noun, arguments)
    works = rng.random() < 0.85
    if works:
        result, answer, learned = {"ok": True}, f"Done. The {noun} call to {verb} worked.", "The call worked."
    else:
        result = {"error": f"{noun} not found"}
        answer, learned = f"Sorry, I could not {verb} the {noun}: {noun} not found.", "The call failed."
    thinking = rng.random() < 0.5
    reasoning = f"The user wants to {verb} a {noun}. I call {name}."
    messages = [
        User(question),
        Assistant("", reasoning if thinking else None, (ToolCall(name, arguments),)),
        ToolResults((json.dumps(result),)),
        Assistant(answer, learned if thinking else None),
    ]
    return conversation(rng, settings, messages, thinking, offered)


def _request(rng: Random, verb: str, noun: str, arguments: dict[str, Any]) -> str:
    details = []
    for parameter, value in arguments.items():
        if parameter == "fast":
            details.append("fast" if value else "not fast")
        else:
            details.append(
                rng.choice([f"{parameter} {value}", f"with {parameter} {value}", f"the {parameter} is {value}"])
            )
    opening = rng.choice([f"Please {verb} the {noun}", f"{verb.capitalize()} the {noun}", f"Can you {verb} a {noun}"])
    return ", ".join([opening, *details]) + rng.choice([".", "", " please."])
