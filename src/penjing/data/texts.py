"""Documents as batches of UTF-8: no Python string is made where a file's format allows it.

Which rows are bad, and why, is decided by `sources`, to which every row that looks odd is handed.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penjing.errors import DataError
from penjing.sources.formats import (
    has_json_lines,
    is_blank,
    json_blocks,
    json_object,
    parquet_batches,
    parquet_rows,
    read_file,
)
from penjing.sources.quarantine import Quarantine, Row
from penjing.sources.rows import convert, document_text
from penjing.text import native
from penjing.text.bpe import utf8

BATCH_BYTES = 1 << 20

# First bytes of characters that `str.strip` removes, beyond ASCII: such texts are looked at.
_MAYBE_BLANK = np.zeros(256, dtype=np.bool_)
_MAYBE_BLANK[:0x21] = True
_MAYBE_BLANK[[0xC2, 0xE1, 0xE2, 0xE3]] = True


@dataclass(frozen=True)
class TextBatch:
    """Texts one after another: text i is `data[ends[i - 1]:ends[i]]`. (bytes,) uint8; int64."""

    data: NDArray[np.uint8]
    ends: NDArray[np.int64]

    def texts(self) -> list[bytes]:
        raw = self.data.tobytes()
        starts = [0, *self.ends.tolist()]
        return [raw[start:end] for start, end in pairwise(starts)]

    def characters(self) -> NDArray[np.int64]:
        """Characters up to the end of each text: bytes that continue none. (texts,) int64."""
        totals = np.cumsum(self._begins(), dtype=np.int64)
        return np.concatenate([np.zeros(1, np.int64), totals])[self.ends]

    def num_characters(self) -> int:
        return int(np.count_nonzero(self._begins()))

    def _begins(self) -> NDArray[np.bool_]:
        begins: NDArray[np.bool_] = self.data.view(np.int8) >= -64  # 0x80..0xBF are -128..-65
        return begins


def without(batches: Iterable[TextBatch], dropped: NDArray[np.int64]) -> Iterator[TextBatch]:
    """The texts of all batches, but those whose numbers from 0 on are among `dropped`, (N,)."""
    first = 0
    for batch in batches:
        keep = ~np.isin(np.arange(first, first + len(batch.ends)), dropped)
        first += len(batch.ends)
        lengths = np.diff(batch.ends, prepend=0)
        if keep.all():
            yield batch
        elif keep.any():
            yield TextBatch(batch.data[np.repeat(keep, lengths)], np.cumsum(lengths[keep]))


def batched(texts: Iterable[str]) -> Iterator[TextBatch]:
    """Strings in batches of about a megabyte; a lone surrogate becomes U+FFFD."""
    held: list[bytes] = []
    size = 0
    for text in texts:
        held.append(utf8(text))
        size += len(held[-1])
        if size >= BATCH_BYTES:
            yield join(held)
            held, size = [], 0
    if held:
        yield join(held)


def join(texts: Sequence[bytes]) -> TextBatch:
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    return TextBatch(np.frombuffer(b"".join(texts), dtype=np.uint8), ends)


def document_batches(
    path: Path, file: str, text_field: str, quarantine: Quarantine
) -> Iterator[TextBatch]:
    """The documents of one file, in order: those of `sources.rows.documents`, as bytes.

    Raises:
        DataError: the file is damaged, cut short, or of an unknown format.
    """
    if has_json_lines(path):
        yield from _of_json_lines(path, file, text_field, quarantine)
    elif path.name.endswith(".parquet"):
        yield from _of_parquet(path, file, text_field, quarantine)
    else:
        yield from batched(
            _texts(read_file(path, file, text_field, quarantine), text_field, quarantine)
        )


def _texts(rows: Iterable[Row], text_field: str, quarantine: Quarantine) -> Iterator[str]:
    return convert(rows, lambda value: document_text(value, text_field), quarantine)


def _of_json_lines(
    path: Path, file: str, text_field: str, quarantine: Quarantine
) -> Iterator[TextBatch]:
    for first, block in json_blocks(path, file, quarantine):
        if block is None:
            quarantine.seen()
            quarantine.add_raw(file, first, "a line over 64 MiB")
            continue
        data, ends, lines, bad = native.json_lines(block, text_field)
        batch = TextBatch(data, ends)
        odd = {number for number, _ in bad} | {int(lines[place]) for place in blank_texts(batch)}
        quarantine.seen(len(ends) - len(odd) + len(bad))
        if odd:
            batch = _mended(batch, lines, odd, block, (file, first, text_field, quarantine))
        if len(batch.ends):
            yield batch


def _mended(
    batch: TextBatch,
    lines: NDArray[np.int64],
    odd: set[int],
    block: bytes,
    where: tuple[str, int, str, Quarantine],
) -> TextBatch:
    """The batch without its odd lines, but for those that hold a usable text after all."""
    file, first, text_field, quarantine = where
    raw = block.split(b"\n")
    found = dict(zip(lines.tolist(), batch.texts(), strict=True))
    for number in sorted(odd):
        found.pop(number, None)
        line = raw[number - 1]
        if is_blank(line):
            continue
        quarantine.seen()
        place = first + number - 1
        value, reason = json_object(line, first=place == 1)
        if reason:
            whole = line + b"\n" if number < len(raw) else line
            quarantine.add_raw(file, place, reason, whole[:200])
            continue
        try:
            found[number] = document_text(value, text_field).encode()
        except DataError as problem:
            quarantine.add(Row(value, file, place), str(problem))
    return join([found[number] for number in sorted(found)])


def blank_texts(batch: TextBatch) -> list[int]:
    """Places of the texts that hold nothing but white space."""
    ends = batch.ends
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]]) if len(ends) else ends
    empty = starts == ends
    if len(batch.data):
        empty = empty | _MAYBE_BLANK[batch.data[np.minimum(starts, len(batch.data) - 1)]]
    return [
        place
        for place in np.flatnonzero(empty).tolist()
        if _is_blank(batch.data[starts[place] : ends[place]].tobytes())
    ]


def _is_blank(text: bytes) -> bool:
    # Nearly always the first few characters tell.
    return not (text[:64].decode(errors="ignore").strip() or text.decode(errors="replace").strip())


def _of_parquet(
    path: Path, file: str, text_field: str, quarantine: Quarantine
) -> Iterator[TextBatch]:
    for first, rows in parquet_batches(path, file, text_field, quarantine):
        batch = _column(rows, text_field)
        if batch is None or blank_texts(batch):
            slow = parquet_rows(rows, first, file, quarantine)
            yield from batched(_texts(slow, text_field, quarantine))
        else:
            quarantine.seen(rows.num_rows)
            yield batch


def _column(rows: Any, text_field: str) -> TextBatch | None:
    """Arrow's own buffers of a column of valid text without nulls; None of any other."""
    if rows.schema.names != [text_field]:
        return None
    column = rows.column(0)
    if column.null_count or column.type not in (pa.string(), pa.large_string()):
        return None
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return None
    _, offsets, data = column.buffers()
    wide = np.int64 if column.type == pa.large_string() else np.int32
    stop = column.offset + len(column) + 1
    places = np.frombuffer(offsets, dtype=wide)[column.offset : stop].astype(np.int64)
    raw = np.frombuffer(data, dtype=np.uint8) if data else np.empty(0, np.uint8)
    return TextBatch(raw[places[0] : places[-1]], places[1:] - places[0])


