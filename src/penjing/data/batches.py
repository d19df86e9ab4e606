"""Rows to tensors: the batches of every training stage. The only module here that imports torch.

Which row comes when is `packing`'s and `mixture`'s; a stream's position is one global row number.

Shapes: B rows, T positions.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from penjing.data.filling import Array, RowFiller
from penjing.data.mixture import MixturePlan, Segment, sources_of
from penjing.data.order import permutation
from penjing.data.overlong import TurnMarks
from penjing.data.packing import BLOCK_DOCUMENTS, Cut, Overlong, RowPlan, RowTable, open_rows
from penjing.data.shards import Shard
from penjing.errors import DataError


@dataclass(frozen=True)
class Batch:
    """All rows of one step for one rank, or a slice of them; each field is (B, T).

    tokens and targets (int64), loss_weights (float32; 0: not trained), document_ids (int64; 0, 1,
    ... within a row: positions and attention restart at each). Padding has `<|endoftext|>` as token
    and target, weight 0 and document -1.
    """

    tokens: Tensor
    targets: Tensor
    loss_weights: Tensor
    document_ids: Tensor

    @property
    def rows(self) -> int:
        return self.tokens.shape[0]

    def split(self, n: int) -> Iterator["Batch"]:
        """At most `n` rows at a time, in order, without copying."""
        return (_between(self, start, start + n) for start in range(0, self.rows, n))

    def to(self, device: torch.device | str) -> "Batch":
        return _each(self, _mover(device))


@dataclass(frozen=True)
class PreferenceBatch:
    """Pairs of answers, one a row, and the reference model's log-probability of each answer:
    (B,) float32, nats, summed over its tokens.
    """

    chosen: Batch
    rejected: Batch
    reference_chosen: Tensor
    reference_rejected: Tensor

    @property
    def rows(self) -> int:
        return self.chosen.rows

    def split(self, n: int) -> Iterator["PreferenceBatch"]:
        return (_between(self, start, start + n) for start in range(0, self.rows, n))

    def to(self, device: torch.device | str) -> "PreferenceBatch":
        return _each(self, _mover(device))


@dataclass(frozen=True)
class RolloutBatch:
    """Sampled answers, one a row, with advantages (B,) and the targets' log-probabilities when
    sampled (B, T) float32, nats; and rows of SFT trained along so that other skills stay.
    """

    batch: Batch
    advantages: Tensor
    sampled_logprobs: Tensor
    retention: Batch | None

    @property
    def rows(self) -> int:
        return self.batch.rows

    def split(self, n: int) -> Iterator["RolloutBatch"]:
        """Parts of at most `n` rollouts and `n` retention rows, both dealt out evenly; a part is
        as wide as its longest rollout, so rows in order of length cost the least.
        """
        kept = self.retention.rows if self.retention else 0
        parts = -(-max(self.rows, kept) // n)
        for part in range(parts):
            start, stop = self.rows * part // parts, self.rows * (part + 1) // parts
            first, last = kept * part // parts, kept * (part + 1) // parts
            rest = self.retention and last > first and _between(self.retention, first, last)
            rollouts = _between(replace(self, retention=None), start, stop)
            yield replace(rollouts._without_padding(), retention=rest or None)

    def _without_padding(self) -> "RolloutBatch":
        """Without the columns in which every row is padding."""
        width = int((self.batch.document_ids >= 0).any(0).sum())
        narrow = _each(self.batch, lambda tensor: tensor[:, :width])
        return replace(self, batch=narrow, sampled_logprobs=self.sampled_logprobs[:, :width])

    def to(self, device: torch.device | str) -> "RolloutBatch":
        return _each(self, _mover(device))


AnyBatch = TypeVar("AnyBatch", Batch, PreferenceBatch, RolloutBatch)


def _each(batch: AnyBatch, change: Callable[[Tensor], Tensor]) -> AnyBatch:
    """The batch with every tensor changed, in nested batches as well."""
    changed: dict[str, Any] = {}
    for name, value in vars(batch).items():
        nested = isinstance(value, Batch)
        changed[name] = _each(value, change) if nested else None if value is None else change(value)
    return type(batch)(**changed)


def _mover(device: torch.device | str) -> Callable[[Tensor], Tensor]:
    """Copies that nobody waits for, unless they go to the CPU, where they are read at once."""
    ahead = torch.device(device).type != "cpu"
    return lambda tensor: tensor.to(device, non_blocking=ahead)


def _between(batch: AnyBatch, start: int, stop: int) -> AnyBatch:
    return _each(batch, lambda tensor: tensor[start:stop])


@dataclass(kw_only=True)
class RowStream:
    """The global sequence of rows of a stage, and the batches of one rank cut from it.

    `shards` are the training shards of `sources_of(segments)`, in that order; `rows_per_step`
    counts all ranks' rows; each source's order is derived from `seed` (the stage's) and its name;
    `cut` and `overlong` are as in `SourceRows`; `marks` tell the turns of conversations of which
    the oldest are dropped; of the shards about `memory_bytes` stay mapped in memory.

    Raises:
        DataError: a source without training rows, rows that ranks cannot share evenly, or shares
            that mean nothing.
    """

    shards: Sequence[Shard]
    segments: Sequence[Segment]
    rows_per_step: int
    row_tokens: int
    end_of_text: int
    seed: int
    cut: Cut = "anywhere"
    overlong: Overlong = "drop_oldest"
    marks: TurnMarks | None = None
    memory_bytes: int = 1 << 31
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.rows_per_step < 1 or self.rows_per_step % self.world_size:
            raise DataError(
                f"{self.rows_per_step} rows a step cannot be shared evenly by {self.world_size} "
                f"ranks: make tokens_per_step a multiple of {self.row_tokens * self.world_size}"
            )
        by_name = dict(zip(sources_of(self.segments), self.shards, strict=True))
        self._sources = open_rows(by_name, self.row_tokens, self.seed, self.cut, self.overlong)
        self._starts = [_starts(shard.lengths()) for shard in self.shards]
        self._read_bytes = 0
        self.plan = MixturePlan(self.segments, self.row_tokens, self._sources)

    def rows_an_epoch(self) -> int:
        """Of all sources together."""
        return sum(rows.rows_an_epoch() for rows in self._sources.values())

    def replica(self) -> "RowStream":
        """The same rows from the same shards, for another thread."""
        return replace(self)

    def step_batches(self, first_row: int, *, pinned: bool = False) -> Iterator[Batch]:
        """The steps from global row `first_row` on, without end; row g is rank g % world_size's."""
        while True:
            yield self.step_batch(first_row, pinned=pinned)
            first_row += self.rows_per_step

    def step_batch(
        self, first_row: int, *, pinned: bool = False, on_row: Callable[[int], None] | None = None
    ) -> Batch:
        """This rank's rows of the step that begins at global row `first_row`."""
        step = range(first_row, first_row + self.rows_per_step)
        own = [row for row in step if row % self.world_size == self.rank]
        return self.pack(own, pinned=pinned, on_row=on_row)

    def pack(
        self,
        rows: Sequence[int],
        *,
        pinned: bool = False,
        on_row: Callable[[int], None] | None = None,
    ) -> Batch:
        """These global rows as a batch, (len(rows), row_tokens); `on_row` is told of the last row
        of each source that is done.
        """
        marks = self.marks if self.overlong == "drop_oldest" else None
        filler = RowFiller(len(rows), self.row_tokens, self.end_of_text, marks, pinned=pinned)
        drawn = np.array([self.plan.source_of(row) for row in rows], dtype=np.int64).reshape(-1, 2)
        for source in np.unique(drawn[:, 0]).tolist():
            places = np.flatnonzero(drawn[:, 0] == source)
            taken = self._sources[self.plan.sources[source]].take(drawn[places, 1])
            for own, table, chosen in taken:
                filler.fill(places[own], self.shards[source], self._starts[source], table, chosen)
            if on_row:
                on_row(rows[int(places[-1])])
        self._read_bytes += len(rows) * self.row_tokens * self.shards[0].token_bytes
        if self._read_bytes > self.memory_bytes:
            self._read_bytes = 0
            for shard in self.shards:
                shard.release()
        return Batch(*filler.tensors())


@dataclass(frozen=True)
class ValidationRows:
    """A fixed batch, and the shard that each of its rows is from."""

    batch: Batch
    shards: tuple[str, ...]

    def to(self, device: torch.device | str) -> "ValidationRows":
        return replace(self, batch=self.batch.to(device))

    def by_shard(self) -> Iterator[tuple[str, Batch]]:
        """The rows of each shard, in the order in which shards come."""
        for name in dict.fromkeys(self.shards):
            own = [place for place, shard in enumerate(self.shards) if shard == name]
            yield name, _each(self.batch, itemgetter(own))


def validation_batch(
    shards: Sequence[Shard], *, row_tokens: int, rows: int, end_of_text: int
) -> ValidationRows:
    """Documents in stored order, packed, rows shuffled; sources take turns.

    There are fewer than `rows` rows where the shards hold no more.

    Raises:
        DataError: the shards hold no documents at all.
    """
    tables = [(shard, _validation_rows(shard, row_tokens, rows)) for shard in shards]
    chosen = [
        (number, turn)
        for turn in range(rows)
        for number, (_, table) in enumerate(tables)
        if turn < len(table.filled)
    ][:rows]
    if not chosen:
        names = ", ".join(shard.name for shard in shards)
        raise DataError(
            f"no validation rows in {names or 'no shards'}: give the sources more rows or raise "
            "shards.validation_fraction"
        )
    filler = RowFiller(len(chosen), row_tokens, end_of_text)
    drawn = np.array(chosen, dtype=np.int64)
    for number, (shard, table) in enumerate(tables):
        places = np.flatnonzero(drawn[:, 0] == number)
        filler.fill(places, shard, _starts(shard.lengths()), table, drawn[places, 1])
    names_of_rows = tuple(tables[number][0].name for number, _ in chosen)
    return ValidationRows(Batch(*filler.tensors()), names_of_rows)


def _starts(lengths: Array) -> Array:
    """Of each document its first id, and one more: the end of the last."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def _validation_rows(shard: Shard, row_tokens: int, rows: int) -> RowTable:
    lengths = shard.lengths()
    cut: Cut = "overlong" if shard.kind == "documents" else "never"
    filled = np.cumsum(np.minimum(lengths, row_tokens) if cut == "never" else lengths)
    # A whole block even for a few rows: else one long book could be all that is measured.
    documents = max(BLOCK_DOCUMENTS, int(np.searchsorted(filled, rows * row_tokens)) + 1)
    lengths = lengths[:documents]
    plan = RowPlan(np.arange(len(lengths)), lengths, row_tokens, cut=cut)
    # Packing puts long documents first; the shuffle makes the first rows a fair sample.
    return plan.table(permutation(len(plan), 0)[:rows], _starts(lengths))


def pad_rows(
    rows: Sequence[tuple[Sequence[int], Sequence[float]]],
    end_of_text: int,
    length: int | None = None,
) -> Batch:
    """One document a row: inputs `ids[:-1]`, targets `ids[1:]`, weights of the targets.

    Args:
        rows: (ids, weight of each id); the first id is no target, so its weight is not used.
        end_of_text: the id that fills rows up.
        length: positions of each row; None: as many as the longest needs.

    Raises:
        DataError: a row does not fit, or has not as many weights as ids.
    """
    width = max((len(ids) - 1 for ids, _ in rows), default=0) if length is None else length
    filler = RowFiller(len(rows), width, end_of_text)
    for row, (ids, weights) in enumerate(rows):
        if len(ids) != len(weights) or not 0 < len(ids) <= width + 1:
            raise DataError(
                f"row {row} has {len(ids)} ids and {len(weights)} weights: wanted as many "
                f"weights as ids, and 1 to {width + 1} ids"
            )
        filler.place(row, np.asarray(ids), np.asarray(weights), length=len(ids) - 1)
    return Batch(*filler.tensors())
