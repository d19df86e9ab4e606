import json
from pathlib import Path

import pytest

from penjing.errors import DataError
from penjing.sources import quarantine as module
from penjing.sources.quarantine import Quarantine, Row


def with_bad_rows(bad: int, rows: int, path: Path | None = None) -> Quarantine:
    quarantine = Quarantine(path)
    for line in range(rows):
        quarantine.seen()
        if line < bad:
            quarantine.add(Row({"text": "x" * 999}, "a.jsonl", line + 1), "no good")
    return quarantine


def test_a_tolerable_share_of_bad_rows_passes() -> None:
    with_bad_rows(0, 0).check(0.0)
    with_bad_rows(2, 100).check(0.02)


def test_too_many_bad_rows_are_refused_with_numbers_and_a_way_out(tmp_path: Path) -> None:
    quarantine = with_bad_rows(3, 100, tmp_path / "quarantine.jsonl")
    with pytest.raises(DataError, match="3 of 100 rows") as error:
        quarantine.check(0.02)
    for wanted in ("2.00%", "3 x no good", "a.jsonl:1", "quarantine.jsonl", "max_bad_row_fraction"):
        assert wanted in str(error.value)


def test_only_so_many_bad_rows_are_written_but_all_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WRITTEN_ROWS", 4)
    quarantine = with_bad_rows(9, 9, tmp_path / "quarantine.jsonl")
    lines = (tmp_path / "quarantine.jsonl").read_text().splitlines()
    assert (len(lines), quarantine.bad) == (4, 9)
    assert len(json.loads(lines[0])["excerpt"]) == 200
