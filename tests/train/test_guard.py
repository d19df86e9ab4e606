import pytest

from penjing.errors import DivergedError
from penjing.train.guard import MAX_SKIPPED_STEPS, GuardState, observe, observe_not_finite


def losses_of(count: int) -> list[float]:
    return [3.0 - 0.001 * step + 0.01 * (step % 5) for step in range(count)]


def test_a_jump_of_the_loss_is_a_spike_and_is_not_remembered() -> None:
    state = GuardState()
    for loss in losses_of(40):
        state, spike = observe(state, loss)
        assert not spike
    after, spike = observe(state, 4.0)
    assert spike
    assert after.losses == state.losses


def test_the_first_losses_and_equal_losses_are_never_spikes() -> None:
    state, spike = observe(GuardState(), 3.0)
    state, spike = observe(state, 300.0)
    assert not spike
    state = GuardState(losses=(1.0,) * 30)
    assert observe(state, 1.1)[1] is False


def test_training_is_given_up_after_too_many_steps_in_a_row() -> None:
    state = GuardState()
    for step in range(MAX_SKIPPED_STEPS):
        state = observe_not_finite(state, "sft", step)
    recovered, _ = observe(state, 1.0)
    assert recovered.not_finite_in_a_row == 0
    with pytest.raises(DivergedError, match=r"sft.*step 77.*\[sft\.optimizer\]"):
        observe_not_finite(state, "sft", 77)
