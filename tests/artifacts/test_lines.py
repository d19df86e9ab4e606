"""Logs survive kills; a resume cuts them at the checkpoint."""

import json
import math
from pathlib import Path

import pytest

from penjing.artifacts.lines import LineLog, read_record, read_records, write_atomic
from penjing.artifacts.records import ItemRecord, StepRecord, TaskResult, to_json
from penjing.errors import ArtifactError


def step(number: int, loss: float | None = 2.5) -> StepRecord:
    return StepRecord(number, loss, 1.0, 0.5, 100, 128, values={"validation_bpb": 1.25})


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    log = LineLog(tmp_path / "deep" / "metrics.jsonl")
    log.append(step(1))
    log.append(step(2, None))
    assert list(read_records(tmp_path / "deep" / "metrics.jsonl", StepRecord)) == [
        step(1),
        step(2, None),
    ]
    log.sync()
    log.close()


def test_a_missing_log_has_no_records(tmp_path: Path) -> None:
    assert list(read_records(tmp_path / "none.jsonl", StepRecord)) == []


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    log = LineLog(tmp_path / "m.jsonl")
    with pytest.raises(ValueError, match="Out of range"):
        log.append(step(1, math.nan))
    log.close()
    assert (tmp_path / "m.jsonl").read_bytes() == b""


def test_a_torn_last_line_is_skipped_then_cut_wherever_it_tore(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    whole, last = (f"{to_json(step(number))}\n".encode() for number in (1, 2))
    for torn in range(len(last)):
        path.write_bytes(whole + last[:torn])
        assert list(read_records(path, StepRecord)) == [step(1)]
        log = LineLog(path)
        log.append(step(7))
        log.close()
        assert list(read_records(path, StepRecord)) == [step(1), step(7)]


def test_truncate_keeps_the_steps_up_to_the_checkpoint_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = LineLog(path)
    for number in range(1, 6):
        log.append(step(number))
    path.write_bytes(path.read_bytes() + b'{"note": "no step"}\n{"step": 6, "lo')
    log.truncate_after(3)
    log.append(step(4, 0.5))
    log.close()
    kept = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [line.get("step") for line in kept] == [1, 2, 3, None, 4]
    assert kept[-1]["loss"] == 0.5


def test_damage_inside_a_log_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f"{to_json(step(1))}\nnonsense\n{to_json(step(3))}\n")
    with pytest.raises(ArtifactError, match=r"metrics\.jsonl:2: found no JSON"):
        list(read_records(path, StepRecord))
    path.write_text('[1]\n{"step": 1}\n')
    with pytest.raises(ArtifactError, match="found list, wanted a JSON object"):
        list(read_records(path, StepRecord))
    path.write_text('{"step": 1}\n')
    with pytest.raises(ArtifactError, match=r"not a StepRecord.*loss"):
        list(read_records(path, StepRecord))


def test_a_result_with_items_reads_back_and_newer_fields_are_ignored(tmp_path: Path) -> None:
    item = ItemRecord("p1", "2*3", "6", "6", 1.0, "stop")
    result = TaskResult("sft", "products", "exact", 1.0, 0.2, 1.0, 1, None, 0.1, items=(item,))
    write_atomic(tmp_path / "r.json", to_json(result).encode())
    assert read_record(tmp_path / "r.json", TaskResult) == result
    value = json.loads(to_json(result)) | {"new_field": 3}
    write_atomic(tmp_path / "r.json", json.dumps(value).encode())
    assert read_record(tmp_path / "r.json", TaskResult) == result
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_record(tmp_path / "absent.json", TaskResult)
