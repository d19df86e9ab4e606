"""The core of the tokenizer in plain Python: what every function of the compiled one does, slowly.

Which of the two a run uses is `text.native`'s duty.
"""

import json
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray

from penjing.text.bpe import counted_merges
from penjing.text.cutting import capped, words
from penjing.text.patterns import PATTERNS

_MASK = 2**64 - 1
_PATTERNS = {name: regex.compile(pattern) for name, pattern in PATTERNS.items()}


def unicode_version() -> str:
    """What decides which characters are letters: the version of `regex`, not that of Unicode."""
    return f"regex {regex.__version__}"


def word_hash(word: bytes) -> int:
    """64 bits that decide a word's partition and its luck in sampling (wyhash's constants)."""
    value = 0xA0761D6478BD642F
    for place in range(0, len(word), 8):
        chunk = int.from_bytes(word[place : place + 8], "little")
        value = _fold(value ^ chunk, 0xE7037ED1A0B428DB)
    return _fold(value ^ len(word), 0x8EBC6AF09C88C6E3)


def _fold(left: int, right: int) -> int:
    product = left * right
    return product & _MASK ^ product >> 64


def split_ends(text: bytes, pattern: str, cap: int) -> NDArray[np.int64]:
    """Where the words of a text end in it, (words,); none is longer than `cap` bytes, 0: any.

    Raises:
        ValueError: no pattern has this name.
    """
    return np.cumsum([len(piece) for piece in _pieces(text, pattern, cap)], dtype=np.int64)


def _pieces(text: bytes, pattern: str, cap: int) -> Iterator[bytes]:
    for word in words(text, _expression(pattern)):
        yield from capped(word, cap)


def _expression(pattern: str) -> Any:
    if pattern not in _PATTERNS:
        raise ValueError(f"no pattern is called '{pattern}'; there are {', '.join(_PATTERNS)}")
    return _PATTERNS[pattern]


class WordCounter:
    """Counts words.

    Attributes:
        documents, bytes, pieces: counted since the last `take`.
        memory_bytes: what the counts hold, roughly.
    """

    def __init__(self, pattern: str, cap: int) -> None:
        _expression(pattern)
        self._pattern, self._cap = pattern, cap
        self._counts: Counter[bytes] = Counter()
        self.documents = self.bytes = self.pieces = self.memory_bytes = 0

    def add(self, data: Any, ends: NDArray[np.int64]) -> None:
        raw, start = bytes(data), 0
        for end in ends.tolist():
            self.add_words(list(_pieces(raw[start:end], self._pattern, self._cap)))
            start = end
        self.documents += len(ends)

    def add_words(self, words: Sequence[bytes]) -> None:
        for word in words:
            if word not in self._counts:
                self.memory_bytes += len(word) + 128
            self._counts[word] += 1
            self.bytes += len(word)
        self.pieces += len(words)

    @property
    def unique(self) -> int:
        return len(self._counts)

    def take(self, partitions: int) -> list[bytes]:
        parts: list[dict[bytes, int]] = [{} for _ in range(partitions)]
        shift = 64 - (partitions.bit_length() - 1)
        for word, count in self._counts.items():
            parts[word_hash(word) >> shift][word] = count
        self._counts.clear()
        self.documents = self.bytes = self.pieces = self.memory_bytes = 0
        return [_packed(part) for part in parts]


