"""Faulty downloads from a server in this process: none may be taken for the file.

`make test` samples these (tests/sources/test_download.py), `make nightly PART=downloads` runs 500.
"""

import hashlib
import http.server
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from random import Random

from penjing.artifacts.remote import facts, place
from penjing.errors import DataError
from penjing.sources import download

PAGE = b"<!DOCTYPE html>\n<html><body>Service unavailable</body></html>\n"
Fault = Callable[["Answer", int, int], bytes | None]


class Answer(http.server.BaseHTTPRequestHandler):
    """One request to a server that may misbehave; its `files` and `fault` are the server's."""

    protocol_version = "HTTP/1.1"
    server: "FaultyServer"

    def do_HEAD(self) -> None:
        """The length, as it is."""
        self._head(200, len(self.server.files[self.path]))

    def do_GET(self) -> None:
        """The range asked for, or what the fault makes of it."""
        body = self.server.files[self.path]
        start, stop = 0, len(body)
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop = int(first), int(last) + 1 if last else len(body)
        self.server.served += stop - start
        self.server.requests += 1
        fault = self.server.next_fault()
        if fault is None:
            self._head(206 if asked else 200, stop - start, (start, stop, len(body)))
            self.wfile.write(body[start:stop])
        else:
            fault(self, start, stop)

    def _head(self, status: int, length: int, place: tuple[int, int, int] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{self.server.version}"')
        if place:
            self.send_header("Content-Range", f"bytes {place[0]}-{place[1] - 1}/{place[2]}")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: the tests' output is no access log."""


class FaultyServer(http.server.ThreadingHTTPServer):
    """Serves `files` by path; `faults` are used up, one a request for a body."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.faults: list[str] = []
        self.version = self.served = self.requests = 0

    def next_fault(self) -> Callable[[Answer, int, int], None] | None:
        """What the next answer does wrong."""
        return FAULTS[self.faults.pop(0)] if self.faults else None

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


def _cut(answer: Answer, start: int, stop: int) -> None:
    body = answer.server.files[answer.path]
    answer._head(206, stop - start, (start, stop, len(body)))
    answer.wfile.write(body[start : start + (stop - start) // 2])
    answer.wfile.flush()
    answer.connection.close()


def _stalled(answer: Answer, start: int, stop: int) -> None:
    answer._head(206, stop - start)
    answer.wfile.write(b"x")
    answer.wfile.flush()
    time.sleep(3 * download.PIECE_SECONDS)


def _wrong_range(answer: Answer, start: int, stop: int) -> None:
    body = answer.server.files[answer.path]
    shift = 7 if start else 0
    part = body[start + shift : stop + shift] or body[: stop - start]
    answer._head(206, len(part), (start, stop, len(body)))
    answer.wfile.write(part)


def _page(answer: Answer, _start: int, _stop: int) -> None:
    answer._head(200, len(PAGE))
    answer.wfile.write(PAGE)


def _whole(answer: Answer, _start: int, _stop: int) -> None:
    body = answer.server.files[answer.path]
    answer._head(200, len(body))
    answer.wfile.write(body)


def _too_long(answer: Answer, start: int, stop: int) -> None:
    body = answer.server.files[answer.path][start:stop] + b"and more"
    answer._head(206, len(body))
    answer.wfile.write(body)


def _refused(answer: Answer, _start: int, _stop: int) -> None:
    answer._head(503, 0)


def _flipped(answer: Answer, start: int, stop: int) -> None:
    body = bytearray(answer.server.files[answer.path][start:stop])
    body[-1] ^= 1
    answer._head(206, len(body), (start, stop, stop))
    answer.wfile.write(body)


def _changed(answer: Answer, start: int, stop: int) -> None:
    """The file becomes another while it is fetched."""
    server = answer.server
    server.files[answer.path] = bytes(reversed(server.files[answer.path]))
    server.version += 1
    answer._head(206, stop - start)
    answer.wfile.write(server.files[answer.path][start:stop])


FAULTS: dict[str, Callable[[Answer, int, int], None]] = {
    "cut": _cut,
    "stalled": _stalled,
    "wrong range": _wrong_range,
    "HTML with 200": _page,
    "the whole file": _whole,
    "too long": _too_long,
    "503": _refused,
    "wrong digest": _flipped,
    "changed": _changed,
}


@contextmanager
def serving() -> Iterator[FaultyServer]:
    """A server on a port of its own, for a while."""
    server = FaultyServer()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def impatient() -> Iterator[None]:
    """Small pieces and short waits, so that a fault costs milliseconds."""
    names = ("PIECE_BYTES", "OVERLAP_BYTES", "FIRST_WAIT_SECONDS", "PIECE_SECONDS")
    before = {name: getattr(download, name) for name in names}
    try:
        for name, value in zip(names, (4000, 64, 0.001, 0.15), strict=True):
            setattr(download, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(download, name, value)


def faulty_downloads(folder: Path, count: int, seed: int) -> tuple[int, Counter[str]]:
    """How many of `count` downloads left another file than the right one, and how they ended, by
    fault. A fault stands in the way of one to six answers.
    """
    draws, wrong, ends = Random(seed), 0, Counter[str]()
    with serving() as server, impatient():
        for number in range(count):
            fault = draws.choice(sorted(FAULTS))
            body = draws.randbytes(draws.randrange(1, 20_000))
            path = f"/{seed}-{number}.txt"
            server.files[path], server.version = body, number * 10
            good = draws.randrange(3)
            target = folder / f"{number}.txt"
            digest = hashlib.sha256(body).hexdigest()
            listed = digest if fault == "wrong digest" or draws.random() < 0.5 else None
            url = place(server.url(path), folder, "test")
            if good:
                _begin(url, target, body, good * 4000)
            server.faults = [fault] * draws.randrange(1, 7)
            try:
                download.fetch(url, target, listed)
            except DataError:
                ends[f"{fault}: refused"] += 1
                wrong += target.exists()
            else:
                whole = target.read_bytes()
                ends[f"{fault}: fetched after all"] += 1
                allowed = {body} if listed or fault != "changed" else {body, server.files[path]}
                wrong += whole not in allowed
    return wrong, ends


def _begin(url: Path, target: Path, body: bytes, size: int) -> None:
    """Leaves the beginning of a file, as an interrupted download does."""
    known = facts(url)
    note = download.Progressed(str(url), known.size or 0, known.version)
    download._note(target).write_text(json.dumps(asdict(note)))
    download._partial(target).write_bytes(body[: min(size, len(body))])
