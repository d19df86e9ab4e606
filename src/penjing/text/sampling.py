"""How many words training needs: the threshold of priority sampling that fits a memory budget.

Keeping words by that threshold is `text.native.sample_words`'s duty.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SMALL_VOCABULARY_MERGES = 65_279
"""Up to as many merges, training keeps ids in two bytes."""

_SYMBOL_BYTES, _WIDE_SYMBOL_BYTES = 12, 20
# Peak memory of training, words included, by their bytes: 9.4 to 10.4 measured on Chinese and on
# mixed text with 16-bit ids, 15 to 20 with 32-bit ones; more where words are shorter.


@dataclass(frozen=True)
class Threshold:
    """What sampling with a threshold is expected to keep; 1 keeps every word with its count.

    Attributes:
        threshold: words of at least this count are kept as they are.
        kept_occurrences: of all occurrences of words, the share whose word is kept.
        kept_words: of all different words, the share that is kept.
    """

    threshold: int
    kept_occurrences: float
    kept_words: float


def choose_threshold(
    counts: NDArray[np.int64],
    words: NDArray[np.int64],
    sizes: NDArray[np.int64],
    memory_bytes: int,
    num_merges: int = SMALL_VOCABULARY_MERGES,
) -> Threshold:
    """The smallest threshold with which the words that it is expected to keep fit the memory.

    Args:
        counts: distinct counts of words, ascending.
        words: how many words have each.
        sizes: summed bytes of those words.
        memory_bytes: memory for training, the words included; positive.
        num_merges: merges wanted; many take wider ids.
    """
    small = num_merges <= SMALL_VOCABULARY_MERGES
    budget = memory_bytes // (_SYMBOL_BYTES if small else _WIDE_SYMBOL_BYTES)
    mass = _running_sum(counts * sizes)
    whole = _running_sum(sizes)

    def fits(threshold: int) -> bool:
        below = int(np.searchsorted(counts, threshold))
        kept = mass[below] + (whole[-1] - whole[below]) * threshold  # times the threshold
        return kept <= budget * threshold

    low, high = 1, max(1, -(-mass[-1] // max(1, budget)))  # kept words are at most mass / threshold
    while low < high:
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle + 1
    share = np.minimum(1.0, counts / low)
    return Threshold(
        threshold=low,
        kept_occurrences=float((counts * words * share).sum() / max(1, (counts * words).sum())),
        kept_words=float((words * share).sum() / max(1, words.sum())),
    )


def _running_sum(values: NDArray[np.int64]) -> list[int]:
    """0, and the sums of the first 1, 2, … values, exact for a corpus of any size."""
    return [0, *np.cumsum(values).tolist()]
