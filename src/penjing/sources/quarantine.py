"""Rows that cannot be used: written down, counted, and too many of them refused.

Which rows are bad is decided where they are read (`sources`) or converted (the stages).
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from penjing.errors import DataError

MAX_WRITTEN_ROWS = 10_000
_EXCERPT_CHARACTERS = 200
_EXAMPLES = 5


@dataclass(frozen=True)
class Row:
    """One row of an input file: a JSON object, a parquet row, or a text as `{text_field: text}`."""

    value: dict[str, Any]
    file: str
    line: int


@dataclass(frozen=True)
class BadRow:
    """A line of `quarantine.jsonl`."""

    file: str
    line: int
    reason: str
    excerpt: str


class Quarantine:
    """Counts rows, good and bad, and writes the first 10,000 bad ones to `path`."""

    def __init__(self, path: Path | None = None) -> None:
        self.rows = 0
        self.bad = 0
        self.reasons: Counter[str] = Counter()
        self.examples: list[BadRow] = []
        self._path = path

    @property
    def first(self) -> BadRow | None:
        return self.examples[0] if self.examples else None

    def seen(self, rows: int = 1) -> None:
        """So many more rows were met; readers say so of each row, before `add` if it is bad."""
        self.rows += rows

    def add(self, row: Row, reason: str) -> None:
        """Set aside a row that was already seen."""
        self.add_raw(row.file, row.line, reason, row.value)

    def add_raw(self, file: str, line: int, reason: str, value: Any = "") -> None:
        """Set aside what never became a row; `value` is shown as an excerpt."""
        excerpt = ascii(value)[:_EXCERPT_CHARACTERS] if value else ""
        bad = BadRow(file, line, reason, excerpt)
        self.bad += 1
        if reason in self.reasons or len(self.reasons) < MAX_WRITTEN_ROWS:
            self.reasons[reason] += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(bad)
        if self._path is not None and self.bad <= MAX_WRITTEN_ROWS:
            with self._path.open("a", encoding="utf-8") as log:
                log.write(json.dumps(asdict(bad)) + "\n")

    def facts(self) -> dict[str, Any]:
        """The counts, as JSON; with the file at its path they make `merged`."""
        return {"rows": self.rows, "bad": self.bad, "reasons": dict(self.reasons)}

    @classmethod
    def merged(cls, parts: Iterable[tuple[Mapping[str, Any], Path]], path: Path) -> "Quarantine":
        """The sum of others, each its `facts` and its file, in order; written to `path`."""
        whole, lines = cls(path), 0
        for facts, file in parts:
            whole.rows += facts["rows"]
            whole.bad += facts["bad"]
            whole.reasons.update(facts["reasons"])
            if not file.exists():
                continue
            with file.open("rb") as source, path.open("ab") as log:
                for line in islice(source, MAX_WRITTEN_ROWS - lines):
                    if len(whole.examples) < _EXAMPLES:
                        whole.examples.append(BadRow(**json.loads(line)))
                    log.write(line)
                    lines += 1
        return whole

    def check(self, max_fraction: float) -> None:
        """Refuse a source with too many bad rows.

        Raises:
            DataError: more than `max_fraction` of the rows seen are bad.
        """
        if self.first is None or self.bad <= max_fraction * self.rows:
            return
        common = "; ".join(f"{count} x {reason}" for reason, count in self.reasons.most_common(3))
        raise DataError(
            f"{self.bad} of {self.rows} rows cannot be used, at most {max_fraction:.2%} may be: "
            f"{common}. The first is {self.first.file}:{self.first.line}. Mend the files, or raise "
            "shards.max_bad_row_fraction: then all of them are listed in quarantine.jsonl"
        )
