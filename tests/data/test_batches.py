from collections import Counter
from collections.abc import Callable
from itertools import islice

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penjing.config.training import MixtureShare
from penjing.data.batches import (
    Batch,
    PreferenceBatch,
    RolloutBatch,
    RowStream,
    pad_rows,
    validation_batch,
)
from penjing.data.mixture import Segment
from penjing.data.shards import Shard
from penjing.errors import DataError

MakeShard = Callable[..., Shard]
END = 0
STORIES = [[END, *range(100 * n, 100 * n + 5 * n)] for n in range(1, 5)]
CHATS = [[1, 50 + n, 2, 100 + n, 3] for n in range(6)]


def stream(make_shard: MakeShard, rank: int = 0, world_size: int = 1) -> RowStream:
    shards = [make_shard(STORIES), make_shard(CHATS, trained=True)]
    shares = (MixtureShare("stories", 3, 1), MixtureShare("chats", 1, 3))
    return RowStream(
        shards=shards,
        segments=(Segment(0, shares, 60),),
        rows_per_step=12,
        row_tokens=8,
        end_of_text=END,
        seed=7,
        rank=rank,
        world_size=world_size,
    )


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


def joined(parts: list[Batch]) -> Batch:
    return Batch(
        *(torch.cat(column) for column in zip(*(vars(p).values() for p in parts), strict=True))
    )


def test_every_target_of_the_documents_comes_once_an_epoch(make_shard: MakeShard) -> None:
    segments = (Segment(0, (MixtureShare("stories", 1, 1),), 100),)
    rows = RowStream(
        shards=[make_shard(STORIES)],
        segments=segments,
        rows_per_step=1,
        row_tokens=8,
        end_of_text=END,
        seed=1,
    )
    one_epoch = -(-sum(map(len, STORIES)) // 8)
    batch = rows.pack(range(one_epoch))
    real = batch.document_ids >= 0

    wanted = Counter((ids[i], [*ids, END][i + 1]) for ids in STORIES for i in range(len(ids)))
    pairs = zip(batch.tokens[real].tolist(), batch.targets[real].tolist(), strict=True)
    assert Counter(pairs) == wanted
    assert torch.equal(batch.loss_weights, real.float())
    assert batch.tokens[~real].eq(END).all()


def test_conversations_are_trained_where_their_mask_says(make_shard: MakeShard) -> None:
    batch = validation_batch(
        [make_shard(CHATS, trained=True)], row_tokens=12, rows=9, end_of_text=END
    ).batch

    assert batch.document_ids[0].tolist() == [0] * 5 + [1] * 5 + [-1] * 2
    assert torch.equal(batch.loss_weights == 1, batch.targets >= 100)
    assert batch.targets[:, [4, 9]].eq(END).all()
    assert batch.rows == 3


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_the_ranks_together_have_the_rows_of_one(make_shard: MakeShard, world_size: int) -> None:
    alone = list(islice(stream(make_shard).step_batches(5), 3))
    ranks = [stream(make_shard, rank, world_size).step_batches(5) for rank in range(world_size)]

    for step in alone:
        parts = [next(rank) for rank in ranks]
        rows = [repr([tensor[r].tolist() for tensor in vars(part).values()])
                for part in parts for r in range(part.rows)]  # fmt: skip
        wanted = [repr([t[r].tolist() for t in vars(step).values()]) for r in range(12)]
        assert sorted(rows) == sorted(wanted)
        assert {part.rows for part in parts} == {12 // world_size}


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 8))
def test_a_resumed_stream_goes_on_as_if_never_stopped(make_shard: MakeShard, steps: int) -> None:
    straight = list(islice(stream(make_shard).step_batches(0), steps + 3))

    resumed = list(islice(stream(make_shard).step_batches(12 * steps), 3))
    assert all(same(a, b) for a, b in zip(straight[steps:], resumed, strict=True))


def test_rows_that_ranks_cannot_share_are_refused(make_shard: MakeShard) -> None:
    with pytest.raises(DataError, match=r"12 rows a step .* by 5 ranks: .* multiple of 40"):
        stream(make_shard, 0, 5)


def test_a_source_without_documents_is_named(make_shard: MakeShard) -> None:
    segments = (Segment(0, (MixtureShare("tales", 1, 1),), 10),)
    with pytest.raises(DataError, match=r"sources\.tales has no training rows"):
        RowStream(
            shards=[make_shard([])],
            segments=segments,
            rows_per_step=1,
            row_tokens=8,
            end_of_text=END,
            seed=1,
        )


