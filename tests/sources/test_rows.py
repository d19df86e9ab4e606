import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penjing.config.schema import SourceConfig
from penjing.errors import DataError
from penjing.sources.quarantine import Quarantine
from penjing.sources.rows import convert, documents, rows, text_digest


def write(folder: Path, name: str, *values: Any) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


def test_documents_come_in_the_order_of_file_names(tmp_path: Path) -> None:
    write(tmp_path, "b.jsonl", {"text": "third"})
    write(tmp_path, "a.jsonl", {"text": "first"}, {"text": "second"})
    config = SourceConfig(name="tales", paths=("b.jsonl", "*.jsonl"))
    found = list(documents(config, tmp_path, Quarantine()))
    assert [document.text for document in found] == ["first", "second", "third"]
    assert {document.source for document in found} == {"tales"}
    assert found[0].digest == text_digest("first")
    assert found[0].digest.startswith("a7937b64b8caa58f")


def test_rows_without_a_usable_text_are_quarantined_with_reasons(tmp_path: Path) -> None:
    good, bad = {"text": "é"}, [{"Text": "x"}, {"text": 3}, {"text": " \n"}, {"text": "\ud800"}]
    write(tmp_path, "a.jsonl", good, *bad, good)
    quarantine = Quarantine(tmp_path / "quarantine.jsonl")
    config = SourceConfig(name="s", paths=("a.jsonl",))
    assert len(list(documents(config, tmp_path, quarantine))) == 2
    logged = [json.loads(x) for x in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert [(line["file"], line["line"], line["reason"]) for line in logged] == [
        ("a.jsonl", 2, "no 'text' (keys: Text), did you mean 'Text'?"),
        ("a.jsonl", 3, "'text' is int, wanted a string"),
        ("a.jsonl", 4, "'text' is empty"),
        ("a.jsonl", 5, "'text' holds half a character (a lone surrogate)"),
    ]
    assert (quarantine.rows, quarantine.bad) == (6, 4)


def test_another_field_and_a_limit_are_honoured(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", *({"body": f"{k}"} for k in range(9)))
    config = SourceConfig(name="s", paths=("a.jsonl",), text_field="body", rows=3)
    assert [document.text for document in documents(config, tmp_path, Quarantine())] == list("012")


def test_rows_of_conversations_are_converted_or_quarantined(tmp_path: Path) -> None:
    def make(value: Mapping[str, Any]) -> int:
        if value["n"] < 0:
            raise DataError("negative")
        return int(value["n"])

    write(tmp_path, "a.jsonl", {"n": 1, "text": "x"}, {"n": -1}, {"n": 2})
    config = SourceConfig(name="s", kind="conversations", paths=("a.jsonl",))
    quarantine = Quarantine()
    assert list(convert(rows(config, tmp_path, quarantine), make, quarantine)) == [1, 2]
    assert quarantine.first is not None
    assert (quarantine.first.line, quarantine.reasons) == (2, {"negative": 1})
