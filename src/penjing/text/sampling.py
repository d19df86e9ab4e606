"""How few words training can do with: the threshold of priority sampling from a histogram."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SYMBOL_BYTES = 26


@dataclass(frozen=True)
class Threshold:
    threshold: int
    kept_mass: float


def choose_threshold(
    counts: NDArray[np.int64],
    words: NDArray[np.int64],
    sizes: NDArray[np.int64],
    memory_bytes: int,
) -> int:
    """The smallest power of two with which the kept words are expected to fit."""
    threshold = 1
    while True:
        share = np.minimum(1.0, counts / threshold)
        if float((sizes * share).sum()) * SYMBOL_BYTES <= memory_bytes or threshold >= 2**40:
            return threshold
        threshold *= 2
