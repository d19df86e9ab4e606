"""Encoding in plain Python with any regular expression: the slow path beside the compiled encoder.

Which of the two a tokenizer uses is `text.tokenizer`'s duty.
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
import regex
from numpy.typing import NDArray

from penjing.text.cutting import words
from penjing.text.patterns import PATTERNS

_CACHE_WORDS = 1 << 17
_CACHE_WORD_BYTES = 64


class WordEncoder:
    """As `native.Encoder`, for named patterns and any other; remembers short words."""

    def __init__(
        self,
        token_bytes: Sequence[bytes],
        merges: NDArray[np.uint32],
        pattern: str,
        whole_words: bool,  # noqa: FBT001 - the compiled encoder's signature
    ) -> None:
        self._expression = regex.compile(PATTERNS.get(pattern, pattern))
        self._byte_ids = {token[0]: number for number, token in _of_length_one(token_bytes)}
        self._ranks = {
            (left, right): (rank, merged)
            for rank, (left, right, merged) in enumerate(merges.tolist())
        }
        tokens = enumerate(token_bytes) if whole_words else ()
        self._whole = {token: number for number, token in tokens if token}
        self._cache: dict[bytes, Sequence[int]] = {}

    def encode(self, text: bytes) -> NDArray[np.uint32]:
        """The ids of a text in UTF-8; for bytes that are none, see `text.cutting`."""
        ids: list[int] = []
        for word in words(text, self._expression):
            known = self._cache.get(word)
            ids += self._encode_word(word) if known is None else known
        return np.array(ids, dtype=np.uint32)

    def encode_word(self, word: bytes) -> NDArray[np.uint32]:
        """The ids of a text that is not cut."""
        return np.array(self._encode_word(word), dtype=np.uint32)

    def encode_batch(
        self, data: NDArray[np.uint8], ends: NDArray[np.int64], threads: int
    ) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The ids of every document, and where each ends in them; one thread, whatever is asked."""
        del threads
        raw = bytes(data)
        found = [self.encode(raw[start:end]) for start, end in pairwise([0, *ends.tolist()])]
        lengths = np.array([len(ids) for ids in found], dtype=np.int64)
        return np.concatenate([np.empty(0, np.uint32), *found]), lengths.cumsum()

    def _encode_word(self, word: bytes) -> Sequence[int]:
        whole = self._whole.get(word)
        ids = [whole] if whole is not None else self._merge(word)
        if len(word) <= _CACHE_WORD_BYTES:
            if len(self._cache) >= _CACHE_WORDS:
                self._cache.clear()
            self._cache[word] = ids
        return ids

    def _merge(self, word: bytes) -> list[int]:
        return merge_ids([self._byte_ids[byte] for byte in word], self._ranks)


def merge_ids(ids: list[int], ranks: Mapping[tuple[int, int], tuple[int, int]]) -> list[int]:
    """The ids of one word: the earliest merge first, leftmost first, in O(n log n).

    Args:
        ids: of the word's bytes; changed in place.
        ranks: pair of ids -> (rank of their merge, id that it makes).
    """
    # A linked list of ids, and a heap of the merges possible in it; stale ones are skipped.
    end, gone = len(ids), -1
    following = list(range(1, end + 1))
    preceding = list(range(-1, end - 1))
    heap = [(ranks[pair], place) for place, pair in enumerate(pairwise(ids)) if pair in ranks]
    heapq.heapify(heap)
    while heap:
        merge, place = heapq.heappop(heap)
        after = following[place]
        if after == end or ranks.get((ids[place], ids[after])) != merge:
            continue
        ids[place], ids[after] = merge[1], gone
        beyond = following[place] = following[after]
        if beyond != end:
            preceding[beyond] = place
            if (candidate := ranks.get((ids[place], ids[beyond]))) is not None:
                heapq.heappush(heap, (candidate, place))
        before = preceding[place]
        if before >= 0 and (candidate := ranks.get((ids[before], ids[place]))) is not None:
            heapq.heappush(heap, (candidate, before))
    return [found for found in ids if found != gone]


def _of_length_one(token_bytes: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    return ((number, token) for number, token in enumerate(token_bytes) if len(token) == 1)
