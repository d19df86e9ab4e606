"""Drives the loop through one stage: resume, logs, probes on cadence, checkpoints, orderly stops.

The only caller of `train_steps`; what a stage trains on is said in its `FitJob`.
"""

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from penjing.artifacts.directories import discard, newest_verified, sweep_partials
from penjing.artifacts.progress import Progress
from penjing.artifacts.records import SampleRecord, StepRecord, TimingRecord
from penjing.errors import ArtifactError, DiskFullError, DivergedError, StoppedEarly
from penjing.model.language_model import LanguageModel
from penjing.train.checkpoint import (
    TrainingState,
    checkpoint_path,
    checkpoints,
    load_checkpoint,
    save_checkpoint,
    set_aside_spoiled,
)
from penjing.train.collection import collections_between_steps
from penjing.train.guard import MAX_SPIKES, highest_loss, observe, observe_not_finite
from penjing.train.job import FitJob
from penjing.train.journal import GrowthAlarm, Journal, TimedBatches, now, timing_of
from penjing.train.loop import BatchT, LossScale, StepResult, Watch, train_steps
from penjing.train.stopping import InterruptedProbeError, StopRequest, stop_requests

PAUSE_SECONDS = 10.0
"""Between two looks at a disk that was full."""

MAX_PAUSES = 360
"""After an hour the stage gives up; its last checkpoint is there."""

MAX_ROLLBACKS = 3


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


def fit(job: FitJob[BatchT]) -> FitResult:
    """Train the stage to its last step, from its newest good checkpoint if it has one.

    A resumed run writes the same metrics, samples and weights as one that was never stopped.

    Raises:
        StoppedEarly: SIGINT or SIGTERM came; the step was finished and a checkpoint written.
        DivergedError: too many steps in a row were not finite.
        ArtifactError: the checkpoint is of something else, or the disk is full.
    """
    begun = time.monotonic()
    journal = Journal(job.directory, job.stage, job.runtime, job.logs, job.trackers)
    try:
        with stop_requests() as stop, collections_between_steps() as collect:
            start = end = _resume(job, journal)
            if start.step < job.steps or start.open_record is not None:
                end = _train(job, start, journal, stop, collect)
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


def _resume(job: FitJob[BatchT], journal: Journal) -> TrainingState:
    """The state to go on from, with the model, the optimizer and the logs made to match."""
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
    journal.truncate_after(state.step, record_is_open=state.open_record is not None)
    return state


def _newest_step(directory: Path, journal: Journal) -> int:
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
    job: FitJob[BatchT],
    state: TrainingState,
    journal: Journal,
    stop: StopRequest,
    collect: Callable[[], None],
) -> TrainingState:
    """All steps after `state`, going back where the guard wants it."""
    rollbacks = 0
    while True:
        state, spoiled = _run(job, state, journal, stop, collect)
        if not spoiled:
            return state
        rollbacks += 1
        if rollbacks > MAX_ROLLBACKS:
            raise DivergedError(
                f"{job.stage}: the loss jumped for the {rollbacks}th time near step {state.step}, "
                f"each time after going back. Lower the learning rates in [{job.stage}.optimizer], "
                "or look at what the data has there"
            )
        skip_steps = state.guard.skip_steps
        if job.runtime.rank == 0:
            set_aside_spoiled(job.directory, state.step - MAX_SPIKES)
        state = _resume(job, journal)
        state = replace(state, guard=replace(state.guard, skip_steps=skip_steps))


