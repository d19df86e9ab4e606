"""Byte-pair encoding: splits text into words, learns merges from word counts, applies them.

Which ids are special, and how a tokenizer is stored, is `text.tokenizer`'s duty.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise

import regex

from penjing.text.cutting import capped
from penjing.text.patterns import PATTERNS

Pair = tuple[int, int]

PATTERN = PATTERNS["qwen2"]
"""How text is cut into words before any merge."""

# Letters newer than Unicode 14 are letters here and symbols to Oniguruma (Hugging Face).
_COMPILED = regex.compile(PATTERN)

MIN_PAIR_COUNT = 2
"""A pair seen once is no regularity: training stops there, however many merges were wanted."""

MAX_TRAINING_WORD_BYTES = 256


def split(text: str) -> list[str]:
    """The words of a text; joined they give the text again."""
    words: list[str] = _COMPILED.findall(text)
    return words


def count_words(texts: Iterable[str]) -> Counter[bytes]:
    """How often each word occurs, in UTF-8 (a lone surrogate counts as U+FFFD).

    Words over 256 bytes are cut for training only: they would make it quadratic.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(split(text))
    pieces: Counter[bytes] = Counter()
    for word, count in counts.items():
        for piece in capped(utf8(word), MAX_TRAINING_WORD_BYTES):
            pieces[piece] += count
    return pieces


def utf8(text: str) -> bytes:
    """UTF-8, with U+FFFD for every lone surrogate."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return regex.sub("[\ud800-\udfff]", "\ufffd", text).encode()


def train_merges(
    word_counts: Mapping[bytes, int],
    num_merges: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[tuple[bytes, bytes]]:
    """The merges of byte-pair encoding, most frequent pair first; a tie goes to the smaller ids.

    Byte b has id b, merge k makes id 256 + k. Two merges never spell the same bytes: between two
    surviving boundaries a stretch evolves alone, so equal stretches are merged alike.

    Args:
        word_counts: words as bytes, with their positive counts; their order does not matter.
        num_merges: how many to learn; fewer come back when pairs run out (`MIN_PAIR_COUNT`).
        on_progress: called with (merges learnt, merges wanted) after each merge.

    Source: arXiv:1508.07909, algorithm 1, on bytes.
    """
    return [merge[:2] for merge in counted_merges(word_counts, num_merges, on_progress)]


def counted_merges(
    word_counts: Mapping[bytes, int],
    num_merges: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[tuple[bytes, bytes, int]]:
    """As `train_merges`, each merge with the count of its pair when it was chosen."""
    merges: list[tuple[bytes, bytes, int]] = []
    words = [list(word) for word in word_counts]
    weights = list(word_counts.values())
    counts: defaultdict[Pair, int] = defaultdict(int)
    where: defaultdict[Pair, set[int]] = defaultdict(set)
    for index, word in enumerate(words):
        for found in pairwise(word):
            counts[found] += weights[index]
            where[found].add(index)
    heap = [(-count, found) for found, count in counts.items()]
    heapq.heapify(heap)
    token_bytes = [bytes([byte]) for byte in range(256)]
    while len(merges) < num_merges and (pair := _most_frequent(heap, counts)) is not None:
        new_id = len(token_bytes)
        token_bytes.append(token_bytes[pair[0]] + token_bytes[pair[1]])
        merges.append((token_bytes[pair[0]], token_bytes[pair[1]], counts[pair]))
        gained: set[Pair] = set()
        for index in where.pop(pair):
            word = replace_pair(words[index], pair, new_id)
            for old in pairwise(words[index]):
                counts[old] -= weights[index]
            for new in pairwise(word):
                counts[new] += weights[index]
                if new_id in new:
                    where[new].add(index)
                    gained.add(new)
            words[index] = word
        for new in gained:
            heapq.heappush(heap, (-counts[new], new))
        if on_progress is not None:
            on_progress(len(merges), num_merges)
    return merges


def _most_frequent(heap: list[tuple[int, Pair]], counts: Mapping[Pair, int]) -> Pair | None:
    """Counts fall without a new heap entry: a stale entry goes back with its true count."""
    while heap:
        negative, pair = heapq.heappop(heap)
        if counts[pair] == -negative:
            return pair if counts[pair] >= MIN_PAIR_COUNT else None
        if 0 < counts[pair] < -negative:
            heapq.heappush(heap, (-counts[pair], pair))
    return None


def replace_pair(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    """`ids` with every occurrence of `pair` replaced, from the left and without overlap."""
    merged: list[int] = []
    position, last = 0, len(ids) - 1
    while position <= last:
        if position < last and ids[position] == pair[0] and ids[position + 1] == pair[1]:
            merged.append(new_id)
            position += 2
        else:
            merged.append(ids[position])
            position += 1
    return merged
