"""A plan of chunks, and what finished ones left on disk: the state of a job over a corpus.

A finished chunk is a directory named after its settings and inputs, so a plan that changed finds
exactly the chunks that are still true. Running a job is `data.corpus`' duty; what a chunk holds,
its caller's.
"""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penjing.artifacts import directories
from penjing.artifacts.lines import read_record, write_atomic
from penjing.artifacts.remote import name_of, version
from penjing.artifacts.stage import identity_digest
from penjing.errors import ArtifactError

RECORD = "chunk.json"

Advance = Callable[[int, int], None]
"""Told by a chunk's work now and then: bytes of input done, and things made, both so far."""

Work = Callable[[Any, Any, Path, Advance], dict[str, Any]]
"""(what all chunks share, the chunk's task, an empty directory, advance) -> results, as JSON."""


@dataclass(frozen=True)
class InputFile:
    """A file as it was when the plan was made: another size or time is another file."""

    name: str
    bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Chunk:
    """One piece of the work. `settings` and `inputs` determine its result, and nothing else does;
    `size` is the bytes of text that it is guessed to hold, `task` what `Work` is handed.
    """

    label: str
    settings: dict[str, Any]
    inputs: tuple[InputFile, ...]
    size: int
    task: Any = field(repr=False)

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "settings": self.settings,
            "inputs": [dataclasses.asdict(file) for file in self.inputs],
        }

    @property
    def name(self) -> str:
        return f"chunk-{identity_digest(self.identity)[:16]}"


@dataclass(frozen=True)
class ChunkRecord:
    """`chunk.json`: what a finished chunk was made of, and its results."""

    label: str
    identity: dict[str, Any]
    results: dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """A chunk whose files lie, complete and verified, in `directory`."""

    chunk: Chunk
    directory: Path
    results: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """Chunks in order, and the module-level function that does one."""

    directory: Path
    chunks: tuple[Chunk, ...]
    work: Work
    shared: Any


def input_file(path: Path, base: Path) -> InputFile:
    """The file, named relative to `base` when it lies below."""
    return InputFile(name_of(path, base), path.stat().st_size, version(path))


def finished_chunk(job: Job, chunk: Chunk, *, whole: bool = True) -> Finished | None:
    """The chunk's result, verified (`directories.verified`); None when there is none.

    Raises:
        ArtifactError: there is one, and it is damaged.
    """
    directory = job.directory / chunk.name
    if not directories.exists(directory):
        return None
    record = read_record(directories.verified(directory, whole=whole) / RECORD, ChunkRecord)
    if record.identity != chunk.identity:
        raise ArtifactError(f"{directory / RECORD}: is of another chunk ({record.label})")
    return Finished(chunk, directory, record.results)


def finished_job(job: Job, remedy: str) -> list[Finished]:
    """Every chunk's result, in order. What lies at a URL was verified by those who do its part of
    the work, and its bytes are checked as they are read.

    Raises:
        ArtifactError: some are missing or damaged; `remedy` says what makes them.
    """
    found, lacking = [], []
    for chunk in job.chunks:
        try:
            finished = finished_chunk(job, chunk, whole=False)
        except ArtifactError as error:
            raise ArtifactError(f"{chunk.label}: {error}; {remedy}") from error
        if finished is None:
            lacking.append(chunk.label)
        else:
            found.append(finished)
    if lacking:
        raise ArtifactError(
            f"{job.directory}: {len(lacking)} of {len(job.chunks)} chunks are not finished, the "
            f"first is {lacking[0]}; {remedy}"
        )
    return found


def write_plan(job: Job) -> None:
    """`plan.json`, for people: the chunks in order, by name."""
    chunks = [{"name": c.name, "label": c.label, **c.identity} for c in job.chunks]
    data = (json.dumps({"chunks": chunks}, ensure_ascii=False, indent=1) + "\n").encode()
    path = job.directory / "plan.json"
    if not path.exists() or path.read_bytes() != data:
        write_atomic(path, data)


def sweep_unplanned(job: Job) -> None:
    """Deletes chunks that this plan no longer has; for the job's end, under the run's lock."""
    planned = {chunk.name for chunk in job.chunks}
    directories.sweep_partials(job.directory)
    for path in job.directory.glob("chunk-*"):
        if path.name not in planned:
            directories.discard(path)
