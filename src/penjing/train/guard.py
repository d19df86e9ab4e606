"""Judges each step's loss: is it a spike, is training still possible. Pure; `fit` acts on it."""

import statistics
from dataclasses import dataclass, replace

from penjing.errors import DivergedError

WINDOW_STEPS = 64
"""Unflagged losses that a new one is compared with."""

MIN_STEPS = 16
"""Fewer losses give no usable spread."""

SPIKE_DEVIATIONS = 10.0
"""A spike lies this many median absolute deviations above the median."""

MAX_SKIPPED_STEPS = 20
"""Non-finite steps in a row after which training is given up."""


@dataclass(frozen=True)
class GuardState:
    """What the guard remembers; part of every checkpoint."""

    losses: tuple[float, ...] = ()
    not_finite_in_a_row: int = 0


def observe(state: GuardState, loss: float) -> tuple[GuardState, bool]:
    """The state after a finite loss, and whether that is a spike; spikes are not remembered."""
    state = replace(state, not_finite_in_a_row=0)
    if len(state.losses) >= MIN_STEPS:
        median = statistics.median(state.losses)
        spread = statistics.median(abs(value - median) for value in state.losses)
        if spread > 0 and loss > median + SPIKE_DEVIATIONS * spread:
            return state, True
    return replace(state, losses=(*state.losses, loss)[-WINDOW_STEPS:]), False


def observe_not_finite(state: GuardState, stage: str, step: int) -> GuardState:
    """The state after a step whose loss or gradient was not finite.

    Raises:
        DivergedError: too many of them in a row.
    """
    state = replace(state, not_finite_in_a_row=state.not_finite_in_a_row + 1)
    if state.not_finite_in_a_row > MAX_SKIPPED_STEPS:
        raise DivergedError(
            f"{stage}: loss or gradient was not finite in {state.not_finite_in_a_row} steps in a "
            f"row, up to step {step}; none of them changed the weights. Lower the learning rates "
            f"in [{stage}.optimizer], lengthen {stage}.schedule.warmup_steps, or set "
            'runtime.dtype = "float32"'
        )
    return state
