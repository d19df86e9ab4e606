"""Stories with a beginning and an end: the hero named first is the hero of the last sentence.

Plots are `schemata`'s; requests for stories are `exchanges`'.
"""

import re
from dataclasses import dataclass
from random import Random

from penjing.synthetic.grammar import expand, pick, words
from penjing.synthetic.lexicon import (
    ANIMALS,
    BOYS,
    COLORS,
    DAYS,
    GIRLS,
    NAMES,
    NUMBERS,
    PLACES,
    TRAITS,
)
from penjing.synthetic.schemata import SCHEMATA, Schema

MAX_WORDS = 78
"""Fits, with the demo's tokenizer, into the 96 tokens of an answer."""
DETAIL_SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 0.0, 0.0)
"""A long plot is told with ever fewer details until it is short enough."""

SHORT_OPENINGS = (
    "[once|long ago] there was a {trait} {kind} named {H}.",
    "{H} was a {trait} {kind} from the {L2}.",
)
OPENINGS = (
    "[once|long ago] a {trait} {kind} named {H} lived in a {C} [house|barn] near the {L2}.",
    "{H} was a {trait} {kind} from a {C} [house|barn] near the {L2}.",
    "near the {L2} in a {C} [house|barn] lived {H}, a {trait} {kind}.",
    "{H}, a {trait} {kind}, lived near the {L2} in a {C} [house|barn].",
)
MEETINGS = (
    "[soon|then] {I} came [to {H} |]with a {C} [bag|hat|flower|box].",
    "[soon|then] {I} [saw|heard|found] {H}.",
    "[soon|then] {I} [saw|heard|found] {H} near a {C} {X} and asked about the {T}.",
    "{H} [went|ran] to {I} near a {C} {X} and told {F} about the {T}.",
    '[soon|then] {I} came with a {C} [bag|hat|flower]. "can you help me, {F}?" {H} asked.',
    '[soon|then] {I} came with a {C} [bag|hat|flower]. "can I help you, {H}?" {F} asked.',
    '[soon|then] {I} came with a {C} [bag|hat|flower]. "why are you sad, {H}?" {F} asked.',
)
PAIR_ENDINGS = (
    "then {H} and {F} [played|talked|sang|danced] {P2} {end}.",
    "{F} and {H} [sat|played|talked|sang|danced] {P2} every {D} after that.",
    '"{F}, you are a good friend," said {H} {P2} {end}.',
    "{H} told {his} [mother|father|friends] about {F} and the {T} on {D}.",
    "so {H} was a happy {kind} and told {F} a [long|sad|good] story {P2} {end}.",
)
KEPT_ENDINGS = (
    "on {D} {H} slept well with the {T} by {his} {C} bed.",
    "{H} walked home with {F} and the {T} {end}.",
    "{H} had the {T} for {Q} days and played with {F} {P2}.",
)
_DETAIL = re.compile(r" near a \{C\} \{X\}| \{P\}")
RESULT_SHARE = 0.5
_ENDS = ("on {D}", "after {Q} songs", "after {Q} days")
_ROADSIDE = ["box", "stone", "chair", "table", "cart", "wall", "basket", "bench", "bag", "bed"]
_PLACE_ADJECTIVES = "old big small quiet dark cold new little warm wet green".split()
_SIZES = ("big", "small", "old", "new", "little", "good", "wet")
_UNCOLORED = {
    word: adjectives.split()
    for words, adjectives in {
        "apple pear nut carrot": "big small good sweet red green yellow",
        "cake pie": "big small good sweet warm soft",
        "bread cheese": "good warm soft old new",
        "soup honey": "good sweet warm hot",
        "milk water": "good warm cold",
        "story letter song": "long new good old sad happy",
        "book map": "long new old red blue green",
    }.items()
    for word in words.split()
}
_UNCOUNTED = frozenset(["bread", "soup", "honey", "cheese", "milk", "water"])


@dataclass(frozen=True)
class Story:
    """A story and what must agree in it."""

    text: str
    schema: str
    hero: str
    friend: str
    thing: str


class _Slots(dict[str, str]):
    """What stays the same in one story; the other slots are drawn anew at each mention."""

    def __init__(
        self, rng: Random, fixed: dict[str, str], thing_color: str, taken: set[str]
    ) -> None:
        super().__init__(fixed)
        self._rng = rng
        self._last: dict[str, str] = {}
        colors = [color for color in COLORS if color != thing_color]
        self._choices = {
            "C1": colors,
            "C": colors + [f"{size} {color}" for size in _SIZES for color in colors],
            "X": [thing for thing in _ROADSIDE if thing not in taken],
            "M": [animal for animal in ANIMALS if animal not in taken],
            "TR": TRAITS,
            "Q": NUMBERS[1:],
            "D": DAYS,
        }

    def __missing__(self, name: str) -> str:
        choices = [word for word in self._choices[name] if word != self._last.get(name)]
        self._last[name] = pick(self._rng, choices)
        return self._last[name]


