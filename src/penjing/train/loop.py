"""The one training loop: it takes steps and reports them. It does not log, evaluate or save.

The gradient of a step is that of the mean over all its targets, however its rows were cut into
microbatches and ranks; sums and counts are added up and divided once. What may not reach the
weights (not finite, a spike, a step on the skip list) is decided before the optimizer is asked.
"""

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, Protocol, Self, TypeVar

import torch
from torch import Tensor

from penjing.errors import ConfigError, DataError
from penjing.model.language_model import LanguageModel
from penjing.runtime import Runtime, out_of_memory
from penjing.train.objectives import Loss
from penjing.train.sums import (
    Sums,
    add_up,
    means_and_maxima,
    read,
    read_later,
    sums_of,
    tensors_of,
)


class StepBatch(Protocol):
    """All rows of one step for this rank."""

    @property
    def rows(self) -> int: ...

    def split(self, n: int) -> Iterator[Self]: ...

    def to(self, device: torch.device | str) -> Self: ...


class Updater(Protocol):
    """Applies the gradients to the weights; `train.optimizer.Optimizer` is one.

    With `good`, a () tensor of the device, a step of which it is false changes nothing; whether it
    was is told by `settle` before the next step. `leaves_out_bad_steps`: whether it can do that.
    """

    @property
    def leaves_out_bad_steps(self) -> bool: ...

    def step(self, factor: float, good: Tensor | None = None) -> None: ...

    def settle(self, *, applied: bool) -> None: ...


