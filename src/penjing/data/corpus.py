"""Runs jobs over a whole corpus: here, in local processes, as a share of a shell task, or on Ray.

A job is a plan of chunks and a pure function of one (`data.chunks`); the one reduce over all of
them is its caller's duty. This module alone knows processes and Ray.
"""

import errno
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import Any, Literal, TypeVar

from penjing.artifacts import directories, disk
from penjing.artifacts.records import to_json
from penjing.artifacts.remote import is_remote
from penjing.data.chunks import (
    RECORD,
    Advance,
    Chunk,
    ChunkRecord,
    Finished,
    Job,
    Work,
    finished_chunk,
    write_plan,
)
from penjing.errors import ArtifactError, ConfigError, PenjingError

SMALL_BYTES = 32 << 20
"""Less than this is done in this process: starting others costs a second each."""

_POLL_SECONDS = 0.5


T = TypeVar("T")


@dataclass(frozen=True)
class Conduct:
    """How a job is run. Nothing here changes what is made."""

    engine: Literal["local", "ray"] = "local"
    task: tuple[int, int] | None = None
    resume: bool = True
    workers: int = 1


@dataclass(frozen=True)
class JobProgress:
    """How far a job is: bytes of input, things made, chunks; and a remark, if there is one."""

    done: int
    total: int
    made: int
    text: str = ""


Report = Callable[[JobProgress], None]


def parse_task(text: str) -> tuple[int, int]:
    """`i/n`: this command does every n-th chunk, from the i-th on.

    Raises:
        ConfigError: it is no such thing.
    """
    first, slash, second = text.partition("/")
    if slash and first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second):
        return int(first), int(second)
    raise ConfigError(f"--task: found {text!r}, wanted I/N with 1 <= I <= N, such as 3/16")


def run_job(job: Job, conduct: Conduct, report: Report) -> list[Finished]:
    """Does what is not yet done of this task's chunks; returns all of them, in order.

    Raises:
        PenjingError: a chunk's work failed; the message names the chunk. Finished ones stay.
    """
    job.directory.mkdir(parents=True, exist_ok=True)
    chunks = job.chunks
    if conduct.task:
        index, number = conduct.task
        chunks = chunks[index - 1 :: number]
    if conduct.task is None or conduct.task[0] == 1:
        write_plan(job)
    board = _Board(report, sum(chunk.size for chunk in chunks))
    found: dict[str, Finished] = {}
    for chunk in chunks:
        if (old := _accepted(job, chunk, conduct, board)) is not None:
            found[chunk.name] = old
            board.accepted += chunk.size
    pending = [chunk for chunk in chunks if chunk.name not in found]
    board.values = [0] * 2 * len(pending)
    board.tell()

    def collect(place: int, results: dict[str, Any]) -> None:
        chunk = pending[place]
        found[chunk.name] = Finished(chunk, job.directory / chunk.name, results)
        board.values[2 * place] = chunk.size
        board.tell()

    size, workers = sum(chunk.size for chunk in pending), min(conduct.workers, len(pending))
    if pending and conduct.engine == "ray":
        _run_on_ray(job, pending, collect)
    elif workers > 1 and size >= SMALL_BYTES:
        _run_in_processes(job, pending, workers, collect, board)
    else:
        for place, chunk in enumerate(pending):
            work = partial(do_chunk, job.directory, job.work, job.shared, chunk)
            collect(place, work(board.inside(place, chunk)))
    return [found[chunk.name] for chunk in chunks]


def do_chunk(
    directory: Path, work: Work, shared: Any, chunk: Chunk, advance: Advance
) -> dict[str, Any]:
    """Makes one chunk's directory below `directory`; it is there whole, or not at all."""
    _sweep(directory, chunk)
    with _naming(chunk), directories.staged(directory / chunk.name) as staging:
        results = work(shared, chunk.task, staging, advance)
        record = ChunkRecord(chunk.label, chunk.identity, results)
        disk.write_file(staging / RECORD, to_json(record).encode())
    return results


@dataclass
class _Board:
    """How far every pending chunk is: its bytes of input at 2k, the things it made at 2k + 1."""

    report: Report
    total: int
    accepted: int = 0
    values: Any = field(default_factory=list)
    told: float = 0.0

    def tell(self, text: str = "") -> None:
        done = self.accepted + sum(self.values[::2])
        self.told = time.monotonic()
        self.report(JobProgress(done, self.total, sum(self.values[1::2]), text))

    def inside(self, place: int, chunk: Chunk) -> Advance:
        """What a chunk's work in this process tells of itself."""

        def advance(done: int, made: int) -> None:
            self.values[2 * place : 2 * place + 2] = [min(done, chunk.size), made]
            if time.monotonic() - self.told > _POLL_SECONDS:
                self.tell()

        return advance


