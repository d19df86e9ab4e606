"""A source's files to rows and documents, in an order that depends on their names alone.

How a file of each format is read is `sources.formats`' duty; conversations and preferences are
made of rows by the stages (`convert`).
"""

import difflib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

from penjing.artifacts.remote import name_of
from penjing.config.schema import SourceConfig
from penjing.errors import DataError
from penjing.sources.cache import Cache, local
from penjing.sources.formats import read_file
from penjing.sources.listing import find_files, listed_digests
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


def rows(
    config: SourceConfig, base: Path, quarantine: Quarantine, cache: Cache | None = None
) -> Iterator[Row]:
    """The rows of a source's files, at most `config.rows`; remote ones are read through `cache`,
    or as a stream without one.

    Raises:
        DataError: a file is missing, of an unknown format, damaged or cut short.
    """
    files = find_files(config.paths, base)
    digests = listed_digests(files, config.checksums, base)

    def read(path: Path) -> Iterator[Row]:
        file = name_of(path, base)
        text_field = config.text_field if config.kind == "documents" else None
        if cache is None:
            yield from read_file(path, file, text_field, quarantine)
            return
        with local(path, cache, digests.get(path)) as copy:
            yield from read_file(copy, file, text_field, quarantine)

    return islice(chain.from_iterable(map(read, files)), config.rows)


def documents(
    config: SourceConfig, base: Path, quarantine: Quarantine, cache: Cache | None = None
) -> Iterator[Document]:
    """The documents of a source; rows without a usable text are quarantined.

    Raises:
        DataError: as `rows`.
    """

    def document(value: Mapping[str, Any]) -> Document:
        text = document_text(value, config.text_field)
        return Document(text, config.name, text_digest(text))

    return convert(rows(config, base, quarantine, cache), document, quarantine)


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
