"""The one training loop: it takes steps and reports them. It does not log, evaluate or save.

The gradient of a step is that of the mean over all its targets, however its rows were cut into
microbatches and ranks; sums and counts are added up and divided once.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Protocol, Self, TypeVar

import torch
from torch import Tensor

from penjing.errors import ConfigError, DataError
from penjing.model.language_model import LanguageModel
from penjing.runtime import Runtime, out_of_memory
from penjing.train.objectives import Loss


class StepBatch(Protocol):
    """All rows of one step for this rank."""

    @property
    def rows(self) -> int: ...

    def split(self, n: int) -> Iterator[Self]: ...

    def to(self, device: torch.device | str) -> Self: ...


class Updater(Protocol):
    """Applies the gradients to the weights; `train.optimizer.Optimizer` is one."""

    def step(self, factor: float) -> None: ...


BatchT = TypeVar("BatchT", bound=StepBatch)
Objective = Callable[[LanguageModel, BatchT], Loss]
Sums = dict[str, Any]
"""What rows add up to, in numbers, so that ranks can exchange it as JSON."""


@dataclass(frozen=True)
class StepResult:
    """One step over all ranks. `loss` and `grad_norm` (before clipping) may be NaN if skipped."""

    step: int
    loss: float
    grad_norm: float
    schedule: float
    targets: int
    tokens: int
    skipped: Literal["no targets", "not finite"] | None
    metrics: dict[str, float]
    microbatch_rows: int


def train_steps(
    model: LanguageModel,
    optimizer: Updater,
    objective: Objective[BatchT],
    step_batches: Iterator[BatchT],
    runtime: Runtime,
    *,
    steps: range,
    microbatch_rows: int,
    schedule: Callable[[int], float],
    max_grad_norm: float,
) -> Iterator[StepResult]:
    """Take one step each time the caller asks for the next result.

    Without trained targets or with a loss or gradient that is not finite, weights and optimizer
    stay untouched. Out of memory, all ranks redo the step with half the microbatch and keep to it.

    Args:
        model: float32 masters, changed in place.
        optimizer: of the same model.
        objective: rows to a sum and a count.
        step_batches: all rows of a step for this rank; drawn when the step begins, not earlier.
        runtime: the device, and the other ranks.
        steps: numbers of the steps, counted from 1.
        microbatch_rows: rows of one forward and backward pass.
        schedule: a step's number to the factor of all learning rates.
        max_grad_norm: gradients are scaled down to this norm.

    Raises:
        DataError: the batches ended early.
        ConfigError: a single row does not fit into memory.
    """
    for step in steps:
        batch = next(step_batches, None)
        if batch is None:
            raise DataError(f"the batches ended before step {step}; {steps.stop - 1} were wanted")
        accumulate = partial(_accumulate, model, objective, batch, runtime.device)
        everywhere, microbatch_rows = _on_all_ranks(accumulate, runtime, microbatch_rows, step)
        sums = _add_up(everywhere)
        loss, terms = sums["loss"]
        factor, grad_norm = schedule(step), math.nan
        skipped: Literal["no targets", "not finite"] | None = None if terms else "no targets"
        if terms:
            gradients = _gradients(model)
            runtime.sum_over_ranks(gradients)
            grad_norm = _divide_and_clip(gradients, terms, max_grad_norm)
            if math.isfinite(loss) and math.isfinite(grad_norm):
                optimizer.step(factor)
            else:
                skipped = "not finite"
        model.zero_grad()
        mean = loss / terms if terms else math.nan
        targets, tokens = round(terms), round(sums["tokens"])
        metrics = _values(sums)
        yield StepResult(
            step, mean, grad_norm, factor, targets, tokens, skipped, metrics, microbatch_rows
        )


def _on_all_ranks(
    accumulate: Callable[[int], Sums | None], runtime: Runtime, microbatch_rows: int, step: int
) -> tuple[list[Sums], int]:
    """Every rank's sums, and the microbatch rows that fitted into the memory of all."""
    while True:
        everywhere = runtime.gather(accumulate(microbatch_rows))
        if None not in everywhere:
            return everywhere, microbatch_rows
        if microbatch_rows == 1:
            raise ConfigError(
                f"step {step}: out of memory on {runtime.device} with one row a microbatch: "
                "shorten model.max_position_embeddings, choose a smaller model.depth, or free the "
                "device's memory"
            )
        microbatch_rows //= 2
        runtime.free_memory()


def _accumulate(
    model: LanguageModel,
    objective: Objective[BatchT],
    batch: BatchT,
    device: torch.device,
    microbatch_rows: int,
) -> Sums | None:
    """Gradient sums of this rank's rows, and what they add up to; None when memory ran out."""
    model.zero_grad()
    losses = []
    try:
        for rows in batch.split(microbatch_rows):
            loss = objective(model, rows.to(device))
            if loss.total.requires_grad:  # not if the part holds no rows
                loss.total.backward()  # type: ignore[no-untyped-call]
            losses.append(replace(loss, total=loss.total.detach()))
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return None
    return _add_up(map(_numbers, losses))  # read late: until here nothing waited for the device


def _numbers(loss: Loss) -> Sums:
    pairs = {name: (float(total), float(count)) for name, (total, count) in loss.metrics.items()}
    maxima = {name: float(value) for name, value in loss.maxima.items()}
    sums = {"loss": (float(loss.total), float(loss.terms)), "tokens": float(loss.tokens)}
    return sums | {"metrics": pairs, "maxima": maxima}


def _add_up(parts: Iterable[Sums]) -> Sums:
    loss, terms, tokens = 0.0, 0.0, 0.0
    metrics: dict[str, tuple[float, float]] = {}
    maxima: dict[str, float] = {}
    for part in parts:
        loss, terms = loss + part["loss"][0], terms + part["loss"][1]
        tokens += part["tokens"]
        for name, (total, count) in part["metrics"].items():
            before = metrics.get(name, (0.0, 0.0))
            metrics[name] = (before[0] + total, before[1] + count)
        for name, value in part["maxima"].items():
            maxima[name] = max(maxima.get(name, value), value)
    return {"loss": (loss, terms), "tokens": tokens, "metrics": metrics, "maxima": maxima}


def _values(sums: Sums) -> dict[str, float]:
    """Means and maxima by name; a mean of nothing is left out."""
    means = {name: total / count for name, (total, count) in sums["metrics"].items() if count}
    return dict(sorted((means | sums["maxima"]).items()))


def _gradients(model: LanguageModel) -> list[Tensor]:
    """Every parameter's; zeros where none arose, so that ranks exchange the same tensors."""
    found = []
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        found.append(parameter.grad)
    return found


def _divide_and_clip(gradients: list[Tensor], terms: float, max_grad_norm: float) -> float:
    """Turn sums into the mean's gradient, clipped in place; returns its norm before clipping."""
    grad_norm = float(torch.nn.utils.get_total_norm(gradients)) / terms
    scale = min(1.0, max_grad_norm / max(grad_norm, 1e-12)) / terms
    for gradient in gradients:
        gradient.mul_(scale)
    return grad_norm
