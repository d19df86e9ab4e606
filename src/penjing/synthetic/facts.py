"""How facts are said and asked for; the facts themselves are `lexicon`'s."""

from penjing.synthetic.grammar import polish

FACT_FORMS: dict[str, tuple[str, ...]] = {
    "sound": (
        "a {s} says {a}.",
        "what does a {s} say?",
        "what sound does a {s} make?",
        "tell me what a {s} says.",
        "do you know what a {s} says?",
        "what is the sound of a {s}?",
    ),
    "color": (
        "{s} is {a}.",
        "what color is {s}?",
        "what is the color of {s}?",
        "tell me the color of {s}.",
        "do you know the color of {s}?",
        "which color is {s}?",
    ),
    "material": (
        "{s} is made of {a}.",
        "what is {s} made of?",
        "tell me what {s} is made of.",
        "do you know what {s} is made of?",
        "of what is {s} made?",
        "what do you need to make {s}?",
    ),
    "legs": (
        "a {s} has {a} legs.",
        "how many legs does a {s} have?",
        "how many legs has a {s}?",
        "tell me how many legs a {s} has.",
        "do you know how many legs a {s} has?",
        "what is the number of legs of a {s}?",
    ),
    "home": (
        "the home of a {s} is a {a}.",
        "where does a {s} live?",
        "what is the home of a {s}?",
        "tell me where a {s} lives.",
        "do you know where a {s} lives?",
        "where is the home of a {s}?",
    ),
    "opposite": (
        "the opposite of {s} is {a}.",
        "what is the opposite of {s}?",
        "tell me the opposite of {s}.",
        "do you know the opposite of {s}?",
        "what word is the opposite of {s}?",
        "say the opposite of {s}.",
    ),
    "day": (
        "the day after {s} is {a}.",
        "what day comes after {s}?",
        "what is the day after {s}?",
        "tell me the day after {s}.",
        "do you know the day after {s}?",
        "if today is {s}, what day is tomorrow?",
    ),
    "number": (
        "the number after {s} is {a}.",
        "what number comes after {s}?",
        "what is the number after {s}?",
        "tell me the number after {s}.",
        "do you know the number after {s}?",
        "say the number after {s}.",
    ),
}
"""The statement, which is also the answer, then questions; {s} the subject, {a} the answer."""


def state(kind: str, subject: str, answer: str) -> str:
    """A fact as a sentence: A cow says moo."""
    return polish(FACT_FORMS[kind][0].format(s=subject, a=answer))
