"""By what documents are known to be alike: hashes of words and of runs of words, many at once.

Words are runs of letters and digits, ASCII in lower case; a Chinese or Japanese character is a word
of its own; white space, punctuation and symbols part words. What becomes of alike documents is the
clean stage's duty.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_SCHEME: Literal["affine32"] = "affine32"
"""Of datasketch: values of 32 bits; another would make other signatures."""

_PRIME = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(int(_PRIME), -1, 2**64))


def exact_hash(text: bytes) -> bytes:
    """16 bytes that texts share which differ in white space alone."""
    return xxhash.xxh3_128_digest(b" ".join(text.split()))


def _classes() -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Which bytes belong to words, and what each counts as."""
    inside = np.zeros(256, dtype=np.bool_)
    for first, last in ((0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A), (0x80, 0xFF)):
        inside[first : last + 1] = True
    lower = np.arange(256, dtype=np.uint8)
    lower[0x41:0x5B] += 0x20
    return inside, lower


_INSIDE, _LOWER = _classes()


def word_hashes(data: NDArray[np.uint8]) -> tuple[Hashes, NDArray[np.int64]]:
    """The words of some UTF-8: the hash of each, and the byte at which it begins, (words,).

    A word's hash is a polynomial of its bytes, so prefix sums give all of them at once.
    """
    inside, own = _INSIDE[data], np.zeros(len(data), dtype=np.bool_)
    # Each of these leads a character of three bytes.
    lead, second = data[:-2], data[1:-1]
    single = ((lead >= 0xE3) & (lead <= 0xE9)) | ((lead == 0xE2) & (second == 0x80))
    parts = ((lead == 0xE2) & (second == 0x80)) | ((lead == 0xE3) & (second == 0x80))
    parts |= (lead == 0xEF) & ((second == 0xBC) | (second == 0xBD))
    for offset in range(3):
        inside[offset : len(data) - 2 + offset][parts] = False
    own[: len(lead)] = single & ~parts
    after = np.zeros(len(data) + 1, dtype=np.bool_)
    after[3:][own[: len(data) - 2]] = True
    starts = inside.copy()
    starts[1:] &= ~inside[:-1] | own[1:] | after[1 : len(data)]
    begins = np.flatnonzero(starts)
    stops = inside & np.append(~inside[1:] | starts[1:], True)
    ends = np.flatnonzero(stops) + 1
    powers = _powers(_PRIME, len(data))
    sums = np.zeros(len(data) + 1, dtype=np.uint64)
    np.cumsum((_LOWER[data].astype(np.uint64) + np.uint64(1)) * powers, out=sums[1:])
    return _mixed((sums[ends] - sums[begins]) * _powers(_INVERSE, len(data))[begins]), begins


def _powers(base: np.uint64, count: int) -> Hashes:
    """Base ** 0, 1, ..., modulo 2**64."""
    found = np.full(max(1, count), base, dtype=np.uint64)
    found[0] = 1
    return np.cumprod(found, dtype=np.uint64)


def _mixed(values: Hashes) -> Hashes:
    """Each bit depends on all: splitmix64's finalizer."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def run_hashes(words: Hashes, length: int) -> Hashes:
    """The hash of every run of `length` words, (words - length + 1,)."""
    count = max(0, len(words) - length + 1)
    found = np.zeros(count, dtype=np.uint64)
    for offset in range(length):
        found = found * _PRIME + words[offset : offset + count]
    return _mixed(found)


def split_words(data: NDArray[np.uint8], ends: NDArray[np.int64]) -> list[Hashes]:
    """The word hashes of each text of a batch: text i is `data[ends[i - 1]:ends[i]]`."""
    # A line break between texts, so that no word reaches over an end.
    apart = np.insert(data, ends, 0x0A)
    words, begins = word_hashes(apart)
    limits = np.searchsorted(begins, ends + np.arange(len(ends)))
    return np.split(words, limits[:-1])


def minhash(words: Hashes, shingle: int, size: int) -> NDArray[np.uint32]:
    """The MinHash of a document's set of runs of `shingle` words, (size,).

    Source: Broder, "On the resemblance and containment of documents" (1997); by datasketch.
    """
    from datasketch import MinHash

    runs = run_hashes(words, min(shingle, max(1, len(words))))
    made = MinHash(num_perm=size, hashfunc=int, scheme=_SCHEME)
    if len(runs):
        made.update_batch((np.unique(runs) & np.uint64(0xFFFFFFFF)).tolist())
    values: NDArray[Any] = made.hashvalues
    return values.astype(np.uint32)


def near_duplicates(
    signatures: NDArray[np.uint32], places: Sequence[int], threshold: float
) -> dict[int, int]:
    """Of the documents at `places`, in order, those that are like an earlier one that stays:
    their place, and the other's. Alike are sets whose estimated Jaccard index reaches `threshold`.
    """
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=threshold, num_perm=signatures.shape[1])
    found: dict[int, int] = {}
    for place in places:
        own = MinHash(num_perm=signatures.shape[1], hashvalues=signatures[place], scheme=_SCHEME)
        alike = [
            other
            for other in sorted(index.query(own))
            if np.count_nonzero(signatures[other] == signatures[place]) >= threshold * own.num_perm
        ]
        if alike:
            found[place] = alike[0]
        else:
            index.insert(place, own)
    return found
