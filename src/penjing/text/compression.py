"""How well a vocabulary compresses: bytes and tokens of texts, beside other vocabularies.

Which texts and vocabularies are compared is the tokenizer stage's choice; six samples are here.
"""

from collections.abc import Iterator, Mapping
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from penjing.artifacts.records import CompressionRecord
from penjing.text.tokenizer import Tokenizer

SAMPLES = ("news", "code", "math", "science", "korean", "chinese")
"""Names of the samples, all written for Penjing: prose, Python, LaTeX, and three more of prose."""

OURS = "ours"


def sample(name: str) -> str:
    """The text of a sample."""
    path = resources.files("penjing.text") / "samples" / f"{name}.txt"
    return path.read_text(encoding="utf-8")


def compression(
    text: str, num_bytes: int, tokens: Mapping[str, int]
) -> Iterator[CompressionRecord]:
    """One record a vocabulary.

    Args:
        text: the text's name.
        num_bytes: its UTF-8 bytes.
        tokens: how many tokens it takes, by vocabulary; `OURS` among them.
    """
    ours = tokens[OURS]
    for vocabulary, count in tokens.items():
        difference = None if vocabulary == OURS else relative_difference(ours, count)
        ratio = num_bytes / count if count else 0.0
        yield CompressionRecord(text, vocabulary, num_bytes, count, ratio, difference)


def relative_difference(ours: int, theirs: int) -> float:
    """How many fewer tokens we need, in % of theirs: above 0 ours is better.

    Source: the sign convention of nanochat's tok_eval.py.
    """
    return 100 * (theirs - ours) / theirs if theirs else 0.0


def token_byte_lengths(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Bytes of the tokens that stand for text, special ones left out."""
    lengths = tokenizer.byte_lengths()
    return lengths[lengths > 0]
