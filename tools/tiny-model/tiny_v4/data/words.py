"""The vocabulary of the generated documents, and which values are held out of training."""

from __future__ import annotations

from random import Random

NAMES = (
    "Tom Anna Ben Lucy Max Mia Sam Lily Jack Emma Leo Nina Finn Rosa Hugo Clara Otto Ella Paul Ruby Noah Ada Theo Iris "
    "Carl Maya Eric Jane Alex Kate Fred Zoe Luke Sara Ivan Olga Amir Lena Omar Tara"
).split()
ANIMALS = (
    "fox rabbit bear mouse cat dog owl frog turtle duck lion deer wolf squirrel hedgehog pony crow lamb goose beaver"
).split()
COLORS = "red blue green yellow white black brown orange purple pink silver golden".split()
OBJECTS = (
    "ball kite boat hat box cup lamp drum bell book key map rope coin basket lantern blanket whistle mirror button"
).split()
PLACES = (
    "kitchen garden garage attic cellar barn school library market station forest tower office bakery harbor"
).split()
FOODS = "apples pears plums cherries nuts cookies carrots berries cakes eggs peaches lemons grapes buns".split()
THINGS = "books stamps coins shells marbles pencils cards stones toys buttons stickers flowers".split()
ADJECTIVES = "little kind brave curious clever shy happy gentle quiet cheerful".split()
SKIES = "sunny cloudy rainy snowy windy foggy clear".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
SETTINGS = [
    "in a small village",
    "near a quiet lake",
    "at the edge of a deep forest",
    "on a green hill",
    "in a little house by the sea",
    "in a sunny valley",
    "next to an old mill",
    "beside a wide river",
    "in a warm burrow under a tree",
    "on a farm far from the city",
]
CITIES = (
    "Paris London Rome Berlin Madrid Tokyo Beijing Moscow Cairo Delhi Lima Oslo Vienna Prague Athens Dublin Lisbon "
    "Warsaw Boston Chicago Seattle Denver Toronto Sydney Nairobi Shanghai Shenzhen Hangzhou Munich Hamburg Lyon Milan "
    "Naples Kyoto Osaka Seoul Bangkok Hanoi Jakarta Manila Istanbul Budapest Geneva Zurich Brussels Helsinki Stockholm "
    "Bergen Porto Seville Tunis Accra Lagos Quito Bogota Havana Santiago Montreal Austin Dallas Phoenix Miami Atlanta"
).split()
HELD_OUT_CITIES = "Krakow Valencia Turin Nice Perth Leeds Odessa Riga Tampa Salem Dakar Basel".split()
SYLLABLES = (
    "ba ka la ma na ra sa ta va za bo do ko lo mo no ro to be de ke le me ne re te vi mi ni li ri ti fa fo fe ga go ge"
).split()


# Beginnings, middles and ends of odd syllables.
ONSETS = (
    "b c d f g h j k l m n p qu r s t v w y z bl br ch cl cr dr fl fr gl gr kr pl pr sc sh sk sl sm sn sp st str th tr "
    "tw wh"
).split()
NUCLEI = "a e i o u ai au ea ee ei ia ie io oa oo ou y".split()
CODAS = ["", *"b ce ck d f g k l ld ll lt m mp n nd ng nk nn nt p r rd rk rn rt s se sh sk ss st t th tt w x".split()]


def made_name(rng: Random, odd_share: float) -> str:
    """A name that is in no list, so it can only be copied from the prompt.

    Two or three plain syllables; a share of the names has odd ones instead. Only those reach the rare tokens, which
    real names are made of and which the model does not learn to copy otherwise.
    """
    if odd_share and rng.random() < odd_share:
        while (name := _odd_name(rng)) in HELD_OUT_CITIES:
            pass
        return name
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.choice((2, 2, 3)))).capitalize()


def _odd_name(rng: Random) -> str:
    syllables = (rng.choice(ONSETS) + rng.choice(NUCLEI) + rng.choice(CODAS) for _ in range(rng.choice((1, 2, 2))))
    return "".join(syllables).capitalize()


def is_held_out_pair(a: int, b: int) -> bool:
    """One number pair in 23 is never trained on."""
    return (a * 31 + b * 17) % 23 == 0


def number_pair(rng: Random, first: tuple[int, int], second: tuple[int, int], held: bool) -> tuple[int, int]:
    """A pair from the two inclusive ranges, from the held-out pairs or from the others."""
    while True:
        a, b = rng.randint(*first), rng.randint(*second)
        if is_held_out_pair(a, b) == held:
            return a, b
