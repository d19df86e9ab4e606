"""What a training stage writes down while it runs: its logs, the run's events, and trackers.

What is worth writing is `train.fit`'s to say.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from penjing.artifacts.lines import LineLog
from penjing.artifacts.records import SampleRecord, StepRecord, TimingRecord
from penjing.artifacts.stage import append_event
from penjing.process import cpu_seconds
from penjing.runtime import Runtime
from penjing.train.loop import StepResult

T = TypeVar("T")


class Tracker(Protocol):
    """A further place for a step's numbers, beside the logs: `train.trackers` has some."""

    def log(self, step: int, values: dict[str, float]) -> None: ...
    def close(self) -> None: ...


class Journal:
    """The stage's logs; the first rank writes, the others only pretend."""

    def __init__(
        self,
        directory: Path,
        stage: str,
        runtime: Runtime,
        logs: Sequence[LineLog],
        trackers: Sequence[Tracker],
    ) -> None:
        self._directory, self._stage, self._logs = directory, stage, logs
        self._writes = runtime.rank == 0
        self._trackers = trackers
        self._own: dict[type, LineLog] = {}
        if self._writes:
            names = {StepRecord: "metrics", TimingRecord: "timings", SampleRecord: "samples"}
            self._own = {kind: LineLog(directory / f"{name}.jsonl") for kind, name in names.items()}

    def append(self, record: StepRecord | TimingRecord | SampleRecord) -> None:
        if self._own:
            self._own[type(record)].append(record)

    def track(self, step: StepRecord, timing: TimingRecord) -> None:
        """Hand a step's numbers to the trackers, under `STAGE/`."""
        numbers = {"loss": step.loss, "grad_norm": step.grad_norm, "schedule": step.schedule}
        numbers |= step.values | {
            "tokens_per_second": timing.tokens_per_second,
            "mfu": timing.mfu,
            "data_seconds": timing.data_seconds,
            "memory_bytes": timing.memory_bytes,
        }
        values = {f"{self._stage}/{k}": float(v) for k, v in numbers.items() if v is not None}
        for tracker in self._trackers:
            tracker.log(step.step, values)

    def event(self, kind: str, message: str, **values: float) -> None:
        """A line of the run's `events.jsonl`."""
        if self._writes:
            append_event(self._directory.parent, kind, self._stage, message, **values)

    def truncate_after(self, step: int, *, record_is_open: bool) -> None:
        """Cut all logs back to a step; an open record is written later, to the stage's own."""
        for log in self._own.values():
            log.truncate_after(step - record_is_open)
        for log in self._logs:
            log.truncate_after(step)

    def sync(self) -> None:
        for log in (*self._own.values(), *self._logs):
            log.sync()

    def close(self) -> None:
        for log in self._own.values():
            log.close()
        for tracker in self._trackers:
            tracker.close()


class TimedBatches(Iterator[T]):
    """The batches; `seconds` is how long the last one was waited for."""

    def __init__(self, batches: Iterator[T]) -> None:
        self._batches, self.seconds = batches, 0.0

    def __next__(self) -> T:
        begun = time.perf_counter()
        batch = next(self._batches)
        self.seconds = time.perf_counter() - begun
        return batch


def now() -> tuple[float, float]:
    """Wall and CPU seconds."""
    return time.perf_counter(), cpu_seconds()


def timing_of(
    result: StepResult,
    since: tuple[float, float],
    data_seconds: float,
    runtime: Runtime,
    flops_per_token: float,
) -> TimingRecord:
    """What a step took since `since`, on this rank's device."""
    wall, cpu = now()
    seconds = wall - since[0]
    speed = result.tokens / seconds
    memory = runtime.memory()
    return TimingRecord(
        result.step,
        seconds,
        cpu - since[1],
        speed,
        memory.peak_bytes,
        data_seconds,
        mfu=runtime.utilization(speed * flops_per_token),
        memory_bytes=memory.allocated_bytes,
        reserved_bytes=memory.reserved_bytes,
    )


class GrowthAlarm:
    """Tells once of memory that only grows: the least of every `WINDOW` steps rose `WINDOWS` times
    in a row, by `SHARE` in all. Caches grow too, but they stop.
    """

    WINDOW, WINDOWS, SHARE = 50, 8, 0.1

    def __init__(self) -> None:
        self._window: list[int] = []
        self._lowest: list[int] = []
        self._told = False

    def observe(self, memory_bytes: int) -> str:
        """A warning, or nothing."""
        self._window.append(memory_bytes)
        if self._told or len(self._window) < self.WINDOW:
            return ""
        self._lowest = [*self._lowest, min(self._window)][-self.WINDOWS - 1 :]
        self._window = []
        rising = all(a < b for a, b in zip(self._lowest, self._lowest[1:], strict=False))
        first, last = self._lowest[0], self._lowest[-1]
        if len(self._lowest) <= self.WINDOWS or not rising or last < first * (1 + self.SHARE):
            return ""
        self._told = True
        return (
            f"memory grew from {first / 1e9:.2f} to {last / 1e9:.2f} GB over the last "
            f"{self.WINDOW * self.WINDOWS} steps without falling once: something is not let go"
        )