def test_validation_is_fixed_and_takes_sources_in_turn(make_shard: MakeShard) -> None:
    shards = [make_shard(STORIES), make_shard(CHATS, trained=True), make_shard([])]
    found = validation_batch(shards, row_tokens=8, rows=5, end_of_text=END)
    batch = found.batch

    assert same(batch, validation_batch(shards, row_tokens=8, rows=5, end_of_text=END).batch)
    assert sum(part.rows for _, part in found.by_shard()) == batch.rows
    assert [row in (1, END) for row in batch.tokens[:, 0].tolist()].count(True) >= 2
    assert (batch.tokens[1::2, 0] == 1).all()
    assert validation_batch(shards, row_tokens=8, rows=99, end_of_text=END).batch.rows == 7 + 6
    with pytest.raises(DataError, match=r"no validation rows in s\.train"):
        validation_batch(shards[2:], row_tokens=8, rows=5, end_of_text=END)


def test_one_document_a_row_is_shifted_and_padded() -> None:
    batch = pad_rows([([1, 5, 6, 2], [0, 0, 1, 1]), ([1, 7], [0, 1])], END)

    assert batch.tokens.tolist() == [[1, 5, 6], [1, END, END]]
    assert batch.targets.tolist() == [[5, 6, 2], [7, END, END]]
    assert batch.loss_weights.tolist() == [[0, 1, 1], [1, 0, 0]]
    assert batch.document_ids.tolist() == [[0, 0, 0], [0, -1, -1]]
    assert pad_rows([([1, 7], [0, 1])], END, 5).tokens.shape == (1, 5)
    assert pad_rows([], END).rows == 0


@pytest.mark.parametrize(("ids", "weights"), [([1, 2, 3, 4], [1] * 4), ([1, 2], [1]), ([], [])])
def test_a_row_that_does_not_fit_is_refused(ids: list[int], weights: list[float]) -> None:
    with pytest.raises(DataError, match="row 0 has"):
        pad_rows([(ids, weights)], END, 2)


def test_batches_split_and_join_to_themselves() -> None:
    batch = pad_rows([([1, n, 2], [0, 1, 1]) for n in range(7)], END)
    values = torch.arange(7.0)
    pairs = list(PreferenceBatch(batch, batch, values, -values).split(3))
    rollouts = RolloutBatch(batch, values, values[:, None] * torch.ones(2), batch)
    parts = list(rollouts.to("cpu").split(3))

    assert [part.rows for part in batch.split(3)] == [part.rows for part in pairs] == [3, 3, 1]
    assert same(joined([part.rejected for part in pairs]), batch)
    assert torch.equal(torch.cat([part.reference_rejected for part in pairs]), -values)
    assert torch.equal(torch.cat([part.advantages for part in parts]), values)
    assert same(joined([part.retention for part in parts if part.retention]), batch)
    assert max(part.rows for part in parts) <= 3


def test_a_part_is_as_wide_as_its_longest_rollout() -> None:
    batch = pad_rows([([5] * n, [1.0] * n) for n in (6, 5, 3, 2)], END)
    logprobs = torch.arange(20.0).reshape(4, 5)
    wide, narrow = RolloutBatch(batch, torch.arange(4.0), logprobs, batch).split(2)

    assert wide.batch.tokens.shape == (2, 5)
    assert narrow.batch.tokens.shape == narrow.sampled_logprobs.shape == (2, 2)
    assert torch.equal(narrow.sampled_logprobs, logprobs[2:, :2])
    assert narrow.retention is not None
    assert narrow.retention.tokens.shape == (2, 5)


def test_few_retention_rows_are_spread_and_none_is_lost() -> None:
    batch = pad_rows([([1, n, 2], [0, 1, 1]) for n in range(8)], END)
    two = next(batch.split(2))
    parts = list(RolloutBatch(batch, torch.zeros(8), torch.zeros(8, 2), two).split(2))

    assert [part.retention.rows if part.retention else 0 for part in parts] == [0, 1, 0, 1]
    none = RolloutBatch(batch, torch.zeros(8), torch.zeros(8, 2), None)
    assert [part.retention for part in none.split(8)] == [None]
