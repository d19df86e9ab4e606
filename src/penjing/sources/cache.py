"""Remote files as files on disk, kept up to a size: the one used longest ago goes first.

Each has a directory of its own with a lock: shared while the file is read, alone while it is
fetched or deleted, so that two processes fetch it once and none loses it.
"""

import fcntl
import hashlib
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from penjing.artifacts.directories import sha256_of
from penjing.artifacts.remote import is_remote, version
from penjing.errors import DataError
from penjing.sources.download import Advance, fetch

THREADS = 8
"""Files fetched at once."""


@dataclass(frozen=True)
class Cache:
    """Where remote files are kept, and up to how many bytes besides those in use."""

    directory: Path
    max_bytes: int


@contextmanager
def local(
    path: Path, cache: Cache, sha256: str | None = None, advance: Advance = lambda _: None
) -> Iterator[Path]:
    """The file on disk, for a while: itself, or a verified copy of what lies at a URL.

    Raises:
        DataError: it cannot be fetched, or its sha256 is another.
    """
    if not is_remote(path):
        if sha256 is not None and (found := sha256_of(path)) != sha256:
            raise DataError(
                f"{path}: has the sha256 {found[:12]}…, and its list of checksums says "
                f"{sha256[:12]}…: fetch it again"
            )
        yield path
        return
    entry = _entry(path, cache)
    entry.mkdir(parents=True, exist_ok=True)
    file = entry / path.name
    with (entry / "lock").open("w") as lock:
        while True:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if file.exists():
                break
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not file.exists():
                fetch(path, file, sha256, advance)
        os.utime(entry)
        _evict(cache)
        try:
            yield file
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)
            _evict(cache)


@dataclass
class Fetching:
    """How far fetching ahead is: files and bytes that it was to fetch, and bytes that came."""

    files: int = 0
    total: int = 0
    fetched: int = 0


class _Left(BaseException):
    """Nobody waits for the file any more."""


@dataclass(frozen=True)
class WantedFile:
    """A remote file, its bytes, and its sha256 (hex) if that is known."""

    path: Path
    size: int
    sha256: str | None


@contextmanager
def fetching_ahead(files: Sequence[WantedFile], cache: Cache) -> Iterator[Fetching]:
    """Meanwhile fetches remote files, several at once, as many as the cache holds. What fails is
    left to the reader, who tries it again and tells; left early, each stops after its next piece.
    """
    news, waiting, left = Fetching(), queue.SimpleQueue[WantedFile](), threading.Event()
    for file in files:
        if news.total + file.size <= cache.max_bytes:
            news.files, news.total = news.files + 1, news.total + file.size
            waiting.put(file)

    def advance(came: int) -> None:
        news.fetched += came
        if left.is_set():
            raise _Left

    def work() -> None:
        while not left.is_set():
            try:
                file = waiting.get_nowait()
                with local(file.path, cache, file.sha256, advance):
                    pass
            except (queue.Empty, _Left):
                return
            except (DataError, OSError):
                continue

    for number in range(min(THREADS, news.files)):
        # Daemons: a stalled piece is no reason for a process to stay.
        threading.Thread(target=work, name=f"penjing-fetch-{number}", daemon=True).start()
    try:
        yield news
    finally:
        left.set()


def _entry(path: Path, cache: Cache) -> Path:
    name = hashlib.sha256(f"{path}\n{version(path)}".encode()).hexdigest()[:24]
    return cache.directory / name


def _evict(cache: Cache) -> None:
    """Deletes files that nobody reads until the rest fits, the longest unused first."""
    entries = []
    for entry in cache.directory.iterdir():
        try:
            size = sum(one.stat().st_size for one in entry.iterdir())
            entries.append((entry.stat().st_mtime_ns, size, entry))
        except OSError:
            continue  # another process deleted it meanwhile
    total = sum(size for _, size, _ in entries)
    for _, size, entry in sorted(entries):
        if total <= cache.max_bytes:
            return
        if _delete(entry):
            total -= size


def _delete(entry: Path) -> bool:
    """Whether nobody used it, and it is empty now; the lock stays, for who waits for it."""
    try:
        with (entry / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for one in entry.iterdir():
                if one.name != "lock":
                    one.unlink()
    except OSError:
        return False
    return True
