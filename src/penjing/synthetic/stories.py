"""Stories with a beginning and an end: the hero named first is the hero of the last sentence.

Plots are `schemata`'s; requests for stories are `exchanges`'.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, repeat
from random import Random

from penjing.synthetic.grammar import filled, pick, polish, words
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
DETAIL_SHARES = (0.9, 0.7, 0.5, 0.3, 0.1)
"""A long plot is told with ever fewer details until it is short enough."""

SHORT_OPENINGS = (
    "[once|long ago] a {trait} {kind} named {H} lived [near|behind|by] the {L2}.",
    "{H} was a {trait} {kind} from the {L2}.",
)
OPENINGS = (
    "[once|long ago] a {trait} {kind} named {H} lived in a {C} [house|barn] near the {L2}.",
    "{H} was a {trait} {kind} from a {C} [house|barn] near the {L2}.",
    "near the {L2} in a {C} [house|barn] lived {H}, a {trait} {kind}.",
    "{H}, a {trait} {kind}, lived near the {L2} in a {C} [house|barn].",
)
MEETINGS = (
    "[soon|then] {F} came [to {H} |]with a {C} [bag|hat|flower|box].",
    "[soon|then|{O}] {F} [saw|heard|found] {H}.",
    "[soon|then] {F} [saw|found] {H} and asked about the {N}.",
    "{H} [went|ran] to {F} and [told|asked] {F} about the {N}.",
    '[soon|then] {F} came. "[can you help me|do you know what to do], {F}?" {H} asked.',
    '[soon|then] {F} came. "[can I help you|why are you sad], {H}?" {F} asked.',
)
PAIR_ENDINGS = (
    "[so|then|after that] {H} and {F} [played|talked|sang|danced] {P2} {end}.",
    '"you are a [good|kind|brave] friend, {F}," [said {H}|{H} said] {P2} {O}.',
    "{O} {H} told {his} [mother|father|friends|family] about {F} and the {T}.",
    "so {H} was a happy {kind} and told {F} a [long|good|happy] story {P2} {end}.",
)
KEPT_ENDINGS = (
    "[that night|so] {H} slept well with the {T} [by|near] {his} {C} bed.",
    "{O} {H} [walked|went] home with {F} and the {T}.",
    "{H} had the {T} for {Q} days and played with {F} {P2}.",
)
RESULT_SHARE = 0.5
_ENDS = ("{O}", "for {Q} days", "every {D}")
_WEATHER = ("quiet", "cold", "warm", "wet", "dark", "long", "happy", "slow")
_DETAIL = re.compile(r"<([^<>]*)>")
_ROADSIDE = ("box", "stone", "chair", "table", "cart", "wall", "basket", "bench")
_SIZES = ("big", "small", "old", "new", "little")
_BESIDE = ("house", "barn", "boat", "flower", "door")
_SIDES = ("near", "behind", "by")
_STOOD_ON = ("box", "stone", "chair", "table", "cart", "wall", "bench")


def _by_word(adjectives: dict[str, str]) -> dict[str, list[str]]:
    return {word: text.split() for nouns, text in adjectives.items() for word in nouns.split()}


_UNCOLORED = _by_word(
    {
        "apple pear nut": "big small good sweet red green yellow brown",
        "carrot": "big small good sweet long red yellow white",
        "cake pie": "big small good sweet warm soft",
        "bread cheese": "good warm soft old new",
        "soup": "good sweet warm hot",
        "honey": "good sweet warm brown yellow",
        "milk water": "good cold sweet",
        "story": "long new good old sad happy",
        "song": "long new good old sad happy quiet loud",
        "letter": "long good white blue pink yellow red green",
        "map": "long new old red blue green",
        "sheep goat cow duck": "white black brown small little old young big",
        "flower rose": "red white yellow pink small little",
        "tree": "green small little young",
        "moon": "big yellow white old",
        "star": "big yellow white little red blue",
    }
)
_PLACE_ADJECTIVES = _by_word(
    {
        "garden park field": "big small quiet old little green new wet dark warm",
        "forest farm hill": "big small quiet old little green dark wet cold warm",
        "river lake pond": "big small quiet old little blue green dark cold warm",
        "barn house school": "big small quiet old little red white new dark brown",
        "market bridge road": "big small quiet old little new wet dark cold long",
        "tree": "big small old little high green young",
    }
)
_UNCOUNTED = frozenset(["bread", "soup", "honey", "cheese", "milk", "water"])


@dataclass(frozen=True)
class Story:
    """A story and what must agree in it."""

    text: str
    schema: str
    hero: str
    friend: str
    thing: str


_DRAWN_ANEW: dict[str, Sequence[str]] = {
    "X": _ROADSIDE,
    "near": _ROADSIDE + _BESIDE,
    "S": _STOOD_ON,
    "M": ANIMALS,
    "TR": TRAITS,
    "Q": NUMBERS[1:],
    "D": DAYS,
    "weather": _WEATHER,
}
_NEVER_TWICE = ("X", "near", "S", "M")
"""Slots that never take a thing or an animal that the story is about."""


@cache
def _other_colors(color: str, *, sized: bool) -> tuple[str, ...]:
    others = tuple(other for other in COLORS if other != color)
    sizes = tuple(f"{size} {other}" for size in _SIZES for other in others)
    return others + sizes if sized else others


class _Slots(dict[str, str]):
    """What stays the same in one story; the other slots are drawn anew at each mention.

    The friend is introduced at the first mention, and called by name after that.
    """

    def __init__(
        self, rng: Random, fixed: dict[str, str], friend: str, introduction: str, taken: set[str]
    ) -> None:
        super().__init__(fixed)
        self.friend = friend
        self._friend_forms = [friend, introduction]
        self._rng = rng
        self._last: dict[str, str] = {}
        self._taken = taken
        self._choices: dict[str, Sequence[str]] = {}

    def __missing__(self, name: str) -> str:
        if name == "F":
            return self._friend_forms.pop() if len(self._friend_forms) > 1 else self.friend
        if name == "O":
            return self._time()
        if name == "Y":
            return f"{pick(self._rng, _SIDES)} a {self['C']} {self['near']}"
        if name not in self._choices:
            self._choices[name] = self._words(name)
        choices, last = self._choices[name], self._last.get(name)
        if last is not None:
            choices = [word for word in choices if word != last]
        self._last[name] = pick(self._rng, choices)
        return self._last[name]

    def _words(self, name: str) -> Sequence[str]:
        """What a new mention of the slot is drawn from, but for the last one drawn."""
        if name in ("C", "C1"):
            return _other_colors(self["TC"], sized=name == "C")
        taken = self._taken if name in _NEVER_TWICE else ()
        return [word for word in _DRAWN_ANEW[name] if word not in taken]

    def _time(self) -> str:
        weather = f"{self['weather']} " if self._rng.random() < 0.7 else ""
        first = pick(self._rng, ("on a", "one") if weather else ("on", "one"))
        return f"{first} {weather}{self['D']}{pick(self._rng, ('', ' morning'))}"


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
    place, other, home, last = (_described(rng, word) for word in rng.sample(sorted(PLACES), 4))
    fixed = {
        "H": hero, "he": "she" if hero in GIRLS else "he", "his": his,
        "him": "her" if hero in GIRLS else "him", "kind": kind, "trait": _trait(rng, kind),
        "N": noun, "T": f"{adjective} {noun}", "TC": adjective,
        "A": f"{'some' if noun in _UNCOUNTED else 'a'} {adjective} {noun}",
        "P": _at(place), "L": other, "L2": home, "P2": _at(last),
        "W": _described(rng, pick(rng, ("river", "lake", "pond"))),
        "K": pick(rng, [word for word in ANIMALS if word not in (kind, friend_kind)]),
    }  # fmt: skip
    introduction = _introduction(rng, friend, friend_kind, his)
    return _Slots(rng, fixed, friend, introduction, {kind, friend_kind, noun, fixed["K"]})


def _described(rng: Random, place: str) -> str:
    return f"{pick(rng, _PLACE_ADJECTIVES[place])} {place}"


def _at(place: str) -> str:
    """The place with its preposition: by the old river."""
    _, noun = place.split()
    return PLACES[noun].replace(f"the {noun}", f"the {place}")


def make_story(rng: Random, hero: str = "", kind: str = "") -> Story:
    """A story of a random plot; its hero's name and kind may be given."""
    hero = hero or pick(rng, NAMES)
    kind = kind or kind_of(rng, hero)
    schema = pick(rng, SCHEMATA)
    for share in chain(DETAIL_SHARES, repeat(0.0)):
        story = _draw(rng, schema, hero, kind, share)
        if len(words(story.text)) <= MAX_WORDS:
            break
    return replace(story, text=polish(story.text))


def _draw(rng: Random, schema: Schema, hero: str, kind: str, share: float) -> Story:
    slots = _slots(rng, schema, hero, kind)
    parts = [pick(rng, OPENINGS if rng.random() < share else SHORT_OPENINGS)]
    parts += [schema.want, schema.trouble]
    if schema.meets and rng.random() < share / 2:
        parts.append(pick(rng, MEETINGS))
    parts.append(schema.help)
    told = [filled(_thinned(part, rng, share), rng, slots) for part in parts]
    if slots["N"] not in words(told[-1]) or rng.random() < RESULT_SHARE:
        last = _thinned(schema.result, rng, share)
    else:  # the help has told what became of the thing
        endings = PAIR_ENDINGS + (KEPT_ENDINGS if schema.keeps else ())
        last = pick(rng, endings).replace("{end}", pick(rng, _ENDS))
    told.append(filled(last, rng, slots))
    return Story(" ".join(told), schema.name, hero, slots.friend, slots["N"])


def _thinned(template: str, rng: Random, share: float) -> str:
    """Keeps each detail with that probability: they vary stories, and lengthen them."""
    return _DETAIL.sub(lambda detail: detail[1] if rng.random() < share else "", template)
