"""Word counts on disk: run files by hash partition, made under a memory limit, merged in order.

Which texts are counted, and what is learnt from the counts, are the tokenizer stage's duties.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import regex
import xxhash
import zstandard
from numpy.typing import NDArray

from penjing.artifacts import disk
from penjing.artifacts.remote import read_range
from penjing.data.texts import TextBatch
from penjing.errors import ArtifactError
from penjing.text import cutting, native
from penjing.text.patterns import PATTERNS

WORD_BYTES = 256
"""Longer words are cut for counting: they would make training quadratic."""

FLUSH_SHARE = 0.5
"""Of its memory, what a counter may fill before it is packed, which needs as much again."""

MOST_COUNTED_BYTES = 640 << 20
"""The compiled counter ends at 1 GB of words (`native/word_table.hpp`), and a batch of 64 MiB may
bring a third of that at once.
"""

_MAGIC = b"PENJRUN1"
_HEAD = struct.Struct("<8s32sQQQI4x")
_ZSTD_LEVEL = 1


@dataclass(frozen=True)
class Counting:
    """How words are counted; `settings` (sha256, hex) names all that determines the result."""

    settings: str
    pattern: str
    partitions: int
    memory_bytes: int


@dataclass(frozen=True)
class Counted:
    """What a run file's header says: its documents, their bytes and pieces."""

    documents: int
    bytes: int
    pieces: int


def count_texts(
    batches: Iterable[TextBatch],
    how: Counting,
    directory: Path,
    advance: Callable[[int, int], None],
) -> tuple[Counted, int]:
    """Counts the words of texts into `directory/NN.run`; returns the totals and the runs' number.

    Args:
        batches: the texts.
        how: pattern, partitions and the memory after which another run is begun.
        directory: where the runs go.
        advance: told the bytes and the documents counted so far.
    """
    own = None if how.pattern in PATTERNS else regex.compile(how.pattern)
    limit = flush_bytes(how.memory_bytes)
    total = Counted(0, 0, 0)
    runs = 0

    def flush(counter: native.WordCounter, counted: Counted) -> Counted:
        counted = replace(counted, pieces=counter.pieces)
        blobs = counter.take(how.partitions)
        _write_run(directory / run_name(runs), how, counted, _drained(blobs))
        return _sum(total, counted)

    counter, counted = _new_counter(how), Counted(0, 0, 0)
    for batch in batches:
        if own is None:
            counter.add(batch.data, batch.ends)
        else:
            counter.add_words(list(_own_words(own, batch.texts())))
        counted = _sum(counted, Counted(len(batch.ends), len(batch.data), 0))
        advance(total.bytes + counted.bytes, total.documents + counted.documents)
        if counter.memory_bytes > limit:
            total, runs = flush(counter, counted), runs + 1
            counter, counted = _new_counter(how), Counted(0, 0, 0)
    if counted.documents or not runs:
        total, runs = flush(counter, counted), runs + 1
    return total, runs


def flush_bytes(memory_bytes: int) -> int:
    """What a counter may hold before a run is written."""
    return min(int(memory_bytes * FLUSH_SHARE), MOST_COUNTED_BYTES)


def run_name(number: int) -> str:
    return f"{number:03}.run"


def _sum(*parts: Counted) -> Counted:
    documents = sum(part.documents for part in parts)
    pieces = sum(part.pieces for part in parts)
    return Counted(documents, sum(part.bytes for part in parts), pieces)


def _drained(blobs: list[bytes]) -> Iterator[bytes]:
    """The blobs in order; each is let go of as it is handed out."""
    blobs.reverse()
    while blobs:
        yield blobs.pop()


def _new_counter(how: Counting) -> native.WordCounter:
    pattern = how.pattern if how.pattern in PATTERNS else "qwen2"
    return native.WordCounter(pattern, WORD_BYTES)


def _own_words(own: Any, texts: Sequence[bytes]) -> Iterator[bytes]:
    """Words by a pattern of the run file; what it leaves out is a word too."""
    for text in texts:
        for word in cutting.words(text, own):
            yield from cutting.capped(word, WORD_BYTES)


