import math

import pytest

from penjing.errors import DivergedError
from penjing.train.guard import (
    MAX_SKIPPED_STEPS,
    MAX_SPIKES,
    GuardState,
    highest_loss,
    observe,
    observe_not_finite,
)


def losses_of(count: int) -> list[float]:
    return [3.0 - 0.001 * step + 0.01 * (step % 5) for step in range(count)]


def settled() -> GuardState:
    state = GuardState()
    for step, loss in enumerate(losses_of(40), start=1):
        state, verdict = observe(state, loss, step)
        assert verdict == "good"
    return state


def test_a_jump_of_the_loss_is_a_spike_and_is_not_remembered() -> None:
    state = settled()
    assert 3.1 < highest_loss(state) < 4.0
    after, verdict = observe(state, 4.0, 41)
    assert (verdict, after.losses, after.spikes_in_a_row) == ("spike", state.losses, 1)
    assert observe(after, 3.0, 42)[0].spikes_in_a_row == 0


def test_the_first_losses_and_equal_losses_are_never_spikes() -> None:
    state, _ = observe(GuardState(), 3.0, 1)
    assert observe(state, 300.0, 2)[1] == "good"
    assert highest_loss(GuardState(losses=(1.0,) * 30)) == math.inf


def test_spikes_in_a_row_go_back_and_pass_over_their_steps_and_the_one_before() -> None:
    state, verdicts = settled(), []
    for step in range(41, 41 + MAX_SPIKES):
        state, verdict = observe(state, 9.0, step)
        verdicts.append(verdict)
    assert verdicts == ["spike"] * (MAX_SPIKES - 1) + ["roll back"]
    assert state.skip_steps == tuple(range(40, 41 + MAX_SPIKES))


def test_a_loss_that_is_as_high_behind_the_steps_passed_over_is_a_new_level() -> None:
    state = settled()
    for step in range(41, 41 + 2 * MAX_SPIKES):
        state, verdict = observe(state, 9.0 + 0.001 * step, step)
    assert verdict == "new level"
    assert observe(state, 9.0, 52)[1] == "good"


def test_training_is_given_up_after_too_many_steps_in_a_row() -> None:
    state = GuardState()
    for step in range(MAX_SKIPPED_STEPS):
        state = observe_not_finite(state, "sft", step)
    recovered, _ = observe(state, 1.0, 30)
    assert recovered.not_finite_in_a_row == 0
    with pytest.raises(DivergedError, match=r"sft.*step 77.*\[sft\.optimizer\]"):
        observe_not_finite(state, "sft", 77)
