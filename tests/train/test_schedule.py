from itertools import pairwise

import pytest
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


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_cosine_and_linear_fall_from_the_peak_to_what_is_to_be_left(kind: str) -> None:
    config = ScheduleConfig(warmup_steps=10, kind=kind, final_fraction=0.1)  # type: ignore[arg-type]
    course = [factor(step, 100, config) for step in range(1, 101)]
    assert course[9] == pytest.approx(1.0)
    assert all(a > b for a, b in pairwise(course[9:]))
    assert course[-1] == pytest.approx(0.1, abs=0.02)
    halfway = course[9 + 45]
    assert halfway == pytest.approx(0.55, abs=0.02)


def test_a_constant_course_may_leave_a_share_of_the_rates() -> None:
    config = ScheduleConfig(warmup_steps=0, warmdown_fraction=0.5, final_fraction=0.2)
    assert factor(50, 100, config) == 1.0
    assert factor(100, 100, config) == pytest.approx(0.2 + 0.8 / 50)