def _packed(counts: Mapping[bytes, int]) -> bytes:
    out = bytearray()
    for word in sorted(counts):
        out += _varint(len(word)) + _varint(counts[word]) + word
    return bytes(out)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _read_varint(blob: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = blob[place]
        place += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, place


def _unpacked(blob: bytes) -> Iterator[tuple[bytes, int]]:
    place = 0
    while place < len(blob):
        length, place = _read_varint(blob, place)
        count, place = _read_varint(blob, place)
        yield blob[place : place + length], count
        place += length


def merge_words(blobs: Sequence[bytes]) -> bytes:
    counts: Counter[bytes] = Counter()
    for blob in blobs:
        for word, count in _unpacked(blob):
            counts[word] += count
    return _packed(counts)


def count_histogram(
    blob: bytes,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    words: Counter[int] = Counter()
    sizes: Counter[int] = Counter()
    for word, count in _unpacked(blob):
        words[count] += 1
        sizes[count] += len(word)
    counts = sorted(words)
    found = (counts, [words[c] for c in counts], [sizes[c] for c in counts])
    first, second, third = (np.array(column, dtype=np.int64) for column in found)
    return first, second, third


def sample_words(blob: bytes, threshold: int) -> bytes:
    return _packed(
        {
            word: max(count, threshold)
            for word, count in _unpacked(blob)
            if count >= threshold or word_hash(word) * threshold < count << 64
        }
    )


def train_merges(
    blobs: Sequence[bytes], num_merges: int, on_progress: Callable[[int, int], None] | None
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Pairs of ids, (merges, 2), and how often each stood in the words then, (merges,).

    Byte b has id b, merge k makes id 256 + k.
    """
    counts = {word: count for blob in blobs for word, count in _unpacked(blob)}
    ids = {bytes([byte]): byte for byte in range(256)}
    pairs, found = [], []
    for left, right, count in counted_merges(counts, num_merges, on_progress):
        pairs.append((ids[left], ids[right]))
        ids[left + right] = len(ids)
        found.append(count)
    return np.array(pairs, dtype=np.uint32).reshape(-1, 2), np.array(found, dtype=np.int64)


def json_lines(
    data: bytes, field: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64], list[tuple[int, str]]]:
    texts: list[bytes] = []
    lines: list[int] = []
    bad: list[tuple[int, str]] = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            texts.append(json.loads(line.decode())[field].encode())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            bad.append((number, str(error)))
        else:
            lines.append(number)
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    return np.frombuffer(b"".join(texts), np.uint8), ends, np.array(lines, np.int64), bad


def pack_rows(
    lengths: NDArray[np.int64], width: int, free: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pieces to rows, best fit: the fullest row that still takes a piece, else a new one. Then the
    emptiest rows are given up and cut to fill the gaps of others, largest gaps first, until at most
    `free` positions are empty, or less than one row.

    Args:
        lengths: of the pieces, in order, (pieces,), each at most `width`.
        width: positions of a row.
        free: positions; below 0 no piece is cut.

    Returns:
        (parts, 3) of piece, offset and length, row after row; (rows,) parts of each row.
    """
    rows: list[list[tuple[int, int, int]]] = []
    # Sorted free space of the open rows, each as free * scale + row, so that one bisection finds
    # the fullest row that still takes the piece.
    scale = len(lengths) + 1
    gaps: list[int] = []
    for piece, length in enumerate(lengths.tolist()):
        place = bisect_left(gaps, length * scale)
        if place < len(gaps):
            space, row = divmod(gaps.pop(place), scale)
        else:
            space, row = width, len(rows)
            rows.append([])
        rows[row].append((piece, 0, length))
        if space > length:
            insort(gaps, (space - length) * scale + row)
    if free >= 0:
        _fill_gaps(rows, width, free)
    rows = [row for row in rows if row]
    parts = [part for row in rows for part in row]
    counts = np.array([len(row) for row in rows], dtype=np.int64)
    return np.array(parts, dtype=np.int64).reshape(-1, 3), counts


def _fill_gaps(rows: list[list[tuple[int, int, int]]], width: int, free: int) -> None:
    gaps = [width - sum(length for *_, length in row) for row in rows]
    empty = sum(gaps)
    waiting = iter(sorted(range(len(rows)), key=lambda row: -gaps[row]))
    taker = -1
    # A whole row's worth of gaps: so those of the others take all that the given-up row holds.
    while empty > free and empty >= width:
        giver = rows[next(waiting)]
        while giver:
            if taker < 0 or not gaps[taker]:
                taker = next(waiting)
            piece, offset, length = giver.pop()
            moved = min(length, gaps[taker])
            rows[taker].append((piece, offset, moved))
            gaps[taker] -= moved
            if moved < length:
                giver.append((piece, offset + moved, length - moved))
        empty -= width


def fill_rows(
    ids: NDArray[Any],
    mask: NDArray[np.uint8],
    pieces: NDArray[np.int64],
    tokens: NDArray[np.int64],
    targets: NDArray[np.int64],
    weights: NDArray[np.float32],
    document_ids: NDArray[np.int64],
    end: int,
) -> None:
    """Write pieces of documents into the rows of a batch, (rows, positions) each.

    Args:
        ids: of a shard.
        mask: which of them are trained, as bytes; empty: all.
        pieces: (pieces, 6): row, first position, first id, length, number within the row, and
            whether the document ends with it: its last target is then `end`, trained unless
            there is a mask.
        tokens: written where the pieces say, as the other three are.
        targets: the ids that come next.
        weights: 1 where the target is trained, else 0.
        document_ids: the pieces' numbers.
        end: `<|endoftext|>`.
    """
    for row, first, begin, length, number, ends in pieces.tolist():
        stop, known = first + length, length - bool(ends)
        tokens[row, first:stop] = ids[begin : begin + length]
        targets[row, first : first + known] = ids[begin + 1 : begin + known + 1]
        document_ids[row, first:stop] = number
        weights[row, first:stop] = 1
        if len(mask):
            weights[row, first : first + known] = mask[begin + 1 : begin + known + 1]
        if ends:
            targets[row, stop - 1] = end
            weights[row, stop - 1] = not len(mask)


def pad_rows(
    filled: NDArray[np.int64],
    tokens: NDArray[np.int64],
    targets: NDArray[np.int64],
    weights: NDArray[np.float32],
    document_ids: NDArray[np.int64],
    end: int,
) -> None:
    """Make padding of what each row has behind its first `filled` positions, (rows,)."""
    for row, first in enumerate(filled.tolist()):
        tokens[row, first:] = targets[row, first:] = end
        weights[row, first:] = 0
        document_ids[row, first:] = -1
