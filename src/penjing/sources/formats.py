"""One file to rows, streaming, whatever its format.

Which files a source has, and what its rows must hold, is `sources.rows`' duty. A row that cannot
be read is quarantined; a file that ends early is an error, so that nothing is lost unseen.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
_CHUNK_BYTES = 1 << 17  # 16 KiB to 1 MiB: the fastest to unpack and cut into lines
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
    line = 0
    with _telling(file, quarantine, lambda: line):
        for row in reader(path, file, text_field, quarantine):
            line = row.line
            yield row


@contextmanager
def _telling(file: str, quarantine: Quarantine, line: Callable[[], int]) -> Iterator[None]:
    """Says where a file is damaged, and notes one that is empty."""
    before = quarantine.rows
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError, pa.ArrowException) as bad:
        raise DataError(
            f"{file}: damaged or cut short after row {line()}: {str(bad).splitlines()[0]}. "
            "Fetch the file again, or take it out of the source's paths"
        ) from bad
    except OSError as bad:
        why = bad.strerror or str(bad).splitlines()[0]
        raise DataError(f"{file}: cannot be read after row {line()}: {why}") from bad
    if quarantine.rows == before:
        quarantine.seen()
        quarantine.add_raw(file, 1, "the file is empty")


def json_blocks(
    path: Path, file: str, quarantine: Quarantine
) -> Iterator[tuple[int, bytes | None]]:
    """A file of JSON lines as blocks of whole lines, with the number of each block's first line.

    None stands for one line over `MAX_ROW_BYTES`. Rows are counted by the caller, not here.

    Raises:
        DataError: as `read_file`.
    """
    unpacked = next(_UNPACKED[suffix] for suffix in _UNPACKED if path.name.endswith(suffix))
    number, block = 1, None
    with _telling(file, quarantine, lambda: number - 1 + (block or b"").count(b"\n")):
        for number, block in _blocks(unpacked(path)):
            yield number, block


def has_json_lines(path: Path) -> bool:
    return path.name.endswith(tuple(_UNPACKED))


def _blocks(chunks: Iterator[bytes]) -> Iterator[tuple[int, bytes | None]]:
    number, parts, size = 1, list[bytes](), 0
    for chunk in chunks:
        first, last = chunk.find(b"\n") + 1, chunk.rfind(b"\n") + 1
        begin = 0
        if first and size + first - 1 > MAX_ROW_BYTES:
            yield number, None
            number, parts, size, begin = number + 1, [], 0, first
        if last > begin:
            block = b"".join([*parts, chunk[begin:last]])
            yield number, block
            number, parts, size = number + block.count(b"\n"), [], 0
        size += len(chunk) - max(last, begin)
        parts = [*parts, chunk[max(last, begin) :]] if size <= MAX_ROW_BYTES else []
    if size:
        yield number, b"".join(parts) if size <= MAX_ROW_BYTES else None


def _plain(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk


def _gzipped(path: Path) -> Iterator[bytes]:
    opened, damage = _gzip()
    with path.open("rb") as packed, opened(packed, "rb") as stream:
        while True:
            try:
                chunk = stream.read(_CHUNK_BYTES)
            except damage as bad:
                raise zlib.error(str(bad)) from bad
            if not chunk:
                return
            yield chunk


def _gzip() -> tuple[Callable[..., Any], type[Exception]]:
    """What opens a gzip file, and what it raises of damaged data: ISA-L where it is installed."""
    try:
        from isal import igzip, isal_zlib
    except ImportError:
        return gzip.open, zlib.error
    damage: Any = isal_zlib.error  # its stubs call the class an instance
    return igzip.open, damage


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
            if line is not None and is_blank(line):
                continue
            quarantine.seen()
            value, reason = json_object(line, first=number == 1)
            if reason:
                quarantine.add_raw(file, number, reason, (line or b"")[:200])
            else:
                yield Row(value, file, number)

    return read


def is_blank(line: bytes) -> bool:
    """Whether a line of JSON lines is no row at all."""
    return not line.strip(b" \t\r\n" + _BYTE_ORDER_MARK)


def json_object(line: bytes | None, *, first: bool) -> tuple[dict[str, Any], str]:
    """The object of a line, or why there is none; `first`: it may begin with a byte-order mark."""
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


def _csv(path: Path, file: str, _text_field: str | None, quarantine: Quarantine) -> Iterator[Row]:
    """Rows by the names of the first line; a row's line is that on which it begins."""
    lines = _csv_lines(path, file)
    _, names = next(lines, (1, []))
    if len(set(names)) < len(names):
        raise DataError(f"{file}:1: found columns {', '.join(names)}: each name once, please")
    for line, values in lines:
        if not values:
            continue
        quarantine.seen()
        text = ",".join(values)
        if len(values) != len(names):
            reason = f"{len(values)} cells, and the first line names {len(names)}"
            quarantine.add_raw(file, line, reason, text[:200].encode(errors="replace"))
        elif not text.isascii() and any("\udc80" <= letter <= "\udcff" for letter in text):
            quarantine.add_raw(file, line, "not UTF-8", text[:200].encode(errors="replace"))
        else:
            yield Row(dict(zip(names, values, strict=True)), file, line)