def _write_run(path: Path, how: Counting, counted: Counted, words: Iterable[bytes]) -> None:
    """Header, then each partition's words, packed by zstd."""
    packer = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
    blobs = [packer.compress(blob) if blob else b"" for blob in words]
    hashes = np.array([xxhash.xxh3_64_intdigest(blob) for blob in blobs], dtype="<u8")
    start = _HEAD.size + 8 * (2 * len(blobs) + 1) + 8
    ends = np.cumsum([start, *map(len, blobs)], dtype="<u8")
    facts = (counted.documents, counted.bytes, counted.pieces, len(blobs))
    head = _HEAD.pack(_MAGIC, bytes.fromhex(how.settings), *facts)
    head += ends.tobytes() + hashes.tobytes()
    head += struct.pack("<Q", xxhash.xxh3_64_intdigest(head))
    disk.write_file(path, b"".join([head, *blobs]))


class RunFile:
    """A run file, opened: its header was checked, a partition is checked when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        fixed = read_range(path, 0, _HEAD.size)
        try:
            magic, settings, *facts, partitions = _HEAD.unpack(fixed)
        except struct.error as error:
            raise self._damaged("its header is cut short") from error
        if magic != _MAGIC or partitions > 1 << 20:
            raise self._damaged("it is no run file")
        end = _HEAD.size + 8 * (2 * partitions + 1)
        tables, digest = read_range(path, _HEAD.size, end), read_range(path, end, end + 8)
        if digest != struct.pack("<Q", xxhash.xxh3_64_intdigest(fixed + tables)):
            raise self._damaged("its header is not as it was written")
        self.settings, self.counted, self.partitions = settings.hex(), Counted(*facts), partitions
        numbers = np.frombuffer(tables, dtype="<u8")
        self._ends, self._hashes = numbers[: partitions + 1], numbers[partitions + 1 :]

    def _damaged(self, why: str) -> ArtifactError:
        return ArtifactError(
            f"{self.path}: {why}: count again (only the damaged chunk is counted then)"
        )

    def partition(self, number: int) -> bytes:
        """The words of one partition, as a words blob.

        Raises:
            ArtifactError: they are not as they were written.
        """
        start, end = int(self._ends[number]), int(self._ends[number + 1])
        data = read_range(self.path, start, end)
        if xxhash.xxh3_64_intdigest(data) != int(self._hashes[number]):
            raise self._damaged(f"partition {number} is not as it was written")
        return zstandard.ZstdDecompressor().decompress(data) if data else b""


@dataclass(frozen=True)
class Histogram:
    """Distinct counts, ascending, the number of words that have them, and these words' bytes."""

    counts: NDArray[np.int64]
    words: NDArray[np.int64]
    bytes: NDArray[np.int64]

    def rows(self) -> list[list[int]]:
        return [column.tolist() for column in (self.counts, self.words, self.bytes)]


def histogram_of(parts: Iterable[Sequence[Sequence[int]]]) -> Histogram:
    """The sum of histograms, each as `Histogram.rows`."""
    columns = [np.empty(0, np.int64)] * 3
    for rows in parts:
        columns = [
            np.concatenate([old, np.array(new, dtype=np.int64)])
            for old, new in zip(columns, rows, strict=True)
        ]
    counts, places = np.unique(columns[0], return_inverse=True)
    sums = [np.zeros(len(counts), np.int64) for _ in range(2)]
    for total, column in zip(sums, columns[1:], strict=True):
        np.add.at(total, places, column)
    return Histogram(counts, *sums)


def merge_partitions(
    runs: Sequence[RunFile], first: int, stop: int, how: Counting, path: Path
) -> Histogram:
    """Partitions [first, stop) of several runs as one run file; returns their histogram.

    One partition of all runs is held at a time.
    """
    rows: list[list[list[int]]] = []

    def merged() -> Iterator[bytes]:
        for number in range(first, stop):
            blob = native.merge_words([run.partition(number) for run in runs])
            rows.append([column.tolist() for column in native.count_histogram(blob)])
            yield blob

    _write_run(path, how, _sum(*(run.counted for run in runs)), merged())
    return histogram_of(rows)
