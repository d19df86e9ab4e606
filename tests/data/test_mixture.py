import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.config.training import MixtureShare
from penjing.data.mixture import MixturePlan, Segment
from penjing.errors import DataError

weights = st.one_of(st.just(0.0), st.floats(0.001, 10))


def plan_of(ends: list[tuple[float, float]], rows: int) -> MixturePlan:
    named = [MixtureShare(f"s{n}", start, end) for n, (start, end) in enumerate(ends)]
    return MixturePlan((Segment(0, tuple(named), rows),))


@settings(max_examples=60, deadline=None)
@given(st.lists(weights, min_size=1, max_size=12).filter(any), st.integers(1, 200))
def test_constant_shares_are_met_within_a_row_at_every_row(shares: list[float], rows: int) -> None:
    plan = plan_of([(share, share) for share in shares], rows)
    counts = [0] * len(shares)

    for row in range(rows):
        source, within = plan.source_of(row)
        assert within == counts[source]
        counts[source] += 1
        for share, count in zip(shares, counts, strict=True):
            assert abs(count - (row + 1) * share / sum(shares)) < 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(weights, weights), min_size=1, max_size=6), st.integers(2, 200))
def test_a_blend_is_met_and_a_share_of_zero_gets_no_row(
    ends: list[tuple[float, float]], rows: int
) -> None:
    ends.append((0.5, 0.5))
    plan = plan_of(ends, rows)
    due, counts = [0.0] * len(ends), [0] * len(ends)

    for row in range(rows):
        shares = plan.weights(row)
        source, _ = plan.source_of(row)
        counts[source] += 1
        due = [wanted + share for wanted, share in zip(due, shares, strict=True)]
        assert shares[source] > 0
        assert all(abs(count - wanted) < 1.5 for count, wanted in zip(counts, due, strict=True))


def test_a_linear_blend_has_the_shares_of_its_integral() -> None:
    plan = plan_of([(0.9, 0.1), (0.1, 0.9)], 1000)

    assert plan.realised(1000) == pytest.approx({"s0": 0.5, "s1": 0.5}, abs=0.001)
    assert plan.realised(250) == pytest.approx({"s0": 0.8, "s1": 0.2}, abs=0.005)
    assert plan.weights(5000) == pytest.approx([0.1, 0.9])


def test_plans_asked_in_any_order_agree() -> None:
    ends = [(3.0, 0.0), (1.0, 1.0), (0.0, 2.0)]
    straight = plan_of(ends, 300)
    wanted = [straight.source_of(row) for row in range(400)]
    rows = list(range(400))
    random.Random(4).shuffle(rows)
    jumping = plan_of(ends, 300)

    assert [jumping.source_of(row) for row in rows] == [wanted[row] for row in rows]
    assert wanted[0][0] != 2
    assert all(source != 0 for source, _ in wanted[299:])


@pytest.mark.parametrize("ends", [[(0.0, 1.0)], [(1.0, 0.0)], [(-1.0, 2.0)], [(float("nan"), 1.0)]])
def test_shares_that_mean_nothing_are_refused(ends: list[tuple[float, float]]) -> None:
    with pytest.raises(DataError, match="mixture: "):
        plan_of(ends, 10)
