"""A source's files to rows and documents, in an order that depends on their names alone.

How a file of each format is read is `sources.formats`' duty; conversations and preferences are
made of rows by the stages (`convert`).
"""

import difflib
import glob
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from penjing.artifacts.remote import is_remote, matching, name_of, place
from penjing.config.schema import SourceConfig
from penjing.errors import DataError
from penjing.sources.formats import read_file
from penjing.sources.quarantine import Quarantine, Row

Converted = TypeVar("Converted")


@dataclass(frozen=True)
class Document:
    """A text, the source it is from, and the sha256 (hex) of its UTF-8."""

    text: str
    source: str
    digest: str


def text_digest(text: str) -> str:
    """sha256 (hex) of a text's UTF-8, by which duplicates and validation rows are known."""
    return hashlib.sha256(text.encode()).hexdigest()


def find_files(paths: Sequence[str], base: Path) -> list[Path]:
    """The files that paths, globs (relative to `base`) and URLs name, each once, sorted.

    Raises:
        DataError: a path or glob names no file; near misses are shown.
    """
    found: set[Path] = set()
    for pattern in paths:
        plain = place(pattern, base, "sources")
        if is_remote(plain):
            at_url = matching(plain)
            if not at_url:
                raise DataError(f"{pattern}: no such file")
            found.update(at_url)
            continue
        names = [str(plain)] if plain.exists() else glob.glob(str(plain), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
        files = {Path(name) for name in names if Path(name).is_file()}
        if not files:
            raise DataError(f"{plain}: no such file{_near_misses(plain)}")
        found |= files
    return sorted(found, key=str)


def _near_misses(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f", and no directory {folder}"
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    if not names:
        return f": {folder} has no files"
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"; {folder} has {', '.join(names[:5])}{more}"


def rows(config: SourceConfig, base: Path, quarantine: Quarantine) -> Iterator[Row]:
    """The rows of a source's files, at most `config.rows`.

    Raises:
        DataError: a file is missing, of an unknown format, damaged or cut short.
    """
    every = (
        row
        for path in find_files(config.paths, base)
        for row in _read(path, config, base, quarantine)
    )
    return islice(every, config.rows)


def _read(path: Path, config: SourceConfig, base: Path, quarantine: Quarantine) -> Iterator[Row]:
    file = name_of(path, base)
    text_field = config.text_field if config.kind == "documents" else None
    return read_file(path, file, text_field, quarantine)


def documents(config: SourceConfig, base: Path, quarantine: Quarantine) -> Iterator[Document]:
    """The documents of a source; rows without a usable text are quarantined.

    Raises:
        DataError: as `rows`.
    """

    def document(value: Mapping[str, Any]) -> Document:
        text = document_text(value, config.text_field)
        return Document(text, config.name, text_digest(text))

    return convert(rows(config, base, quarantine), document, quarantine)


def convert(
    found: Iterable[Row],
    make: Callable[[Mapping[str, Any]], Converted],
    quarantine: Quarantine,
) -> Iterator[Converted]:
    """What `make` makes of each row; a row for which it raises DataError is quarantined.

    `convert(rows(config, base, quarantine), conversation_from_row, quarantine)`
    """
    for row in found:
        try:
            made = make(row.value)
        except DataError as bad:
            quarantine.add(row, str(bad))
        else:
            yield made


def document_text(value: Mapping[str, Any], text_field: str) -> str:
    """The text of a row.

    Raises:
        DataError: says why there is none that can be used.
    """
    text = value.get(text_field)
    if text_field not in value:
        near = difflib.get_close_matches(text_field, value, n=1)
        hint = f", did you mean '{near[0]}'?" if near else ""
        raise DataError(f"no '{text_field}' (keys: {', '.join(sorted(value)[:6])}){hint}")
    if not isinstance(text, str):
        raise DataError(f"'{text_field}' is {type(text).__name__}, wanted a string")
    if not text.strip():
        raise DataError(f"'{text_field}' is empty")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise DataError(f"'{text_field}' holds half a character (a lone surrogate)") from None
    return text
