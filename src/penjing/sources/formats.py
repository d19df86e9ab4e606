"""One file to rows, streaming, whatever its format.

Which files a source has, and what its rows must hold, is `sources.rows`' duty. A row that cannot
be read is quarantined; a file that ends early is an error, so that nothing is lost unseen.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from penjing.errors import DataError
from penjing.sources.quarantine import Quarantine, Row

MAX_ROW_BYTES = 64 << 20
"""Longest line of JSON, and longest document of a text file that is not cut at a blank line."""

_SPLIT_DOCUMENT_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16
# A zstd block of 4 bytes may hold 128 KiB: small input chunks bound the output of each.
_ZSTD_CHUNK_BYTES = 1 << 11
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Reader = Callable[[Path, str, str | None, Quarantine], Iterator[Row]]


def read_file(
    path: Path, file: str, text_field: str | None, quarantine: Quarantine
) -> Iterator[Row]:
    """The rows of one file, in order.

    A `.txt` or `.md` file is one document; over 64 MiB it is cut at blank lines, after 1 MiB
    at least.

    Args:
        path: where the file is.
        file: what it is called in rows and messages.
        text_field: the one parquet column read, and the key that holds a text file's text;
            None reads every column.
        quarantine: counts every row and takes those that cannot be read.

    Raises:
        DataError: unknown suffix; the file cannot be opened, is damaged or ends early.
    """
    reader = next((READERS[suffix] for suffix in READERS if path.name.endswith(suffix)), None)
    if reader is None:
        raise DataError(f"{file}: unknown format; supported are {' '.join(READERS)}")
    before, line = quarantine.rows, 0
    try:
        for row in reader(path, file, text_field, quarantine):
            line = row.line
            yield row
    except (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError, pa.ArrowException) as bad:
        raise DataError(
            f"{file}: damaged or cut short after row {line}: {str(bad).splitlines()[0]}. "
            "Fetch the file again, or take it out of the source's paths"
        ) from bad
    except OSError as bad:
        why = bad.strerror or str(bad).splitlines()[0]
        raise DataError(f"{file}: cannot be read after row {line}: {why}") from bad
    if quarantine.rows == before:
        quarantine.seen()
        quarantine.add_raw(file, 1, "the file is empty")


def _plain(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk


def _gzipped(path: Path) -> Iterator[bytes]:
    with gzip.open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk


def _zstandard(path: Path) -> Iterator[bytes]:
    # The library's own stream reader takes a cut frame for the end of the file.
    decompressor = zstandard.ZstdDecompressor()
    frame = decompressor.decompressobj()
    fresh = True
    with path.open("rb") as stream:
        while chunk := stream.read(_ZSTD_CHUNK_BYTES):
            while chunk:
                yield frame.decompress(chunk)
                chunk = frame.unused_data if frame.eof else b""
                fresh = frame.eof
                if fresh:
                    frame = decompressor.decompressobj()
    if not fresh:
        raise EOFError("the last zstd frame is not complete")


def _lines(chunks: Iterator[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines with their ends; None stands for one over `MAX_ROW_BYTES`."""
    number, parts, size = 1, [b""], 0
    for chunk in chunks:
        *complete, rest = chunk.split(b"\n")
        for piece in complete:
            whole = size + len(piece) <= MAX_ROW_BYTES
            yield number, b"".join([*parts, piece, b"\n"]) if whole else None
            number, parts, size = number + 1, [], 0
        size += len(rest)
        parts = [*parts, rest] if size <= MAX_ROW_BYTES else []
    if size:
        yield number, b"".join(parts) if size <= MAX_ROW_BYTES else None


def _text(path: Path, file: str, text_field: str | None, quarantine: Quarantine) -> Iterator[Row]:
    cut = path.stat().st_size > MAX_ROW_BYTES
    first, lines, size = 1, list[bytes](), 0
    for number, line in _lines(_plain(path)):
        lines.append(line or b"")
        size += len(lines[-1])
        enough = size >= _SPLIT_DOCUMENT_BYTES and not lines[-1].strip()
        if line is None or (cut and (enough or size > MAX_ROW_BYTES)):
            yield from _document(lines, file, first, text_field, quarantine)
            first, lines, size = number + 1, [], 0
            if line is None:
                quarantine.seen()
                quarantine.add_raw(file, number, "a line over 64 MiB")
    if lines:
        yield from _document(lines, file, first, text_field, quarantine)


def _document(
    lines: list[bytes], file: str, first: int, text_field: str | None, quarantine: Quarantine
) -> Iterator[Row]:
    quarantine.seen()
    data = b"".join(lines).removeprefix(_BYTE_ORDER_MARK)
    try:
        yield Row({text_field or "text": data.decode()}, file, first)
    except UnicodeDecodeError as bad:
        line = first + data[: bad.start].count(b"\n")
        around = data[max(0, bad.start - 40) : bad.start + 40]
        quarantine.add_raw(file, line, "not UTF-8", around)


def _json_lines(
    unpacked: Callable[[Path], Iterator[bytes]],
) -> Reader:
    def read(
        path: Path, file: str, _text_field: str | None, quarantine: Quarantine
    ) -> Iterator[Row]:
        for number, line in _lines(unpacked(path)):
            if line is not None and not line.strip(b" \t\r\n" + _BYTE_ORDER_MARK):
                continue
            quarantine.seen()
            value, reason = _json_object(line, first=number == 1)
            if reason:
                quarantine.add_raw(file, number, reason, (line or b"")[:200])
            else:
                yield Row(value, file, number)

    return read


def _json_object(line: bytes | None, *, first: bool) -> tuple[dict[str, Any], str]:
    """The object of a line, or why there is none."""
    if line is None:
        return {}, "a line over 64 MiB"
    try:
        value = json.loads((line.removeprefix(_BYTE_ORDER_MARK) if first else line).decode())
    except UnicodeDecodeError:
        return {}, "not UTF-8"
    except (ValueError, RecursionError):
        return {}, "not JSON"
    if not isinstance(value, dict):
        return {}, f"a JSON {type(value).__name__}, wanted one object a line"
    return value, ""


def _parquet(
    path: Path, file: str, text_field: str | None, quarantine: Quarantine
) -> Iterator[Row]:
    if path.stat().st_size == 0:
        return
    number = 0
    with pq.ParquetFile(path) as table:
        wanted = [name for name in table.schema_arrow.names if name == text_field]
        for batch in table.iter_batches(batch_size=256, columns=wanted or None):
            names = batch.schema.names
            for index in range(batch.num_rows):
                number += 1
                quarantine.seen()
                try:
                    values = [column[index].as_py() for column in batch.columns]
                except (ValueError, OverflowError) as bad:  # invalid UTF-8, dates out of range
                    quarantine.add_raw(file, number, f"unreadable value ({type(bad).__name__})")
                else:
                    yield Row(dict(zip(names, values, strict=True)), file, number)


READERS: dict[str, Reader] = {
    ".txt": _text,
    ".md": _text,
    ".jsonl": _json_lines(_plain),
    ".jsonl.gz": _json_lines(_gzipped),
    ".jsonl.zst": _json_lines(_zstandard),
    ".json.gz": _json_lines(_gzipped),
    ".parquet": _parquet,
}
"""Supported suffixes. A `.json.gz` holds one object a line, as C4's do."""