def _csv_lines(path: Path, file: str) -> Iterator[tuple[int, list[str]]]:
    """Cells with the number of the line on which they begin."""
    csv.field_size_limit(MAX_ROW_BYTES)
    # What is no UTF-8 becomes lone surrogates, so that it costs its row and not the file.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        cells, line = csv.reader(stream, strict=True), 1
        try:
            for values in cells:
                yield line, values
                line = cells.line_num + 1
        except csv.Error as bad:
            raise DataError(
                f"{file}:{line}: damaged or cut short: {bad}. Close its quotes, or take the file "
                "out of the source's paths"
            ) from bad


def parquet_batches(
    path: Path, file: str, text_field: str | None, quarantine: Quarantine
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """A parquet file in batches, with the number of each batch's first row.

    Rows are counted by the caller, not here.

    Raises:
        DataError: as `read_file`.
    """
    number = 1
    with _telling(file, quarantine, lambda: number - 1):
        for batch in _batches(path, text_field):
            yield number, batch
            number += batch.num_rows


def _batches(path: Path, text_field: str | None) -> Iterator[pa.RecordBatch]:
    if path.stat().st_size:
        with path.open("rb") as stream, pq.ParquetFile(stream) as table:
            wanted = [name for name in table.schema_arrow.names if name == text_field]
            yield from table.iter_batches(batch_size=256, columns=wanted or None)


def _parquet(
    path: Path, file: str, text_field: str | None, quarantine: Quarantine
) -> Iterator[Row]:
    number = 1
    for batch in _batches(path, text_field):
        yield from parquet_rows(batch, number, file, quarantine)
        number += batch.num_rows


def parquet_rows(
    batch: pa.RecordBatch, first: int, file: str, quarantine: Quarantine
) -> Iterator[Row]:
    """The rows of one batch, of which the first has that number."""
    names = batch.schema.names
    for index in range(batch.num_rows):
        quarantine.seen()
        try:
            values = [column[index].as_py() for column in batch.columns]
        except (ValueError, OverflowError) as bad:  # invalid UTF-8, dates out of range
            quarantine.add_raw(file, first + index, f"unreadable value ({type(bad).__name__})")
        else:
            yield Row(dict(zip(names, values, strict=True)), file, first + index)


_UNPACKED: dict[str, Callable[[Path], Iterator[bytes]]] = {
    ".jsonl": _plain,
    ".jsonl.gz": _gzipped,
    ".jsonl.zst": _zstandard,
    ".json.gz": _gzipped,
}

READERS: dict[str, Reader] = {
    ".txt": _text,
    ".md": _text,
    **{suffix: _json_lines(unpacked) for suffix, unpacked in _UNPACKED.items()},
    ".csv": _csv,
    ".parquet": _parquet,
}
"""Supported suffixes. A `.json.gz` holds one object a line, as C4's do."""
