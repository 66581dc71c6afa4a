"""Short stories from six plots: raw continuations and answers to "Tell me a story"."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from ..prompt import BEGIN, END, Assistant, Document, Role, Segment, User
from .settings import DataSettings, conversation
from .words import ADJECTIVES, ANIMALS, COLORS, NAMES, OBJECTS, PLACES, SETTINGS


@dataclass(frozen=True)
class Cast:
    """Who and what a story is about: hero, friend and thing."""

    hero: str
    pronoun: str
    object_pronoun: str
    color: str
    thing: str
    friend: str
    friend_adjective: str

    @property
    def hero_first(self) -> str:
        """The hero at the beginning of a sentence."""
        return self.hero[0].upper() + self.hero[1:]


def story(rng: Random, animal: str | None = None, colored_thing: tuple[str, str] | None = None) -> str:
    """A story of about 105 tokens; the hero is the animal if there is one, else a child or any animal."""
    named = rng.random() < 0.5
    name = rng.choice(NAMES) if named or rng.random() < 0.6 else None
    animal = animal or (rng.choice(ANIMALS) if not named else None)
    if animal is None and name is None:
        name = rng.choice(NAMES)
    adjective = rng.choice(ADJECTIVES)
    who = f"a {adjective} {animal}" if animal else f"a {adjective} child"
    who += f" named {name}" if name else ""
    pronoun, object_pronoun, possessive = rng.choice([("he", "him", "his"), ("she", "her", "her")])
    color, thing = colored_thing or (rng.choice(COLORS), rng.choice(OBJECTS))
    friend = rng.choice([other for other in ANIMALS if other != animal])
    friend_adjective = rng.choice([other for other in ADJECTIVES if other != adjective])
    cast = Cast(name or f"the {animal}", pronoun, object_pronoun, color, thing, friend, friend_adjective)
    opening = [
        rng.choice(
            [
                f"Once upon a time, there was {who}.",
                f"Once upon a time, {who} lived {rng.choice(SETTINGS)}.",
                f"There once was {who} who lived {rng.choice(SETTINGS)}.",
                f"Long ago, {who} lived {rng.choice(SETTINGS)}.",
            ]
        ),
        rng.choice(
            [
                f"{cast.hero_first} had a {color} {thing}.",
                f"{cast.hero_first} loved {possessive} {color} {thing} very much.",
                f"One day, {cast.hero} found a {color} {thing}.",
                f"Every day, {cast.hero} played with a {color} {thing}.",
            ]
        ),
    ]
    plot = rng.choice([_lost_and_found, _sharing, _storm, _race, _learning, _walk])
    events, moral = plot(rng, cast)
    ending = rng.choice(
        [
            f"From that day on, {cast.hero} and the {friend} were best friends.",
            "And they lived happily ever after.",
            f"The moral of the story is: {moral}",
            "That night, everyone slept well.",
            moral,
        ]
    )
    return " ".join(opening + events + [ending])


def _lost_and_found(rng: Random, cast: Cast) -> tuple[list[str], str]:
    hero, first, thing, friend = cast.hero, cast.hero_first, cast.thing, cast.friend
    events = [
        rng.choice([f"One morning, the {thing} was gone.", f"But one day, the {thing} was lost."]),
        rng.choice(
            [
                f"{first} looked in the {rng.choice(PLACES)} and in the {rng.choice(PLACES)}, but it was not there.",
                f"{first} was sad and looked everywhere.",
            ]
        ),
        f'Then {hero} met a {cast.friend_adjective} {friend}. "Why are you sad?" asked the {friend}.',
        f'"I lost my {cast.color} {thing}," said {hero}.',
        rng.choice(
            [
                f'"I will help you," said the {friend}. They looked together and found the {thing} in the '
                f"{rng.choice(PLACES)}.",
                f'The {friend} smiled and gave {hero} the {thing}. "I found it near the {rng.choice(PLACES)}," said '
                f"the {friend}.",
            ]
        ),
        rng.choice(
            [
                f"{first} was very happy and thanked the {friend}.",
                f'"Thank you!" said {hero}, and they became friends.',
            ]
        ),
    ]
    return events, "It is good to help a friend."


def _sharing(rng: Random, cast: Cast) -> tuple[list[str], str]:
    hero, first, thing, friend = cast.hero, cast.hero_first, cast.thing, cast.friend
    events = [
        f'A {cast.friend_adjective} {friend} came and asked, "May I play with your {thing}?"',
        rng.choice([f"At first, {hero} did not want to share.", f"{first} held the {thing} tight and said no."]),
        f"The {friend} was sad and went away.",
        rng.choice(
            [f"Soon {hero} felt lonely. Playing alone was not fun.", f"{first} thought about it and felt sorry."]
        ),
        f'So {hero} ran after the {friend} and said, "Let us play together."',
        rng.choice(
            [
                f"They played with the {cast.color} {thing} until the sun went down.",
                "They laughed and played all day.",
            ]
        ),
    ]
    return events, "Sharing makes us happy."


def _storm(rng: Random, cast: Cast) -> tuple[list[str], str]:
    hero, first, friend = cast.hero, cast.hero_first, cast.friend
    events = [
        rng.choice(
            ["One day, a big storm came.", "One night, the wind was very strong.", "Then it began to rain very hard."]
        ),
        f"{first} saw a {cast.friend_adjective} {friend} under a tree. The {friend} was cold and wet.",
        f'"Come with me," said {hero}. "My home is warm and dry."',
        rng.choice([f"The {friend} came in and sat by the fire.", "They ran home and drank hot tea."]),
        rng.choice(
            [
                f"{first} showed the {friend} the {cast.color} {cast.thing}, and they told stories all night.",
                "When the storm was over, the sky was blue again.",
            ]
        ),
    ]
    return events, "A kind heart finds many friends."


def _race(rng: Random, cast: Cast) -> tuple[list[str], str]:
    events = [
        f'A {cast.friend} said, "I am faster than you!"',
        f'"Let us race to the {rng.choice(PLACES)}," said {cast.hero}.',
        f"The {cast.friend} ran very fast, but soon it was tired and went to sleep.",
        f"{cast.hero_first} did not stop. Step by step, {cast.pronoun} went on.",
        f"In the end, {cast.hero} won the race, and the prize was a {rng.choice(COLORS)} {rng.choice(OBJECTS)}.",
    ]
    return events, "Slow and steady wins the race."


def _learning(rng: Random, cast: Cast) -> tuple[list[str], str]:
    hero, first, pronoun = cast.hero, cast.hero_first, cast.pronoun
    skill = rng.choice(["swim", "sing", "dance", "read", "bake a cake", "build a boat"])
    events = [
        f"{first} wanted to learn how to {skill}, but it was hard.",
        f'"I can not do it," said {hero}.',
        f'"Try again," said the {cast.friend_adjective} {cast.friend}. "I will show you."',
        rng.choice([f"{first} tried again and again, every day.", f"So {hero} tried once more, and then once more."]),
        rng.choice(
            ["At last, it worked! Everyone was proud.", f"At last {pronoun} could do it, and {pronoun} jumped for joy."]
        ),
    ]
    return events, "Never give up."


def _walk(rng: Random, cast: Cast) -> tuple[list[str], str]:
    hero, friend, pronoun = cast.hero, cast.friend, cast.pronoun.capitalize()
    events = [
        rng.choice(
            [f"One day, {hero} went for a walk in the forest.", f"One sunny day, {hero} went far away from home."]
        ),
        rng.choice([f"{pronoun} saw a river and a tall tree.", f"{pronoun} saw many flowers and birds."]),
        f"Soon it was dark, and {hero} did not know the way home.",
        f'A {cast.friend_adjective} {friend} heard {cast.object_pronoun} cry. "Do not be afraid," said the {friend}. '
        '"I know the way."',
        f"The {friend} walked in front with a {rng.choice(['lantern', 'lamp', 'candle'])}, and they came home safe.",
        f"{cast.hero_first} gave the {friend} the {cast.color} {cast.thing} as a gift.",
    ]
    return events, "A friend in need is a friend indeed."


def story_document(rng: Random, settings: DataSettings, held: bool = False) -> Document:
    """Half of the stories are raw text, the others answer a request that may name the animal and the thing."""
    if rng.random() < 0.5:
        return [Segment(BEGIN, Role.PREAMBLE), Segment(story(rng) + END, Role.ANSWER)]
    colored_thing: tuple[str, str] | None = (rng.choice(COLORS), rng.choice(OBJECTS))
    animal = None
    if rng.random() < 0.5:
        animal = rng.choice(ANIMALS)
        request = rng.choice(
            [
                f"Tell me a story about a {animal}.",
                f"Write a short story about a {animal}.",
                f"Can you tell me a story about a {animal}?",
            ]
        )
        reasoning = f"I will tell a short story about a {animal}."
        if rng.random() < 0.4:
            both = f"a {animal} and a {' '.join(colored_thing)}"
            request = rng.choice([f"Tell me a story about {both}.", f"Write a story with {both}."])
        else:
            colored_thing = None
    else:
        request = rng.choice(
            [
                "Tell me a story.",
                "Tell me a short story.",
                "Please tell me a story.",
                "Write a story.",
                "I want a story.",
            ]
        )
        reasoning, colored_thing = "I will tell a short story.", None
    thinking = rng.random() < 0.3
    answer = Assistant(story(rng, animal, colored_thing), reasoning if thinking else None)
    return conversation(rng, settings, [User(request), answer], thinking)