def _accepted(job: Job, chunk: Chunk, conduct: Conduct, board: _Board) -> Finished | None:
    try:
        old = finished_chunk(job, chunk)
    except ArtifactError as error:
        board.tell(f"{chunk.label}: made again, since {error}")
        old = None
    if old is not None and conduct.resume:
        return old
    if directories.exists(job.directory / chunk.name):
        directories.discard(job.directory / chunk.name)
    return None


def _sweep(directory: Path, chunk: Chunk) -> None:
    if is_remote(directory):
        return  # the next attempt writes over it
    for left in directory.glob(f".{chunk.name}.*.partial"):
        disk.remove(left)


@contextmanager
def _naming(chunk: Chunk) -> Iterator[None]:
    try:
        yield
    except PenjingError as error:
        raise type(error)(f"{chunk.label}: {error}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ArtifactError(
                f"{chunk.label}: the disk is full; finished chunks are kept: make room, and the "
                "same command goes on"
            ) from error
        error.add_note(f"in the chunk {chunk.label}")
        raise
    except Exception as error:
        error.add_note(f"in the chunk {chunk.label}")
        raise


Collect = Callable[[int, dict[str, Any]], None]
_in_worker: Any = None


def _run_in_processes(
    job: Job, pending: Sequence[Chunk], workers: int, collect: Collect, board: _Board
) -> None:
    # Spawned, so that their CPU seconds count as those of this process's children.
    context = multiprocessing.get_context("spawn")
    board.values = context.RawArray("q", 2 * len(pending))
    handed = (board.values, job.directory, job.work, job.shared)
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, context, _start_worker, handed)
    try:
        places = {
            pool.submit(_do_in_worker, chunk, place): place for place, chunk in enumerate(pending)
        }
        waiting = set(places)
        while waiting:
            done, waiting = wait(waiting, _POLL_SECONDS, FIRST_COMPLETED)
            for future in done:
                collect(places[future], future.result())
            board.tell()
    except BaseException as error:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
        for chunk in pending:
            _sweep(job.directory, chunk)
        if isinstance(error, BrokenProcessPool):
            raise PenjingError(
                f"{job.directory}: a worker process was killed, perhaps for want of memory; "
                "finished chunks are kept: the same command goes on, perhaps with fewer workers"
            ) from error
        raise
    pool.shutdown()


def in_new_process(work: Callable[..., T], *handed: Any) -> T:
    """One call in a process of its own, whose memory is that of the call alone.

    Raises:
        PenjingError: it was killed.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, _start_worker) as pool:
        try:
            return pool.submit(work, *handed).result()
        except BrokenProcessPool as error:
            raise PenjingError(
                "a process that measures was killed, perhaps for want of memory: free some, or "
                "choose a smaller model"
            ) from error


def _start_worker(*handed: Any) -> None:
    """Keeps what every chunk needs, and sees to it that no worker outlives its parent."""
    global _in_worker  # noqa: PLW0603 - an initializer has no other way to hand something on
    _in_worker = handed
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def leave_with_parent() -> None:
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


def _do_in_worker(chunk: Chunk, place: int) -> dict[str, Any]:
    values, directory, work, shared = _in_worker

    def advance(done: int, made: int) -> None:
        values[2 * place], values[2 * place + 1] = min(done, chunk.size), made

    return do_chunk(directory, work, shared, chunk, advance)


def _run_on_ray(job: Job, pending: Sequence[Chunk], collect: Collect) -> None:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "--engine ray needs the package ray: pip install 'penjing[ray]'"
        ) from error
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    remote, shared = ray.remote(do_chunk), ray.put(job.shared)
    waiting = {
        remote.remote(job.directory, job.work, shared, chunk, _advance_unseen): place
        for place, chunk in enumerate(pending)
    }
    while waiting:
        done, _ = ray.wait(list(waiting))
        try:
            collect(waiting.pop(done[0]), ray.get(done[0]))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error


def _advance_unseen(_done: int, _made: int) -> None:
    """Ray's tasks tell nothing before they end."""
