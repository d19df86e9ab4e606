"""Manifests, the run's lock, events."""

import subprocess
import sys
from pathlib import Path

import pytest

from penjing import errors
from penjing.artifacts.lines import read_records
from penjing.artifacts.records import Event, Manifest
from penjing.artifacts.stage import (
    append_event,
    changed_fields,
    finished,
    identity_digest,
    read_manifest,
    run_lock,
    versions,
    write_manifest,
)
from penjing.errors import ArtifactError

IDENTITY = {"steps": 400, "mixture": [["stories", 1.0, 1.0]]}
MANIFEST = Manifest(
    stage="pretrain",
    identity=IDENTITY,
    identity_digest=identity_digest(IDENTITY),
    inputs={"tokenizer": "aa"},
    seed=1,
    versions={"python": "3"},
    machine={"cores": 2},
    started="2026-01-01T00:00:00.000+00:00",
    finished="2026-01-01T00:01:00.000+00:00",
    seconds=60.0,
    cpu_seconds=110.0,
    peak_memory_bytes=1,
)


def test_a_stage_is_finished_once_its_manifest_is_there(tmp_path: Path) -> None:
    assert not finished(tmp_path)
    assert read_manifest(tmp_path) is None
    write_manifest(tmp_path, MANIFEST)
    assert finished(tmp_path)
    assert read_manifest(tmp_path) == MANIFEST


def test_an_edited_or_broken_manifest_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    path = tmp_path / "stage.json"
    path.write_text(path.read_text().replace("400", "500"))
    with pytest.raises(ArtifactError, match="was altered"):
        read_manifest(tmp_path)
    path.write_text("{")
    with pytest.raises(ArtifactError, match="found no JSON"):
        read_manifest(tmp_path)


def test_the_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert identity_digest(dict(reversed(IDENTITY.items()))) == MANIFEST.identity_digest
    assert identity_digest(IDENTITY | {"steps": 401}) != MANIFEST.identity_digest


def test_changed_fields_are_named() -> None:
    tuples = {"steps": 400, "mixture": [("stories", 1.0, 1.0)]}
    assert changed_fields(MANIFEST, tuples, {"tokenizer": "aa"}) == []
    new = {"steps": 800, "new": 3, "absent": None} | {"mixture": IDENTITY["mixture"]}
    assert changed_fields(MANIFEST, new, {"tokenizer": "bb"}) == [
        "new",
        "steps",
        "inputs.tokenizer",
    ]
    assert changed_fields(MANIFEST, {}, {}) == ["mixture", "steps", "inputs.tokenizer"]


def test_events_are_appended_with_their_values(tmp_path: Path) -> None:
    append_event(tmp_path, "started", "pretrain", "from scratch", steps=3)
    append_event(tmp_path, "failed", "pretrain", "no space")
    events = list(read_records(tmp_path / "events.jsonl", Event))
    assert [(event.kind, event.values) for event in events] == [
        ("started", {"steps": 3}),
        ("failed", {}),
    ]
    assert events[0].time <= events[1].time
    assert events[0].time.endswith("+00:00")


SOURCE = str(Path(errors.__file__).parents[1])
HOLDER = """
import sys, pathlib
from penjing.artifacts.stage import run_lock
with run_lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_writer_is_refused_until_the_first_has_died(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": SOURCE},
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(ArtifactError, match=f"written by process {holder.pid}"),
            run_lock(tmp_path),
        ):
            pass
        holder.kill()
        holder.wait()
        with run_lock(tmp_path):
            pass


def test_versions_name_what_can_change_a_result() -> None:
    found = versions()
    assert {"python", "penjing", "torch", "numpy"} <= found.keys()
    assert found["python"].startswith("3.")
    assert all(isinstance(value, str) for value in found.values())
