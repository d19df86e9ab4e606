from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.config.training import ScheduleConfig
from penjing.train.schedule import factor


@settings(max_examples=60)
@given(st.integers(1, 300), st.integers(0, 300), st.floats(0, 1))
def test_the_factor_rises_then_falls_and_stays_in_0_to_1(
    steps: int, warmup_steps: int, warmdown_fraction: float
) -> None:
    config = ScheduleConfig(warmup_steps, warmdown_fraction)
    factors = [factor(step, steps, config) for step in range(1, steps + 1)]
    assert all(0 < value <= 1 for value in factors)
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_the_ramps_are_linear_and_end_one_step_past_the_last() -> None:
    config = ScheduleConfig(warmup_steps=4, warmdown_fraction=0.5)
    factors = [factor(step, 10, config) for step in range(1, 12)]
    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0]


def test_without_ramps_the_factor_is_one() -> None:
    config = ScheduleConfig(warmup_steps=0, warmdown_fraction=0.0)
    assert {factor(step, 7, config) for step in range(1, 8)} == {1.0}
