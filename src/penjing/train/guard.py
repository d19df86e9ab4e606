"""Judges each step's loss: is it a spike, is training still possible. Pure; `fit` acts on it.

A step whose loss is a spike is skipped. Five in a row mean that the weights or the data changed:
training goes back to the checkpoint before, and those steps are passed over. If the loss is as high
again right behind them, the data is another: the new level is accepted.
"""

import math
import statistics
from dataclasses import dataclass, replace
from typing import Literal

from penjing.errors import DivergedError

WINDOW_STEPS = 64
"""Unflagged losses that a new one is compared with."""

MIN_STEPS = 16
"""Fewer losses give no usable spread."""

SPIKE_DEVIATIONS = 10.0
"""A spike lies this many median absolute deviations above the median: 1.5 false alarms in 10,000
clean steps, where mean + 6 deviations has 5 and sees a fifth of a burst (reliability.md, 5)."""

MAX_SPIKES = 5
"""Spikes in a row that are skipped before training goes back."""

MAX_SKIPPED_STEPS = 20
"""Non-finite steps in a row after which training is given up."""

Verdict = Literal["good", "spike", "roll back", "new level"]


@dataclass(frozen=True)
class GuardState:
    """What the guard remembers; part of every checkpoint."""

    losses: tuple[float, ...] = ()
    not_finite_in_a_row: int = 0
    spikes_in_a_row: int = 0
    skip_steps: tuple[int, ...] = ()
    """Steps whose rows are passed over."""


def highest_loss(state: GuardState) -> float:
    """What a loss must not exceed, lest it lie far above the latest ones."""
    if len(state.losses) < MIN_STEPS:
        return math.inf
    median = statistics.median(state.losses)
    spread = statistics.median(abs(value - median) for value in state.losses)
    return median + SPIKE_DEVIATIONS * spread if spread > 0 else math.inf


def observe(state: GuardState, loss: float, step: int) -> tuple[GuardState, Verdict]:
    """The state after a finite loss, and what that is; spikes are not remembered."""
    state = replace(state, not_finite_in_a_row=0)
    if loss <= highest_loss(state):
        losses = (*state.losses, loss)[-WINDOW_STEPS:]
        return replace(state, losses=losses, spikes_in_a_row=0), "good"
    spikes = state.spikes_in_a_row + 1
    if spikes < MAX_SPIKES:
        return replace(state, spikes_in_a_row=spikes), "spike"
    first = step - spikes + 1
    if first - 1 in state.skip_steps:
        return replace(state, losses=(loss,), spikes_in_a_row=0), "new level"
    # The step before the first spike was applied, and may be what spoiled the weights.
    skipped = sorted({*state.skip_steps, *range(max(1, first - 1), step + 1)})
    return replace(state, spikes_in_a_row=0, skip_steps=tuple(skipped)), "roll back"


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