def _run(
    job: FitJob[BatchT],
    state: TrainingState,
    journal: Journal,
    stop: StopRequest,
    collect: Callable[[], None],
) -> tuple[TrainingState, bool]:
    """The state after the last step taken, and whether the weights are to be taken back."""
    since, microbatch_rows, alarm = now(), job.microbatch_rows, GrowthAlarm()
    state = _finish_record(job, state, journal, stop)
    batches = TimedBatches(job.open_batches(state.step))
    guard = [state.guard]  # what the loop asks about is the state after the step before
    loss_scale = None
    if job.model.compute_dtype == torch.float16:
        loss_scale = LossScale(state.loss_scale, state.good_steps)
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
        watch=Watch(
            highest_loss=lambda: highest_loss(guard[0]) if job.skips_spikes else math.inf,
            skip_steps=state.guard.skip_steps if job.skips_spikes else (),
            stop=stop.requested if job.runtime.world_size == 1 else lambda: False,
        ),
        loss_scale=loss_scale,
        reads_late=job.reads_late,
    ):
        timing = timing_of(result, since, batches.seconds, job.runtime, job.flops_per_token)
        if result.microbatch_rows < microbatch_rows:
            microbatch_rows = result.microbatch_rows
            message = f"out of memory at step {result.step}: {microbatch_rows} rows a microbatch"
            _warn(job, journal, message, step=result.step, microbatch_rows=microbatch_rows)
        if warning := alarm.observe(timing.memory_bytes):
            _warn(job, journal, warning, step=result.step)
        state, spoiled = _advance(job, state, result, journal)
        if spoiled and checkpoints(job.directory):
            return state, True
        guard[0] = state.guard
        if loss_scale:
            state = replace(state, loss_scale=loss_scale.value, good_steps=loss_scale.good_steps)
        state = _record(job, state, _step_record(result), timing, journal, stop)
        stopping = any(job.runtime.gather(stop.requested()))
        if _due(result.step, job.cadence.checkpoint_every_steps, job.steps) or stopping:
            _save(job, state, journal, stop)
        if stopping:
            _stop(job, state)
        collect()
        since = now()
    if state.step < job.steps:  # a stop was asked for in the middle of a step
        _save(job, state, journal, stop)
        _stop(job, state)
    return state, False


def _stop(job: FitJob[BatchT], state: TrainingState) -> None:
    raise StoppedEarly(
        f"{job.stage}: stopped after step {state.step} of {job.steps} and saved; "
        "run the same command again to resume"
    )


def _warn(job: FitJob[BatchT], journal: Journal, message: str, **values: float) -> None:
    """An event, and a line on the screen."""
    journal.event("warning", message, **values)
    if job.runtime.rank == 0:
        job.show(Progress(job.stage, "message", text=f"warning: {message}"))


def _due(step: int, every_steps: int, last_step: int) -> bool:
    return step % every_steps == 0 or step == last_step


def _advance(
    job: FitJob[BatchT], state: TrainingState, result: StepResult, journal: Journal
) -> tuple[TrainingState, bool]:
    """The state after a step, and whether its weights are spoiled; what was skipped is an event."""
    guard, spoiled, where = state.guard, False, f"step {result.step}"
    if result.skipped == "not finite":
        guard = observe_not_finite(guard, job.stage, result.step)
    elif result.skipped in (None, "spike"):
        guard, verdict = observe(guard, result.loss, result.step)
        if verdict != "good" and result.skipped is None:
            message = f"{where}: the loss jumped to {result.loss:.4f}"
            journal.event("warning", message, step=result.step, loss=result.loss)
        elif verdict == "roll back":
            spoiled = True
            message = f"{where}: the loss stays at {result.loss:.4f}: going back"
            _warn(job, journal, message, step=result.step, loss=result.loss)
        elif verdict == "new level":
            message = f"{where}: the loss stays at {result.loss:.4f} again: the data has changed"
            _warn(job, journal, message, step=result.step, loss=result.loss)
    if result.skipped:
        values = {"loss": result.loss} if math.isfinite(result.loss) else {}
        message = f"{where} was skipped: {result.skipped}"
        journal.event("skipped_step", message, step=result.step, **values)
    state = replace(
        state,
        step=result.step,
        position=result.step * job.rows_per_step,
        tokens=state.tokens + result.tokens,
        targets=state.targets + result.targets,
        skipped_steps=state.skipped_steps + bool(result.skipped),
        loss=state.loss if result.skipped else result.loss,
        guard=guard,
    )
    return state, spoiled and job.skips_spikes


