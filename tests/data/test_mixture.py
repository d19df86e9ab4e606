import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.config.training import MixtureShare
from penjing.data.mixture import MixturePlan, Segment, sources_of
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


class Pool:
    """A source of so many rows an epoch."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def epoch_of(self, k: int) -> int:
        return k // self.rows

    def rows_an_epoch(self) -> int:
        return self.rows


def test_points_in_tokens_are_met_and_blended_between() -> None:
    """90/10 until row 100, 50/50 from row 400 on, of rows of ten tokens."""
    points = [((1000, 0.9), (4000, 0.5)), ((1000, 0.1), (4000, 0.5))]
    for blend, halfway in (("linear", 0.8), ("cosine", 0.9 - 0.4 * (0.5 - 0.5 * 2**-0.5))):
        shares = tuple(
            MixtureShare(f"s{n}", 0, 0, points=own, blend=blend)  # type: ignore[arg-type]
            for n, own in enumerate(points)
        )
        plan = MixturePlan((Segment(0, shares, 1000),), row_tokens=10)

        assert plan.weights(0) == plan.weights(100) == pytest.approx([0.9, 0.1])
        assert plan.weights(400) == plan.weights(999) == pytest.approx([0.5, 0.5])
        assert plan.weights(175)[0] == pytest.approx(halfway)
        assert plan.realised(1000) == pytest.approx(plan.requested(1000), abs=0.002)


def test_epochs_take_their_rows_and_shares_divide_the_rest() -> None:
    shares = (
        MixtureShare("book", 0, 0, epochs=2.0),
        MixtureShare("web", 3, 3),
        MixtureShare("code", 1, 1),
    )
    plan = MixturePlan((Segment(0, shares, 1000),), 1, {"book": Pool(100)})

    assert plan.realised(1000) == pytest.approx({"book": 0.2, "web": 0.6, "code": 0.2}, abs=0.001)
    alone = MixturePlan((Segment(0, shares[:1], 1000),), 1, {"book": Pool(100)})
    assert alone.weights(5) == [1.0]
    with pytest.raises(DataError, match="epochs asked for take 1,200 rows, and the stage has 1,0"):
        MixturePlan((Segment(0, shares, 1000),), 1, {"book": Pool(600)})


def test_a_source_that_was_read_often_enough_leaves_its_rows_to_the_others() -> None:
    shares = (MixtureShare("book", 1, 1, max_epochs=2), MixtureShare("web", 1, 1))
    pools = {"book": Pool(100), "web": Pool(10**6)}
    plan = MixturePlan((Segment(0, shares, 1000),), 1, pools)

    drawn = [plan.source_of(row) for row in range(1000)]

    assert [within for source, within in drawn if source == 0] == list(range(200))
    assert plan.exhausted == {"book": pytest.approx(400, abs=2)}
    assert plan.requested(1000)["book"] == 0.5
    alone = MixturePlan((Segment(0, shares[:1], 1000),), 1, pools)
    with pytest.raises(DataError, match="at row 200 of 1000 every source was read as often"):
        alone.source_of(300)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(weights, weights), min_size=2, max_size=4),
    st.lists(st.tuples(weights, weights), min_size=1, max_size=4),
    st.integers(0, 150),
    st.integers(0, 100),
)
def test_an_edit_leaves_earlier_rows_alone_and_no_source_reads_a_row_twice(
    before: list[tuple[float, float]],
    after: list[tuple[float, float]],
    first: int,
    blend: int,
) -> None:
    before, after = [*before, (0.5, 0.5)], [*after, (0.5, 0.5)]
    old = Segment(0, tuple(MixtureShare(f"s{n}", *e) for n, e in enumerate(before)), 200)
    new_shares = tuple(MixtureShare(f"s{n + 1}", *e) for n, e in enumerate(after))
    edited = MixturePlan((old, Segment(first, new_shares, 200, blend)))
    straight = MixturePlan((old,))

    drawn = [edited.source_of(row) for row in range(250)]

    assert drawn[:first] == [straight.source_of(row) for row in range(first)]
    for source in range(len(edited.sources)):
        own = [within for one, within in drawn if one == source]
        assert own == list(range(len(own)))
    assert edited.sources == sources_of(edited.segments)
    final = edited.weights(max(first + blend, 199))
    wanted = MixturePlan((Segment(0, new_shares, 200),)).weights(199)
    assert [final[edited.sources.index(share.source)] for share in new_shares] == pytest.approx(
        wanted
    )
