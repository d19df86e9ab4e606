"""Text from templates: choices, slots, and the small agreements of English.

A template holds choices `[a|b|c]`, which may be nested, and slots `{name}`. What the slots mean is
their caller's business.
"""

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import TypeVar

Item = TypeVar("Item")

_INNERMOST_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SENTENCE_START = re.compile(r'(^|[.!?]"? |(?:^| )")([a-z])')
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou])")
_SPACED_MARK = re.compile(r" +([.,!?])")
_WORD = re.compile(r"[a-z0-9]+(?:[-'][a-z0-9]+)*")


def pick(rng: Random, items: Sequence[Item]) -> Item:
    """One of the items, each as likely as the others."""
    return items[int(rng.random() * len(items))]


def expand(template: str, rng: Random, slots: Mapping[str, str]) -> str:
    """The template with its choices drawn, its slots filled and its English put right."""
    return polish(filled(template, rng, slots))


def filled(template: str, rng: Random, slots: Mapping[str, str]) -> str:
    """The template with its choices drawn and its slots filled, not polished.

    Choices without a slot cost one draw each, whether they stand in a drawn branch or not.

    Raises:
        KeyError: a slot has no value.
    """
    text = template
    while "[" in text:
        text = _INNERMOST_CHOICE.sub(lambda found: pick(rng, found[1].split("|")), text)
    return text.format_map(slots)


def polish(text: str) -> str:
    """Single spaces, `an` before a vowel, a capital at the start of sentences and quotations."""
    text = _SPACED_MARK.sub(r"\1", " ".join(text.split()))
    text = _ARTICLE.sub(r"\1n ", text)
    return _SENTENCE_START.sub(lambda found: found[1] + found[2].upper(), text)


def literal_runs(template: str) -> list[list[str]]:
    """The stretches of words that every text of the template repeats, cut at choices and slots."""
    while "[" in template:
        template = _INNERMOST_CHOICE.sub("{}", template)
    return [words(run) for run in re.split(r"\{\w*\}", template)]


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; a spelled word is one word."""
    return _WORD.findall(text.lower())
