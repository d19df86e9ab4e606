"""Batches made ahead are those made in turn; who stops making them is named."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from penjing.data.batches import Batch, RowStream
from penjing.data.feeding import Feeding, feed
from penjing.data.packing import SourceRows
from penjing.errors import ArtifactError, DataError
from tests.faults.stream_campaign import (
    ROWS,
    WORKERS,
    WORLD_SIZES,
    flips,
    make_stream,
    resumes,
    sequence,
    soak,
)


def test_all_ranks_and_workers_have_the_one_sequence(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    wanted = list(sequence(stream, 1, 0, 0, 9))

    assert len(set(wanted)) > 150  # of 216: short notes recur
    for world_size in WORLD_SIZES:
        for workers in WORKERS:
            assert list(sequence(stream, world_size, workers, 0, 9)) == wanted


def test_a_hundred_resumes_anywhere_go_on_with_the_one_sequence(tmp_path: Path) -> None:
    assert resumes(tmp_path, 100, seed=1) == 0


def test_tokens_are_counted_alike_for_all_ranks_microbatches_and_restarts(tmp_path: Path) -> None:
    stream, steps = make_stream(tmp_path), 12

    def counted(world_size: int, microbatch_rows: int, restarts: tuple[int, ...]) -> int:
        total, moments = 0, sorted({0, steps, *restarts})
        for first, stop in pairwise(moments):
            for rank in range(world_size):
                own = replace(stream, rank=rank, world_size=world_size)
                batches = feed(own, first * ROWS, Feeding(rank % 2))
                for batch in islice(batches, stop - first):
                    parts = batch.split(microbatch_rows)
                    total += sum(int((part.document_ids >= 0).sum()) for part in parts)
        return total

    wanted = counted(1, ROWS, ())
    draws = Random(3)
    assert 0.9 < wanted / (steps * ROWS * stream.row_tokens) <= 1
    for world_size in (1, 2, 3, 4):
        for microbatch_rows in (1, 2, 4):
            restarts = tuple(draws.randrange(1, steps) for _ in range(20))
            assert counted(world_size, microbatch_rows, restarts) == wanted


def test_a_hundred_flipped_bits_are_all_seen(tmp_path: Path) -> None:
    assert flips(tmp_path, 100, seed=1) == 100


def test_memory_and_descriptors_do_not_grow(tmp_path: Path) -> None:
    slope, opened = soak(tmp_path, 600, 20)

    assert slope < 20  # MB a thousand batches; the nightly count is long enough to say 1
    assert opened == 0


@pytest.fixture
def stream(tmp_path: Path) -> RowStream:
    return make_stream(tmp_path)


def until(stream: RowStream, how: Feeding) -> tuple[int, float, DataError]:
    """How many batches came, after how many seconds, and the error that ended them."""
    begun, made = time.monotonic(), 0
    batches: Iterator[Batch] = feed(stream, 0, how)
    with pytest.raises(DataError) as told:
        for _ in islice(batches, 1000):
            made += 1
    return made, time.monotonic() - begun, told.value


@pytest.mark.parametrize("deadly", [1, 30, 100])
def test_a_worker_that_dies_is_named_with_its_row_and_reason(
    stream: RowStream, monkeypatch: pytest.MonkeyPatch, deadly: int
) -> None:
    take, calls = SourceRows.take, iter(range(10**6))

    def fail(rows: SourceRows, within: Any) -> Any:
        if next(calls) == deadly:
            raise ArtifactError("tales.bin: block 3 is not as it was written")
        return take(rows, within)

    monkeypatch.setattr(SourceRows, "take", fail)
    made, seconds, error = until(stream, Feeding(2, prefetch_steps=4))

    assert made <= deadly + 8
    assert seconds < 5
    assert "data worker" in str(error)
    assert "of 2 died" in str(error)
    assert "block 3 is not as it was written" in str(error)


def test_a_worker_that_stands_still_is_named_within_seconds(
    stream: RowStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, calls, wake = SourceRows.take, iter(range(10**6)), threading.Event()

    def hang(rows: SourceRows, within: Any) -> Any:
        if next(calls) >= 60:
            wake.wait()
        return take(rows, within)

    monkeypatch.setattr(SourceRows, "take", hang)
    _, seconds, error = until(stream, Feeding(2, patience_seconds=0.5))
    wake.set()

    assert seconds < 5
    assert "has stood still for" in str(error)
    assert "after row" in str(error)


def test_workers_leave_when_their_batches_are_no_longer_wanted(stream: RowStream) -> None:
    batches = feed(stream, 0, Feeding(2))
    next(batches)
    del batches

    assert not any(thread.name.startswith("penjing-feed") for thread in threading.enumerate())


def test_what_was_read_leaves_memory_and_is_checked_once(stream: RowStream) -> None:
    stream.memory_bytes = 0
    wanted = list(sequence(make_stream_like(stream), 1, 0, 0, 4))

    assert list(sequence(stream, 1, 0, 0, 4)) == wanted


def make_stream_like(stream: RowStream) -> RowStream:
    other = stream.replica()
    other.memory_bytes = 1 << 30
    return other
