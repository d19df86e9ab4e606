"""Whether a text repeats a long run of words of other texts.

Fixed phrases of the schemata do not count: every story of that plot has them.
"""

from collections.abc import Collection, Iterable, Iterator
from functools import cache

from penjing.synthetic.grammar import literal_runs, words
from penjing.synthetic.schemata import SCHEMATA

RUN_WORDS = 12


def _runs(sequence: list[str], length: int) -> Iterator[str]:
    for start in range(len(sequence) - length + 1):
        yield " ".join(sequence[start : start + length])


def run_index(texts: Iterable[str], length: int = RUN_WORDS) -> frozenset[str]:
    """Every run of `length` words in the texts."""
    return frozenset(run for text in texts for run in _runs(words(text), length))


@cache
def fixed_phrases(length: int = RUN_WORDS) -> frozenset[str]:
    """The runs that a schema repeats in all its stories, as no slot or choice is in them."""
    templates = [
        template
        for schema in SCHEMATA
        for template in (schema.want, schema.trouble, schema.help, schema.result)
    ]
    stretches = [run for template in templates for run in literal_runs(template)]
    return frozenset(run for stretch in stretches for run in _runs(stretch, length))


def copies_a_run(text: str, index: Collection[str], length: int = RUN_WORDS) -> bool:
    """Whether some run of the text is in the index and is no fixed phrase."""
    return any(
        run in index and run not in fixed_phrases(length) for run in _runs(words(text), length)
    )
