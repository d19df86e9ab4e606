"""A job over the corpus: done once, whoever does it; again exactly where it is no longer true."""

import errno
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from penjing.artifacts.lines import read_record
from penjing.data.chunks import (
    Advance,
    Chunk,
    ChunkRecord,
    Job,
    finished_job,
    input_file,
    sweep_unplanned,
)
from penjing.data.corpus import Conduct, JobProgress, parse_task, run_job
from penjing.errors import ArtifactError, ConfigError, DataError


@dataclass
class Workshop:
    """A job that reverses files, and a note of which ones it really did."""

    folder: Path
    done: list[str] = field(default_factory=list)
    told: list[JobProgress] = field(default_factory=list)
    before: Callable[[str], None] = lambda name: None

    def job(self, **settings: Any) -> Job:
        chunks = []
        for path in sorted(self.folder.glob("*.txt")):
            file = input_file(path, self.folder)
            chunks.append(Chunk(path.name, settings, (file,), file.bytes, path))
        return Job(self.folder / "work", tuple(chunks), self.work, "shared")

    def work(self, shared: str, path: Path, directory: Path, advance: Advance) -> dict[str, Any]:
        assert shared == "shared"
        self.before(path.name)
        text = path.read_text()
        advance(len(text), 1)
        (directory / "reversed").write_text(text[::-1])
        self.done.append(path.name)
        return {"letters": len(text)}

    def run(self, job: Job | None = None, **conduct: Any) -> list[str]:
        """Runs the job; returns the names of the chunks that were really done."""
        self.done.clear()
        self.told.clear()
        for finished in run_job(job or self.job(), Conduct(**conduct), self.told.append):
            text = finished.chunk.task.read_text()
            assert (finished.directory / "reversed").read_text() == text[::-1]
            assert finished.results == {"letters": len(text)}
        return list(self.done)


ALL = ["a.txt", "b.txt", "c.txt", "d.txt"]


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    for name in ALL:
        (tmp_path / name).write_text(f"a tree called {name}")
    return Workshop(tmp_path)


def test_what_is_finished_is_not_done_again(workshop: Workshop) -> None:
    assert workshop.run() == ALL
    assert workshop.told[-1].done == workshop.told[-1].total == 4 * 19
    assert workshop.run() == []
    assert (workshop.told[-1].done, workshop.told[-1].total) == (4 * 19, 4 * 19)


def test_without_resume_everything_is_done_again(workshop: Workshop) -> None:
    workshop.run()
    assert workshop.run(resume=False) == ALL


def test_tasks_share_the_chunks_and_together_do_all_of_them(workshop: Workshop) -> None:
    with pytest.raises(ArtifactError, match=r"4 of 4 chunks .* a.txt; begin"):
        finished_job(workshop.job(), "begin")
    assert workshop.run(task=(2, 3)) == ["b.txt"]
    assert workshop.run(task=(1, 3)) == ["a.txt", "d.txt"]
    assert workshop.run(task=(3, 3)) == ["c.txt"]
    assert len(finished_job(workshop.job(), "begin")) == 4
    assert workshop.run() == []


def test_a_changed_file_makes_its_own_chunk_again_and_no_other(workshop: Workshop) -> None:
    workshop.run()
    (workshop.folder / "b.txt").write_text("a tree in a pot   ")
    assert workshop.run() == ["b.txt"]
    os.utime(workshop.folder / "c.txt", ns=(1, 1))  # as many bytes, another time
    assert workshop.run() == ["c.txt"]


def test_a_file_more_or_less_leaves_the_others_as_they_are(workshop: Workshop) -> None:
    workshop.run()
    (workshop.folder / "aa.txt").write_text("new")
    (workshop.folder / "b.txt").unlink()
    assert workshop.run() == ["aa.txt"]
    assert len(list((workshop.folder / "work").glob("chunk-*"))) == 5
    sweep_unplanned(workshop.job())
    assert len(list((workshop.folder / "work").glob("chunk-*"))) == 4
    assert workshop.run() == []


def test_other_settings_make_chunks_of_their_own(workshop: Workshop) -> None:
    workshop.run(workshop.job(cap=1))
    assert workshop.run(workshop.job(cap=2)) == ALL
    assert workshop.run(workshop.job(cap=1)) == []
    one = workshop.job(cap=1)
    mixed = replace(one, chunks=(*one.chunks[:3], *workshop.job(cap=3).chunks[3:]))
    assert workshop.run(mixed) == ["d.txt"]


def test_fifty_damaged_files_are_all_found_and_only_their_chunks_made_again(
    workshop: Workshop,
) -> None:
    workshop.run()
    rng = random.Random(3)
    for _ in range(50):
        chunk = rng.choice(workshop.job().chunks)
        path = rng.choice(sorted((workshop.folder / "work" / chunk.name).iterdir()))
        data = bytearray(path.read_bytes())
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)) :]
        else:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        with pytest.raises(ArtifactError, match=f"{chunk.label}: .*; begin"):
            finished_job(workshop.job(), "begin")
        assert workshop.run() == [chunk.label]
        assert any(f"{chunk.label}: made again" in news.text for news in workshop.told)


def test_an_error_names_its_chunk_and_leaves_the_finished_ones(workshop: Workshop) -> None:
    def fail(name: str) -> None:
        if name == "c.txt":
            raise DataError("no good")

    workshop.before = fail
    with pytest.raises(DataError, match=r"^c.txt: no good"):
        workshop.run()
    workshop.before = lambda name: None
    assert workshop.run() == ["c.txt", "d.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError()])
def test_an_interruption_leaves_only_finished_chunks(
    workshop: Workshop, error: BaseException
) -> None:
    def stop(name: str) -> None:
        if name == "b.txt":
            raise error

    workshop.before = stop
    with pytest.raises(type(error)):
        workshop.run()
    left = sorted(path.name for path in (workshop.folder / "work").iterdir())
    assert left == [workshop.job().chunks[0].name, "plan.json"]


def test_a_full_disk_is_told_and_the_same_command_goes_on(workshop: Workshop) -> None:
    def fill(name: str) -> None:
        if name == "b.txt":
            raise OSError(errno.ENOSPC, "No space left on device")

    workshop.before = fill
    with pytest.raises(ArtifactError, match=r"b.txt: the disk is full; .* make room"):
        workshop.run()
    workshop.before = lambda name: None
    assert workshop.run() == ALL[1:]


def test_a_chunk_says_what_it_was_made_of(workshop: Workshop) -> None:
    job = workshop.job(cap=7)
    workshop.run(job)
    record = read_record(job.directory / job.chunks[1].name / "chunk.json", ChunkRecord)
    assert record.label == "b.txt"
    assert record.identity["settings"] == {"cap": 7}
    assert record.identity["inputs"][0].keys() == {"name", "bytes", "mtime_ns"}


def test_tasks_are_counted_from_one() -> None:
    assert parse_task("3/16") == (3, 16)
    for text in ("0/4", "5/4", "4", "a/b", "-1/4", ""):
        with pytest.raises(ConfigError, match="--task: found"):
            parse_task(text)
