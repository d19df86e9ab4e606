"""Batches made ahead by threads, in the one order there is. A dead or stopped thread is named.

Threads suffice: a batch is made in a thousandth of a step (docs/notebook.md).
"""

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from penjing.data.batches import Batch, RowStream
from penjing.errors import DataError

_POLL_SECONDS = 0.2
_LEAVING_SECONDS = 2.0
"""Longest wait for a thread that is to leave: one that hangs on a disk is left behind."""


@dataclass(frozen=True)
class Feeding:
    """How batches are made: by so many threads (0: when asked for), so many steps ahead.

    A thread that finishes no source's rows within `patience_seconds` counts as stopped; the first
    may take ten times as long, since it plans all rows before it.
    """

    workers: int = 0
    prefetch_steps: int = 2
    pinned: bool = False
    patience_seconds: float = 20.0


def feed(stream: RowStream, first_row: int, how: Feeding) -> Iterator[Batch]:
    """The steps of `stream` from a global row on, as `RowStream.step_batches` has them.

    Raises:
        DataError: a thread failed or stopped; its number and its row are named.
    """
    if how.workers == 0:
        yield from stream.step_batches(first_row, pinned=how.pinned)
        return
    workers = [_Worker(stream, first_row, number, how) for number in range(how.workers)]
    try:
        while True:
            for worker in workers:
                yield worker.next()
    finally:
        for worker in workers:
            worker.leave.set()
        for worker in workers:  # one that the interpreter's end met in compiled code would abort
            worker.join(_LEAVING_SECONDS)


@dataclass
class _Worker:
    """The thread that makes every n-th step, with a stream of its own over the same shards."""

    stream: RowStream
    first_row: int
    number: int
    how: Feeding
    leave: threading.Event = field(default_factory=threading.Event)
    row: int = -1
    seen: float = field(default_factory=time.monotonic)
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        ahead = -(-self.how.prefetch_steps // self.how.workers)
        self._made: queue.Queue[Batch] = queue.Queue(max(1, ahead))
        name = f"penjing-feed-{self.number}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def next(self) -> Batch:
        asked = time.monotonic()
        while True:
            try:
                return self._made.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                self._look(asked)

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _look(self, asked: float) -> None:
        """Raises DataError if no batch is to be expected of the thread."""
        how = self.how
        who = f"data worker {self.number} of {how.workers}"
        place = f"after row {self.row}" if self.row >= 0 else f"before row {self.first_row}"
        if not self._thread.is_alive() and self._made.empty():
            why = f": {self.failure}" if self.failure else ""
            raise DataError(f"{who} died {place}{why}") from self.failure
        patience = how.patience_seconds * (10 if self.row < 0 else 1)
        still = time.monotonic() - max(asked, self.seen)
        if still > patience:
            raise DataError(
                f"{who} has stood still for {still:.0f} s {place}: the disk or network under the "
                "shards may hang. Nothing is lost: the same command goes on from the checkpoint"
            )

    def _run(self) -> None:
        try:
            stream, how = self.stream.replica(), self.how
            step = stream.rows_per_step
            row = self.first_row + self.number * step
            while not self.leave.is_set():
                batch = stream.step_batch(row, pinned=how.pinned, on_row=self._on_row)
                row += how.workers * step
                self._put(batch)
        except BaseException as error:
            self.failure = error

    def _on_row(self, row: int) -> None:
        self.row, self.seen = row, time.monotonic()

    def _put(self, batch: Batch) -> None:
        while not self.leave.is_set():
            try:
                self._made.put(batch, timeout=_POLL_SECONDS)
            except queue.Full:
                self.seen = time.monotonic()
            else:
                return
