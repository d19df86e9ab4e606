from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.data import packing
from penjing.data.packing import Overlong, Piece, Row, SourceRows, overlong, plan_rows, utilization
from penjing.errors import DataError

sizes = st.lists(st.integers(1, 40), min_size=1, max_size=60)


def positions(rows: list[Row]) -> Counter[tuple[int, int]]:
    return Counter(
        (piece.document, piece.start + place)
        for row in rows
        for piece in row
        for place in range(piece.length)
    )


def array(lengths: list[int]) -> npt.NDArray[np.int64]:
    return np.array(lengths, dtype=np.int64)


def best_fit_slowly(lengths: list[int], row_tokens: int) -> list[int]:
    """The fill of each row, by trying every row for every document."""
    fills: list[int] = []
    long = sorted((length for length in lengths if 2 * length > row_tokens), reverse=True)
    for length in long + [length for length in lengths if 0 < 2 * length <= row_tokens]:
        fitting = [row for row, fill in enumerate(fills) if fill + length <= row_tokens]
        if fitting:
            fills[max(fitting, key=lambda row: fills[row])] += length
        else:
            fills.append(length)
    return fills


@settings(max_examples=80, deadline=None)
@given(sizes, st.integers(1, 16))
def test_splitting_loses_nothing_and_repeats_nothing(lengths: list[int], row_tokens: int) -> None:
    rows = plan_rows(array(lengths), row_tokens, cut="anywhere")

    every = {(number, place) for number, size in enumerate(lengths) for place in range(size)}
    assert positions(rows) == Counter(every)
    assert all(0 < sum(piece.length for piece in row) <= row_tokens for row in rows)
    assert len(rows) * row_tokens - sum(lengths) < max(row_tokens, len(rows) * row_tokens / 256)


@settings(max_examples=80, deadline=None)
@given(sizes, st.integers(1, 16))
def test_without_splitting_only_the_overhang_is_lost(lengths: list[int], row_tokens: int) -> None:
    rows = plan_rows(array(lengths), row_tokens, cut="never")

    kept = {
        (number, place)
        for number, size in enumerate(lengths)
        for place in range(min(size, row_tokens))
    }
    assert positions(rows) == Counter(kept)
    assert sum(len(row) for row in rows) == len(lengths)
    assert overlong(array(lengths), row_tokens) == sum(size > row_tokens for size in lengths)


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(1, 16))
def test_the_fit_is_that_of_the_slow_search(lengths: list[int], row_tokens: int) -> None:
    rows = plan_rows(array(lengths), row_tokens, cut="never")

    fills = [sum(piece.length for piece in row) for row in rows]
    wanted = best_fit_slowly([min(size, row_tokens) for size in lengths], row_tokens)
    assert sorted(fills) == sorted(wanted)
    assert utilization(rows, row_tokens) == pytest.approx(sum(wanted) / len(rows) / row_tokens)


def test_a_rest_of_one_position_is_kept() -> None:
    assert plan_rows(array([9, 3]), 4, cut="overlong") == [
        (Piece(0, 0, 4),),
        (Piece(0, 4, 4),),
        (Piece(1, 0, 3), Piece(0, 8, 1)),
    ]


def test_short_documents_of_all_lengths_meet_in_one_row() -> None:
    """Sorted by length, 95 % of the variance of lengths lay between rows, and so did kinds."""
    lengths = np.random.default_rng(0).choice([25, 26, 60, 61], 4000, p=[0.4, 0.35, 0.15, 0.1])

    rows = plan_rows(lengths, 288, cut="never")

    of_rows = [np.mean([piece.length for piece in row]) for row in rows for _ in row]
    assert np.var(of_rows) < 0.3 * np.var(lengths)
    assert utilization(rows, 288) > 0.95


def test_natural_lengths_fill_the_rows() -> None:
    lengths = np.random.default_rng(0).lognormal(5, 1, 4096).astype(np.int64) + 1

    assert utilization(plan_rows(lengths, 512, cut="anywhere"), 512) > 0.995
    assert utilization([], 512) == 0


def test_books_that_leave_gaps_alone_fill_them_with_few_cuts() -> None:
    lengths = np.random.default_rng(0).normal(1450, 30, 4096).astype(np.int64)

    rows = plan_rows(lengths, 2048, cut="anywhere")

    assert utilization(rows, 2048) > 0.995
    pieces = Counter(piece.document for row in rows for piece in row)
    assert sum(number == 1 for number in pieces.values()) > 0.7 * len(lengths)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(0, 2**62))
def test_an_epoch_holds_every_position_once(lengths: list[int], key: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "BLOCK_DOCUMENTS", 7)
        source = SourceRows(array(lengths), "documents", 8, key)
        ends = [next(k for k in range(10**4) if source.epoch_of(k) == epoch) for epoch in (1, 2)]
        epochs = [
            [source.row(k) for k in range(start, stop)] for start, stop in ((0, ends[0]), ends)
        ]

        every = {(number, place) for number, size in enumerate(lengths) for place in range(size)}
        assert [positions(rows) for rows in epochs] == [Counter(every)] * 2


def test_a_row_depends_on_its_number_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "BLOCK_DOCUMENTS", 16)
    lengths = np.random.default_rng(1).integers(1, 50, 100)
    straight = SourceRows(lengths, "conversations", 32, 9)
    wanted = [straight.row(k) for k in range(400)]
    jumping = SourceRows(lengths, "conversations", 32, 9)

    for k in np.random.default_rng(2).permutation(400).tolist():
        assert jumping.row(k) == wanted[k]
    assert len(jumping._planned) <= packing._BLOCKS_KEPT
    assert SourceRows(lengths, "conversations", 32, 10).row(0) != wanted[0]


def test_a_source_without_rows_is_named() -> None:
    with pytest.raises(DataError, match=r"sources\.tales has no training rows"):
        SourceRows(array([]), "documents", 8, 1, name="sources.tales")


def test_long_conversations_are_split_or_left_out_or_begun() -> None:
    lengths = array([5, 9, 3, 20])

    def epoch(policy: Overlong) -> Counter[tuple[int, int]]:
        source = SourceRows(lengths, "conversations", 8, 1, overlong=policy)
        return positions([source.row(k) for k in range(source.rows_an_epoch())])

    every = {(number, place) for number, size in enumerate(lengths) for place in range(size)}
    assert epoch("split") == Counter(every)
    assert epoch("drop") == Counter({one for one in every if one[0] in (0, 2)})
    assert epoch("drop_oldest") == Counter({one for one in every if one[1] < 8})
    with pytest.raises(DataError, match="each of its 1 conversations is longer than a row of 8"):
        SourceRows(array([9]), "conversations", 8, 1, overlong="drop")
