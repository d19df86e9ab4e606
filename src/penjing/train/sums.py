"""What the rows of a step add up to: read from the device, added over microbatches and ranks."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from penjing.train.objectives import Loss

Sums = dict[str, Any]
"""In numbers, so that ranks can exchange it as JSON."""


def read(losses: Iterable[Loss]) -> Sums:
    """Waits for the device."""
    return add_up(sums_of(loss, iter([float(x) for x in tensors_of(loss)])) for loss in losses)


def read_later(numbers: Sequence[Tensor]) -> Callable[[], Iterator[float]]:
    """Starts the numbers' way to the host. The call waits for them alone, and not for what was
    asked of the device afterwards.
    """
    told = torch.stack([number.detach().double() for number in numbers])
    if told.device.type == "cpu":
        return lambda: iter(told.tolist())
    here = torch.empty(told.shape, dtype=told.dtype, pin_memory=True)
    here.copy_(told, non_blocking=True)
    arrived = torch.Event(told.device)
    arrived.record()

    def wait() -> Iterator[float]:
        arrived.synchronize()
        return iter(here.tolist())

    return wait


def tensors_of(loss: Loss) -> list[Tensor]:
    """The scalars of a loss in the order in which `sums_of` takes their values."""
    pairs = [x for pair in loss.metrics.values() for x in pair]
    return [loss.total, loss.terms, loss.tokens, *pairs, *loss.maxima.values()]


def sums_of(loss: Loss, values: Iterator[float]) -> Sums:
    """The sums of one loss, its values taken from `values`."""
    total, terms, tokens = next(values), next(values), next(values)
    return {
        "loss": (total, terms),
        "tokens": tokens,
        "metrics": {name: (next(values), next(values)) for name in loss.metrics},
        "maxima": {name: next(values) for name in loss.maxima},
    }


def add_up(parts: Iterable[Sums]) -> Sums:
    """Sums added; of maxima the largest."""
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


def means_and_maxima(sums: Sums) -> dict[str, float]:
    """By name; a mean of nothing is left out."""
    means = {name: total / count for name, (total, count) in sums["metrics"].items() if count}
    return dict(sorted((means | sums["maxima"]).items()))