def kind_of(rng: Random, name: str) -> str:
    """A girl or a boy as the name says in one story of four, else an animal."""
    if rng.random() < 0.25:
        return "boy" if name in BOYS else "girl"
    return pick(rng, ANIMALS)


def _trait(rng: Random, kind: str) -> str:
    return pick(rng, [trait for trait in TRAITS if kind in ANIMALS or trait != "old"])


def _introduction(rng: Random, friend: str, kind: str, his: str) -> str:
    trait = _trait(rng, kind)
    forms = [f"a {trait} {kind} named {friend}", f"{his} {trait} friend {friend}"]
    if kind in ANIMALS:
        forms.append(f"{friend} the {trait} {kind}")
    return pick(rng, forms)


def _slots(rng: Random, schema: Schema, hero: str, kind: str) -> _Slots:
    friend = pick(rng, [name for name in NAMES if name != hero])
    friend_kind = kind_of(rng, friend)
    noun = pick(rng, [word for word in schema.things if word not in (kind, friend_kind)])
    adjective = pick(rng, _UNCOLORED.get(noun, COLORS))
    his = "her" if hero in GIRLS else "his"
    place, other, home, last = (
        f"{pick(rng, _PLACE_ADJECTIVES)} {word}" for word in rng.sample(sorted(PLACES), 4)
    )
    fixed = {
        "H": hero, "he": "she" if hero in GIRLS else "he", "his": his,
        "him": "her" if hero in GIRLS else "him", "kind": kind, "trait": _trait(rng, kind),
        "F": friend, "Fhim": "her" if friend in GIRLS else "him",
        "I": _introduction(rng, friend, friend_kind, his),
        "N": noun, "T": f"{adjective} {noun}", "TC": adjective,
        "A": f"{'some' if noun in _UNCOUNTED else 'a'} {adjective} {noun}",
        "P": _at(place), "L": other, "L2": home, "P2": _at(last),
        "W": f"{pick(rng, _PLACE_ADJECTIVES)} {pick(rng, ('river', 'lake', 'pond'))}",
    }  # fmt: skip
    fixed["K"] = pick(rng, [word for word in ANIMALS if word not in (kind, friend_kind)])
    return _Slots(rng, fixed, adjective, {kind, friend_kind, noun})


def _at(place: str) -> str:
    """The place with its preposition: by the old river."""
    adjective, noun = place.split()
    return PLACES[noun].replace("the ", f"the {adjective} ")


def make_story(rng: Random, hero: str = "", kind: str = "") -> Story:
    """A story of a random plot; its hero's name and kind may be given."""
    hero = hero or pick(rng, NAMES)
    kind = kind or kind_of(rng, hero)
    while True:
        schema = pick(rng, SCHEMATA)
        for share in DETAIL_SHARES:
            story = _draw(rng, schema, hero, kind, share)
            if len(words(story.text)) <= MAX_WORDS:
                return story


def _draw(rng: Random, schema: Schema, hero: str, kind: str, share: float) -> Story:
    slots = _slots(rng, schema, hero, kind)
    endings = PAIR_ENDINGS + (KEPT_ENDINGS if schema.keeps else ())
    ending = pick(rng, endings).replace("{end}", pick(rng, _ENDS))
    opening = pick(rng, OPENINGS if rng.random() < share else SHORT_OPENINGS)
    parts = [opening, schema.want, _thinned(schema.trouble, rng, share)]
    helped = _thinned(schema.help, rng, share)
    if schema.meets and rng.random() < share / 2:
        parts.append(pick(rng, MEETINGS))
    elif schema.meets:
        helped = helped.replace("{F}", "{I}", 1)
    last = _thinned(schema.result, rng, share)
    has_hero = "{H}" in re.split(r"[.!?] ", last)[-1]
    needed = not {"{T}", "{N}"} & set(re.findall(r"\{\w+\}", helped))  # what became of the thing?
    parts += [helped, last if has_hero and (needed or rng.random() < RESULT_SHARE) else ending]
    text = " ".join(expand(part, rng, slots) for part in parts)
    return Story(text, schema.name, hero, slots["F"], slots["N"])


def _thinned(template: str, rng: Random, share: float) -> str:
    """Keeps each detail with that probability: they vary stories, and lengthen them."""
    return _DETAIL.sub(lambda detail: detail[0] if rng.random() < share else "", template)
