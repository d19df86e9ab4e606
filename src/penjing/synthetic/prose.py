"""Facts as prose: what things are, how words are spelled, small sums in words.

The facts are `lexicon`'s; questions about them are `exchanges`'.
"""

from random import Random

from penjing.synthetic.facts import state
from penjing.synthetic.grammar import expand, pick, polish
from penjing.synthetic.lexicon import FACTS, NEW_WORDS, NUMBERS, SPELLED, spelled

_OTHER_STATEMENTS = {
    "sound": "[the sound of a {s} is {a}|when a {s} is happy, it says {a}].",
    "color": "[the color of {s} is {a}|we know that {s} is {a}].",
    "material": "[we make {s} out of {a}|you need {a} to make {s}].",
    "legs": "[there are {a} legs on a {s}|a {s} walks on {a} legs].",
    "home": "[a {s} lives in a {a}|in a {a} you can find a {s}].",
    "opposite": "[{s} and {a} are opposites|if it is not {s}, it is {a}].",
    "day": "[{a} comes after {s}|after {s} comes {a}|if today is {s}, tomorrow is {a}].",
    "number": "[{a} comes after {s}|{s} and one is {a}|after {s} comes {a}].",
}
_SPELLING_LINES = (
    "the word {w} is spelled {x}.",
    "you spell {w} like this: {x}.",
    "the letters of {w} are {x}.",
    "how do you spell {w}? you spell it {x}.",
    "to spell the word {w}, say {x}.",
)


def _fact(rng: Random) -> str:
    kind, subject, answer = pick(rng, FACTS)
    if rng.random() < 0.5:
        return state(kind, subject, answer)
    return expand(_OTHER_STATEMENTS[kind], rng, {"s": subject, "a": answer})


def _spelling(rng: Random) -> str:
    word = pick(rng, SPELLED + NEW_WORDS)
    return polish(pick(rng, _SPELLING_LINES).format(w=word, x=spelled(word)))


def _count(rng: Random) -> str:
    word = pick(rng, SPELLED)
    letter = pick(rng, word if rng.random() < 0.7 else "aeiorstl")
    return f"The word {word} is {spelled(word)}. The count of {letter} is {word.count(letter)}."


def _sum(rng: Random) -> str:
    total = rng.randrange(2, 11)
    first = rng.randrange(1, total)
    a, b, c = (NUMBERS[number - 1] for number in (first, total - first, total))
    return expand("[{a} and {b} is {c}|{a} plus {b} is {c}].", rng, {"a": a, "b": b, "c": c})


def make_prose(rng: Random) -> str:
    """Five to nine sentences; about half of them spell a word."""
    makers = (_spelling, _spelling, _spelling, _fact, _fact, _count, _sum)
    return " ".join(pick(rng, makers)(rng) for _ in range(rng.randrange(5, 10)))
