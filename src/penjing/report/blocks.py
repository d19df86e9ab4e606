"""What a report is made of (sections of tables, texts and charts) and how numbers are written.

Which sections there are is `report.sections`' duty.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from penjing.report.figures import Chart

ABSENT = "–"
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Cell:
    """A table cell; `note` is small print, `tag` a coloured word, `bar` a share of the width."""

    text: str
    note: str = ""
    tag: str = ""
    bar: float | None = None


@dataclass(frozen=True)
class Table:
    """Rows under a head; a folded one is opened by its title."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Text:
    """A paragraph; `kind` is plain, warning or code."""

    text: str
    kind: str = "plain"


@dataclass(frozen=True)
class Charts:
    """Charts side by side."""

    charts: tuple[Chart, ...]


Block = Table | Text | Charts


@dataclass(frozen=True)
class Content:
    """The whole report in words: headline figures, then sections by title."""

    title: str
    date: str
    verdict: str
    facts: dict[str, str]
    sections: dict[str, tuple[Block, ...]]


def table(
    head: str, rows: Iterable[Iterable[Cell | str]], title: str = "", *, folded: bool = False
) -> Iterator[Table]:
    """One table, its head separated by commas, or none when there are no rows."""
    cells = tuple(tuple(c if isinstance(c, Cell) else Cell(c) for c in row) for row in rows)
    if cells:
        yield Table(tuple(head.split(",")), cells, title, folded)


def visible(text: str) -> str:
    """Control and direction characters, which could hide or forge text, shown as U+FFFD."""
    return UNSEEN.sub("\ufffd", text)


def total(values: Iterable[float | None]) -> float | None:
    """The sum of what is known, None when nothing is."""
    found = [value for value in values if value is not None]
    return sum(found) if found else None


def count(value: float | None) -> str:
    return ABSENT if value is None else f"{value:,.0f}".replace(",", "\u202f")


def decimal(value: float | None, digits: int = 3) -> str:
    return ABSENT if value is None else f"{value:.{digits}f}"


def percent(value: Any) -> str:
    """A share, or one blended from start to end."""
    if isinstance(value, list | tuple):
        return " → ".join(percent(part) for part in dict.fromkeys(value)) or ABSENT
    return ABSENT if value is None else f"{100 * value:.1f}\u202f%"


def duration(seconds: float | None) -> str:
    if seconds is None or seconds < 100:
        return ABSENT if seconds is None else f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    return (
        f"{minutes} min {left} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
    )


def size(value: float | None) -> str:
    if value is None or value >= 2**30:
        return ABSENT if value is None else f"{value / 2**30:.2f} GiB"
    return f"{value / 2**20:.0f} MiB"
