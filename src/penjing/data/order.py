"""A shuffled order that is a formula: each place is computed without the others.

It keeps no list and no random state. A Feistel network permutes the next power of four; a place
outside the size walks on along its cycle until it is inside. Source: Black and Rogaway, "Ciphers
with arbitrary finite domains" (2002); the mixing function is splitmix64's.
"""

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Word = TypeVar("Word", int, npt.NDArray[Any])
_LOW_64 = 2**64 - 1


def permute(index: int, size: int, key: int) -> int:
    """The place in [0, size) that `index` gets; a bijection for every key."""
    if not 0 <= index < size:
        raise IndexError(f"index {index} is outside [0, {size})")
    round_keys = _round_keys(key)
    place = _feistel(index, size, round_keys)
    while place >= size:
        place = _feistel(place, size, round_keys)
    return place


def permute_many(indices: npt.NDArray[np.int64], size: int, key: int) -> npt.NDArray[np.int64]:
    """`permute` of each index, (N,) int64, at once."""
    places = indices.astype(np.uint64)
    round_keys, outside = _round_keys(key), np.arange(len(places))
    while len(outside):
        places[outside] = _feistel(places[outside], size, round_keys)
        outside = outside[places[outside] >= size]
    return places.astype(np.int64)


def permutation(size: int, key: int) -> npt.NDArray[np.int64]:
    """`permute` of 0, 1, ..., size - 1, (size,) int64."""
    return permute_many(np.arange(size, dtype=np.int64), size, key)


def _round_keys(key: int) -> list[int]:
    return [_mix((key + number * 0x9E3779B97F4A7C15) & _LOW_64) for number in range(1, 7)]


def _feistel(value: Word, size: int, round_keys: list[int]) -> Word:
    # Measured with 2 bits a half: the 24 orders of 4 were not equally likely (chi2/df 5).
    half = max(3, ((size - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    left, right = value >> half, value & low
    for round_key in round_keys:
        left, right = right, left ^ (_mix((right + round_key) & _LOW_64) & low)
    return left << half | right


def _mix(word: Word) -> Word:
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & _LOW_64
    word = (word ^ word >> 27) * 0x94D049BB133111EB & _LOW_64
    word ^= word >> 31
    return word
