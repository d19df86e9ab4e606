"""Drives the loop through one stage: resume, logs, probes on cadence, checkpoints, orderly stops.

The only caller of `train_steps`; what a stage trains on is said in its `FitJob`.
"""

import hashlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Generic

import torch

from penjing.artifacts.directories import newest_verified, sweep_partials
from penjing.artifacts.lines import LineLog
from penjing.artifacts.progress import Progress
from penjing.artifacts.records import SampleRecord, StepRecord, TimingRecord
from penjing.artifacts.stage import append_event
from penjing.config.training import CadenceConfig
from penjing.errors import ArtifactError, StoppedEarly
from penjing.model.language_model import LanguageModel
from penjing.process import cpu_seconds
from penjing.runtime import Runtime
from penjing.train.checkpoint import (
    TokenizerBundle,
    TrainingState,
    checkpoint_path,
    checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from penjing.train.guard import observe, observe_not_finite
from penjing.train.loop import BatchT, Objective, StepResult, train_steps
from penjing.train.optimizer import Optimizer


@dataclass(frozen=True)
class ProbeResult:
    """What a probe saw: numbers for the step's record, and samples."""

    values: Mapping[str, float] = field(default_factory=dict)
    samples: tuple[SampleRecord, ...] = ()


@dataclass(frozen=True)
class Probe:
    """A look at the model every so many steps and after the last, with seeds of its own."""

    name: str
    every_steps: int
    run: Callable[[int], ProbeResult]


@dataclass(frozen=True)
class FitJob(Generic[BatchT]):
    """One stage's training, whole.

    `open_batches(done)` gives this rank's batches after `done` steps, the same ones however often
    it is called; `schedule` maps a step's number, from 1, to the factor of all rates; `logs` are
    further logs with a "step" in each line, cut back on a resume like the stage's own.
    """

    directory: Path
    stage: str
    seed: int
    runtime: Runtime
    model: LanguageModel
    optimizer: Optimizer
    objective: Objective[BatchT]
    open_batches: Callable[[int], Iterator[BatchT]]
    schedule: Callable[[int], float]
    steps: int
    rows_per_step: int
    microbatch_rows: int
    max_grad_norm: float
    cadence: CadenceConfig
    probes: tuple[Probe, ...]
    tokenizer: TokenizerBundle
    show: Callable[[Progress], None]
    logs: tuple[LineLog, ...] = ()


@dataclass(frozen=True)
class FitResult:
    """Where a stage's training ended. Counts are of the whole stage, seconds of this process."""

    checkpoint: Path
    steps: int
    tokens: int
    targets: int
    skipped_steps: int
    loss: float | None
    resumed_from_step: int
    seconds: float


class _Journal:
    """The stage's logs; the first rank writes, the others only pretend."""

    def __init__(self, job: "FitJob[BatchT]") -> None:
        self._job = job
        self._own: dict[type, LineLog] = {}
        if job.runtime.rank == 0:
            names = {StepRecord: "metrics", TimingRecord: "timings", SampleRecord: "samples"}
            self._own = {
                kind: LineLog(job.directory / f"{name}.jsonl") for kind, name in names.items()
            }

    def append(self, record: StepRecord | TimingRecord | SampleRecord) -> None:
        if self._own:
            self._own[type(record)].append(record)

    def event(self, kind: str, message: str, **values: float) -> None:
        """A line of the run's `events.jsonl`."""
        if self._own:
            append_event(self._job.directory.parent, kind, self._job.stage, message, **values)

    def truncate_after(self, step: int) -> None:
        for log in (*self._own.values(), *self._job.logs):
            log.truncate_after(step)

    def sync(self) -> None:
        for log in (*self._own.values(), *self._job.logs):
            log.sync()

    def close(self) -> None:
        for log in self._own.values():
            log.close()


def fit(job: FitJob[BatchT]) -> FitResult:
    """Train the stage to its last step, from its newest good checkpoint if it has one.

    A resumed run writes the same metrics, samples and weights as one that was never stopped.

    Raises:
        StoppedEarly: SIGINT or SIGTERM came; the step was finished and a checkpoint written.
        DivergedError: too many steps in a row were not finite.
        ArtifactError: the checkpoint is of something else, or the disk is full.
    """
    begun = time.monotonic()
    journal = _Journal(job)
    try:
        with _stop_requests() as stop:
            start = _resume(job, journal)
            journal.truncate_after(start.step)
            end = start
            if start.step < job.steps:
                end = _train(job, start, journal, stop)
    finally:
        journal.close()
    return FitResult(
        checkpoint_path(job.directory, end.step),
        end.step,
        end.tokens,
        end.targets,
        end.skipped_steps,
        end.loss,
        start.step,
        time.monotonic() - begun,
    )


def _resume(job: FitJob[BatchT], journal: _Journal) -> TrainingState:
    """The state to go on from, with the model and optimizer filled to match."""
    fresh = TrainingState(job.stage, job.seed, job.tokenizer.digest, job.optimizer.kind)
    step = 0
    if job.runtime.rank == 0:
        step = _newest_step(job.directory, journal)
    step = job.runtime.gather(step)[0]
    state = fresh
    if step:
        path = checkpoint_path(job.directory, step)
        state = load_checkpoint(path, job.model, job.optimizer, fresh)
        if state.step > job.steps:
            raise ArtifactError(f"{path} is beyond the {job.steps} steps of {job.stage}.steps")
        journal.event("resumed", f"{job.stage} goes on after step {step}", step=step)
    if job.runtime.world_size > 1:
        job.runtime.require_agreement("the starting weights", _digest(job.model))
    return state


def _newest_step(directory: Path, journal: _Journal) -> int:
    directory.mkdir(parents=True, exist_ok=True)
    sweep_partials(directory)
    before = checkpoints(directory)
    newest = newest_verified(directory)
    step = int(newest.name[5:]) if newest else 0
    if before and newest != before[-1]:
        journal.event(
            "warning",
            f"{before[-1].name} is damaged and was put aside; training goes on after step {step}",
            step=step,
        )
    return step


def _digest(model: LanguageModel) -> str:
    digest = hashlib.sha256()
    for parameter in model.parameters():
        digest.update(parameter.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _train(
    job: FitJob[BatchT], state: TrainingState, journal: _Journal, stop: threading.Event
) -> TrainingState:
    since, microbatch_rows = _now(), job.microbatch_rows
    batches = _TimedBatches(job.open_batches(state.step))
    for result in train_steps(
        job.model,
        job.optimizer,
        job.objective,
        batches,
        job.runtime,
        steps=range(state.step + 1, job.steps + 1),
        microbatch_rows=job.microbatch_rows,
        schedule=job.schedule,
        max_grad_norm=job.max_grad_norm,
    ):
        timing = _timing(result, since, batches.seconds, job.runtime)
        if result.microbatch_rows < microbatch_rows:
            microbatch_rows = result.microbatch_rows
            message = (
                f"out of memory at step {result.step}: {microbatch_rows} rows a microbatch now"
            )
            journal.event("warning", message, step=result.step, microbatch_rows=microbatch_rows)
        state = _advance(job, state, result, journal)
        _record(job, result, timing, journal)
        stopping = any(job.runtime.gather(stop.is_set()))
        if _due(result.step, job.cadence.checkpoint_every_steps, job.steps) or stopping:
            _save(job, state, journal)
        if stopping:
            raise StoppedEarly(
                f"{job.stage}: stopped after step {result.step} of {job.steps} and saved; "
                "run the same command again to resume"
            )
        since = _now()
    return state


def _due(step: int, every_steps: int, last_step: int) -> bool:
    return step % every_steps == 0 or step == last_step


def _advance(
    job: FitJob[BatchT], state: TrainingState, result: StepResult, journal: _Journal
) -> TrainingState:
    """The state after a step; spikes and skipped steps become events."""
    guard, where = state.guard, f"step {result.step}"
    if result.skipped:
        journal.event("skipped_step", f"{where} was skipped: {result.skipped}", step=result.step)
        if result.skipped == "not finite":
            guard = observe_not_finite(guard, job.stage, result.step)
    else:
        guard, spike = observe(guard, result.loss)
        if spike:
            message = f"{where}: the loss jumped to {result.loss:.4f}"
            journal.event("warning", message, step=result.step, loss=result.loss)
    return replace(
        state,
        step=result.step,
        position=result.step * job.rows_per_step,
        tokens=state.tokens + result.tokens,
        targets=state.targets + result.targets,
        skipped_steps=state.skipped_steps + bool(result.skipped),
        loss=state.loss if result.skipped else result.loss,
        guard=guard,
    )


def _record(
    job: FitJob[BatchT], result: StepResult, timing: TimingRecord, journal: _Journal
) -> None:
    """Run the probes that are due, write the step's lines, show its numbers."""
    if job.runtime.rank != 0:
        return
    values, samples = dict(result.metrics), list[SampleRecord]()
    for probe in job.probes:
        if _due(result.step, probe.every_steps, job.steps):
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                seen = probe.run(result.step)
            values |= seen.values
            samples += seen.samples
    loss, grad_norm = _finite(result.loss), _finite(result.grad_norm)
    journal.append(
        StepRecord(
            result.step,
            loss,
            grad_norm,
            result.schedule,
            result.targets,
            result.tokens,
            skipped=result.skipped or "",
            values={name: value for name, value in values.items() if math.isfinite(value)},
        )
    )
    journal.append(timing)
    for sample in samples:
        journal.append(sample)
        told = f"{sample.prompt} → {sample.text}"
        job.show(Progress(job.stage, "sample", result.step, job.steps, text=told))
    shown = {} if loss is None else {"loss": loss}
    shown |= values | {"tokens_per_second": timing.tokens_per_second}
    job.show(Progress(job.stage, "progress", result.step, job.steps, values=tuple(shown.items())))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _save(job: FitJob[BatchT], state: TrainingState, journal: _Journal) -> None:
    journal.sync()
    if job.runtime.rank == 0:
        save_checkpoint(
            job.directory,
            state,
            job.model,
            job.optimizer,
            job.tokenizer,
            keep=job.cadence.keep_checkpoints,
        )
    job.runtime.gather(None)  # a rank that left early would have torchrun kill the one that writes


class _TimedBatches(Iterator[BatchT]):
    """The batches; `seconds` is how long the last one was waited for."""

    def __init__(self, batches: Iterator[BatchT]) -> None:
        self._batches, self.seconds = batches, 0.0

    def __next__(self) -> BatchT:
        begun = time.perf_counter()
        batch = next(self._batches)
        self.seconds = time.perf_counter() - begun
        return batch


def _timing(
    result: StepResult, since: tuple[float, float], data_seconds: float, runtime: Runtime
) -> TimingRecord:
    now = _now()
    seconds = now[0] - since[0]
    speed, peak = result.tokens / seconds, runtime.peak_memory_bytes()
    return TimingRecord(result.step, seconds, now[1] - since[1], speed, peak, data_seconds)


def _now() -> tuple[float, float]:
    """Wall and CPU seconds."""
    return time.perf_counter(), cpu_seconds()


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; the second raises KeyboardInterrupt."""
    requested = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        if requested.is_set():
            raise KeyboardInterrupt
        requested.set()

    if threading.current_thread() is not threading.main_thread():
        yield requested
        return
    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
