"""Files at URLs to files on disk: in pieces, resumed where they stopped, and verified.

Where they are kept is `sources.cache`'s duty. The protocols are fsspec's.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from penjing.artifacts.directories import sha256_of
from penjing.artifacts.remote import facts, read_range
from penjing.errors import DataError

PIECE_BYTES = 8 << 20
OVERLAP_BYTES = 4096
"""Read again before each piece: a server that answers with another range is found out."""

ATTEMPTS = 4
FIRST_WAIT_SECONDS = 0.5
PIECE_SECONDS = 60.0
"""Longest wait for a piece: 8 MiB in it are 140 kB/s."""

_BEGINNINGS = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd", ".parquet": b"PAR1"}
_PAGE = (b"<!doctype html", b"<html")

Advance = Callable[[int], None]
"""Told of bytes that have come."""


@dataclass(frozen=True)
class Progressed:
    """Beside `NAME.partial`: of which file, as its store knew it, these are the beginning."""

    url: str
    size: int
    version: str


def fetch(url: Path, target: Path, sha256: str | None, advance: Advance = lambda _: None) -> None:
    """Makes `target` the file at `url`, whole, or leaves what came of it for the next attempt.

    Args:
        url: a place of `artifacts.remote`.
        target: on disk; it appears when everything was verified.
        sha256: of the file, in hex; None: the store is asked for one.
        advance: for progress.

    Raises:
        DataError: the file cannot be had, or is not what it should be, after four attempts.
    """
    wait, wrong = FIRST_WAIT_SECONDS, ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(wait)
            wait *= 2
        try:
            _attempt(url, target, sha256, advance)
        except _WrongFile as error:
            wrong = str(error)
            _forget(target)
        except (OSError, ValueError, TimeoutError, _Cut) as error:
            wrong = str(error).splitlines()[0] if str(error) else type(error).__name__
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
        else:
            return
    raise DataError(
        f"{url}: not fetched after {ATTEMPTS} attempts: {wrong}. What came is kept; the same "
        "command goes on, or take the file out of the source's paths"
    )


class _WrongFile(Exception):  # noqa: N818 - never leaves this module
    """What came is not the file: nothing of it may be kept."""


class _Cut(Exception):  # noqa: N818 - never leaves this module
    """A piece did not come whole."""


def _attempt(url: Path, target: Path, sha256: str | None, advance: Advance) -> None:
    known = facts(url)
    if known.size is None:
        raise _WrongFile("the server does not say how long it is")
    now = Progressed(str(url), known.size, known.version)
    partial, note = _partial(target), _note(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not note.exists() or json.loads(note.read_bytes()) != asdict(now):
        _forget(target)
        note.write_text(json.dumps(asdict(now)))
    with partial.open("ab") as file:
        done = file.tell()
        advance(done)
        while done < known.size:
            piece = _piece(url, partial, done, min(done + PIECE_BYTES, known.size))
            if done == 0:
                _refuse_pages(url, piece)
            file.write(piece)
            file.flush()
            done += len(piece)
            advance(len(piece))
    if facts(url).version != known.version:
        raise _WrongFile("it changed while it was fetched")
    if partial.stat().st_size != known.size:
        raise _WrongFile(f"has {partial.stat().st_size} bytes: wanted {known.size}")
    wanted = sha256 or known.sha256
    if wanted is not None and (found := sha256_of(partial)) != wanted:
        raise _WrongFile(f"has the sha256 {found[:12]}…: wanted {wanted[:12]}…")
    if target.name.endswith(".parquet") and _end(partial) != b"PAR1":
        raise _WrongFile("is cut short: a parquet file ends in PAR1")
    partial.replace(target)
    note.unlink()


def _piece(url: Path, partial: Path, start: int, stop: int) -> bytes:
    """The bytes at [start, stop), of which those before were found to be as they were."""
    again = min(start, OVERLAP_BYTES)
    found = _within(PIECE_SECONDS, lambda: read_range(url, start - again, stop))
    if len(found) != stop - start + again:
        raise _Cut(f"{len(found)} bytes came of {stop - start + again} from byte {start - again}")
    with partial.open("rb") as file:
        file.seek(start - again)
        if file.read(again) != found[:again]:
            raise _WrongFile(f"other bytes came than stand before byte {start}")
    return found[again:]


def _within(seconds: float, work: Callable[[], bytes]) -> bytes:
    """What `work` returns; it is left behind if it takes too long.

    Raises:
        TimeoutError: it did.
    """
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        raise TimeoutError(f"nothing came for {seconds:.0f} s")
    if isinstance(found[0], Exception):
        raise found[0]
    return bytes(found[0])


def _refuse_pages(url: Path, beginning: bytes) -> None:
    """Raises _WrongFile for an error page in the place of data, or another format."""
    name = url.name
    wanted = next((magic for end, magic in _BEGINNINGS.items() if name.endswith(end)), b"")
    if not beginning.startswith(wanted):
        raise _WrongFile(f"begins with {beginning[:20]!r}: wanted a {Path(name).suffix} file")
    if not wanted and beginning.lstrip()[:20].lower().startswith(_PAGE):
        raise _WrongFile("is a web page, perhaps of an error or a log-in")


def _end(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4))
        return file.read()


def _partial(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial")


def _note(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial.json")


def _forget(target: Path) -> None:
    _partial(target).unlink(missing_ok=True)
    _note(target).unlink(missing_ok=True)
