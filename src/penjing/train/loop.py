"""The one training loop: it takes steps and reports them. It does not log, evaluate or save.

The gradient of a step is that of the mean over all its targets, however its rows were cut into
microbatches and ranks; sums and counts are added up and divided once. What may not reach the
weights (not finite, a spike, a step on the skip list) is decided before the optimizer is asked.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
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


NAN = math.nan
BatchT = TypeVar("BatchT", bound=StepBatch)
Skipped = Literal["no targets", "not finite", "spike", "skip list"]
Objective = Callable[[LanguageModel, BatchT], Loss]
Sums = dict[str, Any]
"""What rows add up to, in numbers, so that ranks can exchange it as JSON."""
Failure = Literal["out of memory", "stopped"]


@dataclass(frozen=True)
class StepResult:
    """One step over all ranks. `loss` and `grad_norm` (before clipping) may be NaN if skipped."""

    step: int
    loss: float
    grad_norm: float
    schedule: float
    targets: int
    tokens: int
    skipped: Skipped | None
    metrics: dict[str, float]
    microbatch_rows: int


@dataclass(frozen=True)
class Watch:
    """What may keep a step from the weights, or end the loop.

    `is_spike(loss)`: whether a finite loss is one that no update should be made from;
    `skip_steps`: steps whose rows are passed over; `stop()`: asked between microbatches, after
    which the step under way is given up and the loop ends.
    """

    is_spike: Callable[[float], bool] = lambda _: False
    skip_steps: Collection[int] = field(default_factory=frozenset)
    stop: Callable[[], bool] = lambda: False


@dataclass
class LossScale:
    """By what a float16 loss is multiplied, so that its gradients do not vanish: doubled after
    `patience` good steps, halved after one that was not finite. Source: arXiv:1710.03740, 3.2.
    """

    value: float = 2.0**16
    good_steps: int = 0
    patience: int = 1000

    def observe(self, *, finite: bool) -> None:
        self.good_steps = self.good_steps + 1 if finite else 0
        if not finite:
            self.value = max(1.0, self.value / 2)
        elif self.good_steps == self.patience:
            self.value, self.good_steps = self.value * 2, 0


class StoppedError(Exception):
    """A step was given up because a stop was asked for."""


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
    watch: Watch = Watch(),
    loss_scale: LossScale | None = None,
) -> Iterator[StepResult]:
    """Take one step each time the caller asks for the next result.

    Without trained targets, with a loss or gradient that is not finite or a loss that `watch` calls
    a spike, weights and optimizer stay untouched. Out of memory, all ranks redo the step with half
    the microbatch and keep to it.

    Args:
        model: float32 masters, changed in place.
        optimizer: of the same model.
        objective: rows to a sum and a count.
        step_batches: all rows of a step for this rank; drawn when the step begins, not earlier.
        runtime: the device, and the other ranks.
        steps: their numbers, counted from 1.
        microbatch_rows: rows of one forward and backward pass.
        schedule: a step's number to the factor of all learning rates.
        max_grad_norm: gradients are scaled down to this norm.
        watch: what else may keep a step from the weights.
        loss_scale: of float16; it follows the steps.

    Raises:
        DataError: the batches ended early.
        ConfigError: a single row does not fit into memory.
    """
    for step in steps:
        batch, factor = _rows_of(step, step_batches, steps), schedule(step)
        if step in watch.skip_steps:
            yield StepResult(step, NAN, NAN, factor, 0, 0, "skip list", {}, microbatch_rows)
            continue
        model.begin_step(step)
        scale = loss_scale.value if loss_scale else 1.0
        part = (model, objective, batch, runtime.device, watch.stop, scale)
        try:
            everywhere, microbatch_rows = _on_all_ranks(
                partial(_accumulate, *part), runtime, microbatch_rows, step
            )
        except StoppedError:
            return
        sums = _add_up(everywhere)
        mean, norm, skipped = _update(
            model, partial(optimizer.step, factor), sums, runtime, scale, max_grad_norm, watch
        )
        if loss_scale:
            loss_scale.observe(finite=skipped != "not finite")
        counts = round(sums["loss"][1]), round(sums["tokens"])
        yield StepResult(step, mean, norm, factor, *counts, skipped, _values(sums), microbatch_rows)


def _counts(sums: Sums) -> tuple[int, int]:
    """Targets and tokens."""
    return round(sums["loss"][1]), round(sums["tokens"])


def _rows_of(step: int, step_batches: Iterator[BatchT], steps: range) -> BatchT:
    batch = next(step_batches, None)
    if batch is None:
        raise DataError(f"the batches ended before step {step}; {steps.stop - 1} were wanted")
    return batch


def _update(
    model: LanguageModel,
    apply: Callable[[], None],
    sums: Sums,
    runtime: Runtime,
    scale: float,
    max_grad_norm: float,
    watch: Watch,
) -> tuple[float, float, Skipped | None]:
    """Apply the gradients unless there is a reason not to; mean loss, their norm, the reason."""
    loss, terms = sums["loss"]
    mean, grad_norm = loss / terms if terms else NAN, NAN
    skipped: Skipped | None = None if terms else "no targets"
    if terms:
        gradients = _gradients(model)
        runtime.sum_over_ranks(gradients)
        grad_norm = _divide_and_clip(gradients, terms * scale, max_grad_norm)
        skipped = _reason_to_skip(mean, grad_norm, watch)
        if skipped is None:
            apply()
    model.zero_grad()
    return mean, grad_norm, skipped


def _reason_to_skip(loss: float, grad_norm: float, watch: Watch) -> Skipped | None:
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        return "not finite"
    return "spike" if watch.is_spike(loss) else None


def _on_all_ranks(
    accumulate: Callable[[int], Sums | Failure], runtime: Runtime, microbatch_rows: int, step: int
) -> tuple[list[Sums], int]:
    """Every rank's sums, and the microbatch rows that fitted into the memory of all."""
    while True:
        everywhere = runtime.gather(accumulate(microbatch_rows))
        if "stopped" in everywhere:
            raise StoppedError
        if "out of memory" not in everywhere:
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
    stop: Callable[[], bool],
    scale: float,
    microbatch_rows: int,
) -> Sums | Failure:
    """Gradient sums of this rank's rows times `scale`, and what the rows add up to."""
    model.zero_grad()
    losses = []
    try:
        for rows in batch.split(microbatch_rows):
            if stop():
                return "stopped"
            loss = objective(model, rows.to(device))
            if loss.total.requires_grad:  # not if the part holds no rows
                total = loss.total * scale if scale != 1 else loss.total
                total.backward()  # type: ignore[no-untyped-call]
            losses.append(replace(loss, total=loss.total.detach()))
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return "out of memory"
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