def _step_record(result: StepResult) -> StepRecord:
    return StepRecord(
        result.step,
        _finite(result.loss),
        _finite(result.grad_norm),
        result.schedule,
        result.targets,
        result.tokens,
        skipped=result.skipped or "",
        values=result.metrics,
    )


def _record(
    job: FitJob[BatchT],
    state: TrainingState,
    record: StepRecord,
    timing: TimingRecord,
    journal: Journal,
    stop: StopRequest,
) -> TrainingState:
    """Run the probes that are due, write the step's lines, show its numbers.

    A stop that comes meanwhile leaves the record open in the state: `_finish_record` writes it.
    """
    if job.runtime.rank != 0:
        return state
    values, samples = dict(record.values), list[SampleRecord]()
    try:
        for probe in job.probes:
            if _due(record.step, probe.every_steps, job.steps):
                # Several ranks would have to agree; there a stop waits for the probe.
                waits = probe.instant or job.runtime.world_size > 1
                alone = nullcontext() if waits else stop.interruptible()
                with torch.no_grad(), torch.random.fork_rng(devices=[]), alone:
                    seen = probe.run(record.step)
                values |= seen.values
                samples += seen.samples
    except InterruptedProbeError:
        return replace(state, open_record=replace(record, values=_finite_only(values)))
    record = replace(record, values=_finite_only(values))
    journal.append(record)
    journal.append(timing)
    journal.track(record, timing)
    for sample in samples:
        journal.append(sample)
        told = f"{sample.prompt} → {sample.text}"
        job.show(Progress(job.stage, "sample", record.step, job.steps, text=told))
    shown = {} if record.loss is None else {"loss": record.loss}
    shown |= values | {"tokens_per_second": timing.tokens_per_second}
    shown |= {} if timing.mfu is None else {"mfu": timing.mfu}
    job.show(Progress(job.stage, "progress", record.step, job.steps, values=tuple(shown.items())))
    return replace(state, open_record=None)


def _finish_record(
    job: FitJob[BatchT], state: TrainingState, journal: Journal, stop: StopRequest
) -> TrainingState:
    """Write the record of a step whose probes a stop had interrupted."""
    if state.open_record is None:
        return state
    memory = job.runtime.memory()
    step = state.open_record.step
    timing = TimingRecord(step, 0.0, 0.0, 0.0, memory.peak_bytes, memory_bytes=memory.peak_bytes)
    done = _record(job, state, state.open_record, timing, journal, stop)
    if done.open_record is not None:
        _stop(job, state)
    if done.step == job.steps:  # the last checkpoint is to be what it would have been
        discard(checkpoint_path(job.directory, done.step))
        _save(job, done, journal, stop)
    return done


def _finite_only(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _save(job: FitJob[BatchT], state: TrainingState, journal: Journal, stop: StopRequest) -> None:
    """A checkpoint; on a full disk training waits for room, and for as long as nobody stops it."""
    journal.sync()
    if state.step == 0:  # stopped in its first step: it begins again
        return
    for pause in range(MAX_PAUSES + 1):
        try:
            if job.runtime.rank == 0 and not checkpoint_path(job.directory, state.step).exists():
                save_checkpoint(
                    job.directory,
                    state,
                    job.model,
                    job.optimizer,
                    job.tokenizer,
                    keep=job.cadence.keep_checkpoints,
                    keep_every_steps=job.cadence.keep_every_steps,
                )
            break
        except DiskFullError as error:
            if pause == MAX_PAUSES or stop.requested():
                raise
            if pause == 0:
                message = f"paused: {error}; training goes on by itself once there is room"
                _warn(job, journal, message, step=state.step)
            time.sleep(PAUSE_SECONDS)
    job.runtime.gather(None)  # a rank that left early would have torchrun kill the one that writes
