"""What a stage will cost: time, memory, money, disk, and what loss to expect.

Time and memory come from some steps on this very device (`stages.calibration`); where those would
take too long, from operations and the device's peak, with wider error bars. A loss is expected only
of text that was trained on before.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from penjing.artifacts.directories import free_bytes
from penjing.artifacts.lines import read_record
from penjing.artifacts.records import Manifest
from penjing.artifacts.stage import read_manifest
from penjing.config.model import ModelShape
from penjing.config.schema import RunConfig
from penjing.config.training import TrainingConfig
from penjing.model.causal import keeps_weights
from penjing.model.memory import training_bytes
from penjing.model.size import flops_per_token, parameters
from penjing.runtime import Machine, Runtime, open_runtime
from penjing.stages.calibration import STEPS, calibrate
from penjing.stages.horizon import rows_per_step
from penjing.stages.plan import RunFacts, StageFacts
from penjing.stages.training import equal_part
from penjing.stages.upkeep import manifest_digest

MEASURED_ERRORS = 0.15, 0.10
"""Shares by which time and memory may be missed when they were measured (docs/notebook.md)."""

ROUGH_ERRORS = 0.6, 0.4
"""When they were reckoned from operations and the shape."""

ROUGH_UTILIZATION = 0.45
CALIBRATION_SECONDS = 120.0
"""Longest expected calibration."""

REACH = math.log(4)
"""How far beyond known runs a loss is expected, in operations."""


@dataclass(frozen=True)
class Forecast:
    """One stage at one depth. `error` is the share by which `seconds` may be missed; `loss` is in
    bits per byte, None if nothing was trained on this text; `epochs` None if its size is unknown.
    """

    stage: str
    depth: int
    parameters: int
    tokens: int
    flops: float
    seconds: float
    cpu_seconds: float | None
    error: float
    memory_bytes: int
    memory_error: float
    total_memory_bytes: int
    disk_bytes: int
    free_disk_bytes: int
    epochs: float | None
    loss: float | None
    loss_error: float | None


def forecast(config: RunConfig, facts: RunFacts, stage: StageFacts, runs: Path) -> Forecast | None:
    """What `penjing STAGE` will take here; None of a stage whose length is unknown."""
    section: TrainingConfig = getattr(config, stage.name)
    shape = config.model.shape(facts.vocab_size)
    if stage.steps is None or stage.tokens is None:
        return None
    size = parameters(shape).total
    cost = flops_per_token(shape, shape.max_position_embeddings)
    runtime = _runtime(config, runs)
    rate = ROUGH_UTILIZATION * runtime.peak * 1e9
    # Without asking first, a large model would take its steps for days.
    rough = STEPS * section.tokens_per_step * cost > rate * CALIBRATION_SECONDS
    seconds, cpu, memory, error, memory_error = (
        (
            stage.tokens * cost / rate,
            None,
            _rough_memory(config, section, runtime, shape),
            *ROUGH_ERRORS,
        )
        if rough
        else _measured(config, facts, stage)
    )
    loss, loss_error = expected_loss(config, runs, stage.name, stage.tokens * cost)
    return Forecast(
        stage.name,
        config.model.depth,
        size,
        stage.tokens,
        float(stage.tokens * cost),
        seconds,
        cpu,
        error,
        memory,
        memory_error,
        runtime.total_memory_bytes(),
        disk_bytes(shape, section),
        free_bytes(runs),
        _epochs(facts, stage),
        loss,
        loss_error,
    )


def _runtime(config: RunConfig, runs: Path) -> Runtime:
    """This machine, as the run knows it or as it is measured now."""
    path, wanted = runs / config.name / "machine.json", config.runtime
    recorded = read_record(path, Machine) if path.exists() else None
    return open_runtime(wanted.device, wanted.dtype, wanted.threads, recorded)[0]


def _measured(
    config: RunConfig, facts: RunFacts, stage: StageFacts
) -> tuple[float, float | None, int, float, float]:
    section: TrainingConfig = getattr(config, stage.name)
    assert stage.steps is not None
    found = calibrate(config, stage.name, facts.vocab_size, stage.steps)
    looks = {
        name: _times(stage.steps, every)
        for name, every in (
            ("validation", section.cadence.evaluate_every_steps),
            ("samples", section.cadence.sample_every_steps),
            ("checkpoint", section.cadence.checkpoint_every_steps),
        )
    }
    total = found.start + found.step.times(stage.steps)
    for name, count in looks.items():
        total = total + getattr(found, name).times(count)
    return total.seconds, total.cpu_seconds, found.memory_bytes, *MEASURED_ERRORS


def _rough_memory(
    config: RunConfig, section: TrainingConfig, runtime: Runtime, shape: ModelShape
) -> int:
    """As the memory model has it."""
    rows = rows_per_step(section, shape)
    if section.microbatch_rows != "auto":
        rows = equal_part(rows, section.microbatch_rows)
    return training_bytes(
        shape,
        rows,
        shape.max_position_embeddings,
        keeps_attention=keeps_weights(runtime.device, runtime.dtype),
        checkpoints_blocks=config.runtime.gradient_checkpointing,
    )


def _times(steps: int, every: int) -> int:
    """How often something is done every so many steps and after the last."""
    return -(-steps // every)


def _epochs(facts: RunFacts, stage: StageFacts) -> float | None:
    tokens = {source.name: source.tokens for source in facts.sources}
    known = [tokens.get(share.source) for share in stage.shares]
    if not known or any(count is None for count in known) or stage.tokens is None:
        return None
    return stage.tokens / max(1, sum(count or 0 for count in known))


def disk_bytes(shape: ModelShape, section: TrainingConfig) -> int:
    """Of the checkpoints that are kept, and of one that is being written: weights and optimizer."""
    moments = 8 if section.optimizer.kind != "muon" else 6
    one = parameters(shape).total * (4 + moments)
    return one * (section.cadence.keep_checkpoints + 1)


def expected_loss(
    config: RunConfig, runs: Path, stage: str, flops: float
) -> tuple[float | None, float | None]:
    """Validation bits per byte, from runs beside this one on the same shards: a power law through
    at least three of them, asked at most four times beyond their operations.
    """
    own = read_manifest(runs / config.name / "shards")
    points = []
    for manifest in _siblings(runs, stage):
        inputs = manifest.inputs.get("shards")
        if own is None or inputs != manifest_digest(own):
            continue
        value, spent = manifest.results.get("final_bpb"), manifest.results.get("flops")
        if value and spent:
            points.append((math.log(spent), math.log(value)))
    spent_logs = [x for x, _ in points]
    far = not points or not min(spent_logs) - REACH < math.log(flops) < max(spent_logs) + REACH
    if far or len(set(spent_logs)) < 3:
        return None, None
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points)
    slope /= sum((x - mean_x) ** 2 for x, _ in points)
    rest = [y - mean_y - slope * (x - mean_x) for x, y in points]
    spread = 2 * math.sqrt(sum(r * r for r in rest) / max(1, len(points) - 2))
    value = math.exp(mean_y + slope * (math.log(flops) - mean_x))
    return value, value * max(spread, 0.01)


def _siblings(runs: Path, stage: str) -> Iterator[Manifest]:
    for directory in sorted(runs.glob(f"*/{stage}")):
        manifest = read_manifest(directory)
        if manifest is not None:
            yield manifest


def values(one: Forecast) -> tuple[tuple[str, float], ...]:
    """Its numbers, by name, those that are known."""
    found = ((field.name, getattr(one, field.name)) for field in fields(one))
    return tuple((name, float(value)) for name, value in found if isinstance(value, int | float))


def lines(one: Forecast, price: float | None) -> Iterator[str]:
    """What a person reads of it."""
    low, high = one.seconds * (1 - one.error), one.seconds * (1 + one.error)
    cost = f", {price * one.seconds / 3600:,.2f} at {price:g} an hour" if price else ""
    yield (
        f"{one.stage} at depth {one.depth}: {one.parameters:,} parameters, {one.tokens:,} tokens, "
        f"{one.flops:.4g} operations"
    )
    yield (
        f"  {_time(one.seconds)} here ({_time(low)} to {_time(high)}){cost}; memory "
        f"{one.memory_bytes / 1e9:.2f} GB ± {one.memory_error:.0%} of "
        f"{one.total_memory_bytes / 1e9:.1f} GB; checkpoints {one.disk_bytes / 1e9:.2f} GB of "
        f"{one.free_disk_bytes / 1e9:.1f} GB free"
    )
    if one.epochs is not None and one.epochs > 1:
        yield f"  its text would be seen {one.epochs:.1f} times" + (
            ": more than four times adds little (arXiv:2305.16264)" if one.epochs > 4 else ""
        )
    loss = "unknown: fewer than three runs were trained on this text before"
    if one.loss is not None:
        loss = f"{one.loss:.3f} ± {one.loss_error:.3f} bits per byte"
    yield f"  expected loss: {loss}"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