def first_texts(
    batches: Iterable[TextBatch], max_texts: int | None, max_characters: int | None
) -> Iterator[TextBatch]:
    """Texts until one of the limits is reached; the one that passes it is the last, whole."""
    texts, characters = 0, 0
    for batch in batches:
        keep = len(batch.ends)
        if max_texts is not None:
            keep = min(keep, max_texts - texts)
        if max_characters is not None:
            before = np.concatenate([np.zeros(1, np.int64), batch.characters()[:-1]])
            keep = min(keep, int(np.count_nonzero(before < max_characters - characters)))
        if keep:
            end = int(batch.ends[keep - 1])
            kept = TextBatch(batch.data[:end], batch.ends[:keep])
            texts, characters = texts + keep, characters + kept.num_characters()
            yield kept
        if keep < len(batch.ends):
            return


def beginnings(batches: Iterable[TextBatch], max_characters: int) -> Iterator[TextBatch]:
    """Every text, cut after so many characters."""
    for batch in batches:
        lengths = np.diff(batch.characters(), prepend=0)
        if len(lengths) == 0 or int(lengths.max()) <= max_characters:
            yield batch
        else:
            yield join([_beginning(text, max_characters) for text in batch.texts()])


def _beginning(text: bytes, max_characters: int) -> bytes:
    if len(text) <= max_characters:
        return text
    return text.decode(errors="replace")[:max_characters].encode()