NAN = math.nan
BatchT = TypeVar("BatchT", bound=StepBatch)
Skipped = Literal["no targets", "not finite", "spike", "skip list"]
Objective = Callable[[LanguageModel, BatchT], Loss]
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

    `highest_loss()`: above it no update is made from a loss;
    `skip_steps`: steps whose rows are passed over; `stop()`: asked between microbatches, after
    which the step under way is given up and the loop ends.
    """

    highest_loss: Callable[[], float] = lambda: math.inf
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


def may_read_late(runtime: Runtime, model: LanguageModel, optimizer: Updater) -> bool:
    """Whether `train_steps` may be asked to read late: it gains nothing on a CPU, and several ranks
    or float16 must know a step's numbers first.
    """
    alone = runtime.device.type == "cuda" and runtime.world_size == 1
    scaled = model.compute_dtype == torch.float16
    return alone and not scaled and optimizer.leaves_out_bad_steps


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
    reads_late: bool = False,
) -> Iterator[StepResult]:
    """Take one step each time the caller asks for the next result.

    Without trained targets, with a loss or gradient that is not finite or a loss that `watch` finds
    too high, weights and optimizer stay untouched. Out of memory, all ranks redo the step with half
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
        reads_late: only where `may_read_late`; see `_update_late`.

    Raises:
        DataError: the batches ended early.
        ConfigError: a single row does not fit into memory.
    """
    accumulate, update = LATE if reads_late else AT_ONCE
    late: Iterator[StepResult] = iter(())
    for step in steps:
        batch, factor = _rows_of(step, step_batches, steps), schedule(step)
        if step in watch.skip_steps:
            yield from late
            yield StepResult(step, NAN, NAN, factor, 0, 0, "skip list", {}, microbatch_rows)
            continue
        model.begin_step(step)
        part = (model, objective, batch, runtime.device, watch.stop, loss_scale)
        take = partial(accumulate, *part)
        everywhere, microbatch_rows = _on_all_ranks(take, runtime, microbatch_rows, step)
        if "stopped" in everywhere:
            break
        yield from late
        plan = _Step(step, factor, microbatch_rows, max_grad_norm, watch.highest_loss(), loss_scale)
        late = update(model, optimizer, everywhere, runtime, plan)
        if not reads_late:
            yield from late
    yield from late


@dataclass(frozen=True)
class _Step:
    number: int
    factor: float
    microbatch_rows: int
    max_grad_norm: float
    highest_loss: float
    loss_scale: LossScale | None

    def result(self, sums: Sums, norm: float, skipped: Skipped | None) -> StepResult:
        loss, terms = sums["loss"]
        return StepResult(
            self.number,
            loss / terms if terms else NAN,
            norm,
            self.factor,
            round(terms),
            round(sums["tokens"]),
            skipped,
            means_and_maxima(sums),
            self.microbatch_rows,
        )


def _rows_of(step: int, step_batches: Iterator[BatchT], steps: range) -> BatchT:
    batch = next(step_batches, None)
    if batch is None:
        raise DataError(f"the batches ended before step {step}; {steps.stop - 1} were wanted")
    return batch


def _update(
    model: LanguageModel, optimizer: Updater, everywhere: list[Sums], runtime: Runtime, step: _Step
) -> Iterator[StepResult]:
    """Apply the gradients unless there is a reason not to."""
    sums = add_up(everywhere)
    loss, terms = sums["loss"]
    norm, skipped = NAN, _reason_to_skip(loss, terms, 0.0, step.highest_loss)
    if terms:
        gradients = _gradients(model)
        runtime.sum_over_ranks(gradients)
        scale = step.loss_scale.value if step.loss_scale else 1.0
        norm = _divide_and_clip(gradients, terms * scale, step.max_grad_norm)
        skipped = _reason_to_skip(loss, terms, norm, step.highest_loss)
        if skipped is None:
            optimizer.step(step.factor)
    model.zero_grad()
    if step.loss_scale:
        step.loss_scale.observe(finite=skipped != "not finite")
    return iter([step.result(sums, norm, skipped)])


def _update_late(
    model: LanguageModel,
    optimizer: Updater,
    everywhere: list[list[Loss]],
    runtime: Runtime,
    step: _Step,
) -> Iterator[StepResult]:
    """The same for one rank, to the same bits, judged by the device: it leaves out by itself what
    may not be applied. Its numbers are read when the result is asked for, and then the gradients of
    the next step are under way, so that the device waits for nobody. The weights are still those of
    the result; the next step's batch is drawn already.
    """
    del runtime
    losses = everywhere[0]
    total = torch.stack([loss.total.double() for loss in losses]).sum()
    terms = torch.stack([loss.terms.double() for loss in losses]).sum()
    gradients = _gradients(model)
    norm = torch.nn.utils.get_total_norm(gradients).double() / terms
    mean = total / terms
    good = mean.isfinite() & norm.isfinite() & (mean <= step.highest_loss)
    scale = (step.max_grad_norm / norm.clamp(min=1e-12)).clamp(max=1.0) / terms
    for gradient in gradients:
        gradient.mul_(scale)
    optimizer.step(step.factor, good)
    wait = read_later([good, norm, *(x for loss in losses for x in tensors_of(loss))])

    def told() -> Iterator[StepResult]:
        values = wait()
        applied, found = bool(next(values)), next(values)
        optimizer.settle(applied=applied)
        sums = add_up(sums_of(loss, values) for loss in losses)
        loss, terms = sums["loss"]
        skipped = None if applied else _reason_to_skip(loss, terms, found, -math.inf)
        yield step.result(sums, found if terms else NAN, skipped)

    return told()


def _reason_to_skip(loss: float, terms: float, norm: float, highest: float) -> Skipped | None:
    if not terms:
        return "no targets"
    if not (math.isfinite(loss) and math.isfinite(norm)):
        return "not finite"
    return "spike" if loss / terms > highest else None


def _on_all_ranks(
    accumulate: Callable[[int], Any | Failure], runtime: Runtime, microbatch_rows: int, step: int
) -> tuple[list[Any], int]:
    """What every rank found, and the microbatch rows that fitted into the memory of all."""
    while True:
        everywhere = runtime.gather(accumulate(microbatch_rows))
        if "stopped" in everywhere or "out of memory" not in everywhere:
            return everywhere, microbatch_rows
        if microbatch_rows == 1:
            raise ConfigError(
                f"step {step}: out of memory on {runtime.device} with one row a microbatch: "
                "shorten model.max_position_embeddings, choose a smaller model.depth, or free the "
                "device's memory"
            )
        microbatch_rows //= 2
        runtime.free_memory()


def _accumulate_and_read(*part: Any) -> Sums | Failure:
    """Read late: until all microbatches are under way nothing waits for the device."""
    found = _accumulate(*part)
    return found if isinstance(found, str) else read(found)


def _accumulate(
    model: LanguageModel,
    objective: Objective[BatchT],
    batch: BatchT,
    device: torch.device,
    stop: Callable[[], bool],
    loss_scale: LossScale | None,
    microbatch_rows: int,
) -> list[Loss] | Failure:
    """Gradient sums of this rank's rows, scaled, and the losses that they are of."""
    model.zero_grad()
    losses = []
    try:
        for rows in batch.split(microbatch_rows):
            if stop():
                return "stopped"
            loss = objective(model, rows.to(device))
            if loss.total.requires_grad:  # not if the part holds no rows
                total = loss.total * loss_scale.value if loss_scale else loss.total
                total.backward()  # type: ignore[no-untyped-call]
            losses.append(replace(loss, total=loss.total.detach()))
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return "out of memory"
    return losses


LATE: tuple[Callable[..., Any], Callable[..., Iterator[StepResult]]] = (_accumulate, _update_late)
AT_ONCE = (_accumulate_and_read, _update)


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
