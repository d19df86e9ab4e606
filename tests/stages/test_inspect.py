"""What files hold is told row by row, and one that is damaged hides no other."""

import gzip
import json
from pathlib import Path

import pytest

from penjing.cli.main import main
from penjing.errors import DataError
from penjing.stages import inspect as inspecting
from penjing.stages.inspect import Inspection, inspect, lines

CHAT = {"instruction": "Greet.", "input": "", "output": "Hello."}
PAIR = {"prompt": "2*3?", "chosen": "6", "rejected": "5"}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def one(path: Path, text_field: str = "text") -> Inspection:
    (found,) = inspect([str(path)], text_field, lambda _: None)
    return found


def test_rows_are_counted_by_kind_with_their_lengths_and_copies(tmp_path: Path) -> None:
    tree, trees = {"text": "Ein Baum."}, {"text": "盆景 is a tree"}
    found = one(write(tmp_path / "a.jsonl", tree, trees, tree, CHAT, PAIR))

    assert found.kinds == {"document": 3, "conversation (Alpaca)": 1, "preference": 1}
    assert (found.rows, found.bad, found.duplicates, found.estimated) == (5, 0, 1, False)
    assert found.lengths == (8, 10, 13)
    assert found.bytes == found.characters + 4
    assert found.scripts["cjk"] == pytest.approx(2 / 44, abs=0.02)
    assert found.samples == ("Ein Baum.", "盆景 is a tree", "Ein Baum.")


def test_rows_that_cannot_be_used_are_shown_with_their_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"text": "a"}, {"txt": "b"}, {"text": ""}, *[[]] * 9)
    found = one(path)

    assert (found.rows, found.bad) == (12, 11)
    assert [row.line for row in found.bad_rows] == [2, 3, 4, 5, 6]
    text = "\n".join(lines(found))
    assert f"{path}:3: 'text' is empty" in text
    assert "11 rows cannot be used" in text
    assert one(write(path, {"body": "c"}), "body").kinds == {"document": 1}


def test_many_different_texts_are_counted_by_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspecting, "MOST_HASHES", 64)
    rows = [{"text": f"text {number % 400}"} for number in range(800)]
    found = one(write(tmp_path / "a.jsonl", *rows))

    assert found.estimated
    assert found.duplicates == pytest.approx(400, rel=0.5)
    assert "about" in "\n".join(lines(found))


def test_a_damaged_file_is_told_and_the_next_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = gzip.compress(b'{"text": "a tree"}\n' * 9)
    (tmp_path / "a.jsonl.gz").write_bytes(whole[:-4])
    write(tmp_path / "b.jsonl", {"text": "a pot"})

    assert main(["inspect", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "a.jsonl.gz: damaged or cut short" in told
    assert "sample: a pot" in told
    assert main(["inspect", "--json", str(tmp_path / "b.jsonl")]) == 0
    news = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert news[-1]["values"]["rows"] == 1


def test_a_folder_without_a_readable_file_says_what_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("x")
    with pytest.raises(DataError, match="no readable file; wanted one of"):
        one(tmp_path)
