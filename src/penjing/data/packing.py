"""Documents to rows: which piece of which document stands where, from lengths alone.

It reads no ids. A stored document of k ids takes k positions: its ids are inputs, its ids from the
second on and then `<|endoftext|>` are targets. A piece after the first begins, as input, with the
last target of the piece before it; so every token is a target exactly once an epoch.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from penjing.data.order import permutation, permute, permute_many
from penjing.data.shards import Shard, ShardKind
from penjing.errors import DataError
from penjing.seeds import seed_for
from penjing.text import native

BLOCK_DOCUMENTS = 4096
_BLOCKS_KEPT = 2
_LISTED_ROWS = 1 << 17
_FREE_SHARE = 1 / 256
"""Of a block's positions that may stay empty where documents may be cut."""


class Piece(NamedTuple):
    """Positions [start, start + length) of a stored document.

    A named tuple and not a dataclass: planning makes millions, and these cost a third.
    """

    document: int
    start: int
    length: int


Row = tuple[Piece, ...]

Cut = Literal["anywhere", "overlong", "never"]
"""Where documents may be cut: to fill rows; only those longer than a row, between its rows; or not
at all: of those only the first row's worth is planned.
"""

Overlong = Literal["drop_oldest", "split", "drop"]
"""What becomes of a conversation longer than a row: its oldest turns go, it goes on in further
rows, or it is left out.
"""


class RowPlan:
    """The rows of some documents, packed best fit: the long ones first, the others as they come.

    Sorted by length throughout, rows would be filled a little better, and each would hold documents
    of one length, and so of one kind: a step's gradient would be that of few kinds.

    Cut, longer documents become full rows and a rest, losing nothing; the full rows are computed
    when asked for, so that a book costs no more than a note. Cut anywhere, the emptiest rows are
    then given up and fill the gaps of others, largest gaps first: the fewest cuts that leave 1 in
    256 positions empty.
    """

    def __init__(
        self,
        documents: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
        row_tokens: int,
        *,
        cut: Cut,
    ) -> None:
        full = np.zeros_like(lengths) if cut == "never" else lengths // row_tokens
        rests = np.minimum(lengths - full * row_tokens, row_tokens)
        # Two documents of more than half a row never share one, so their order costs no variety.
        order = np.argsort(-np.where(2 * rests > row_tokens, rests, 0), kind="stable")
        order = order[rests[order] > 0]
        free = int(_FREE_SHARE * int(lengths.sum())) if cut == "anywhere" else -1
        parts, counts = native.pack_rows(rests[order], row_tokens, free)
        chosen, offset, length = order[parts[:, 0]], parts[:, 1], parts[:, 2]
        starts = full[chosen] * row_tokens + offset
        self._packed = np.stack([documents[chosen], starts, length], axis=1)
        self._packed_ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        self._documents, self._row_tokens, self._full = documents, row_tokens, full
        self._full_ends = np.cumsum(full)
        self._full_rows = int(full.sum())

    def __len__(self) -> int:
        return self._full_rows + len(self._packed_ends) - 1

    def row(self, index: int) -> Row:
        pieces, _ = self._pieces(np.array([index]))
        return tuple(Piece(*numbers) for numbers in pieces.tolist())

    def table(self, places: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> "RowTable":
        """The rows at these places, in their order; document d has ids [starts[d], starts[d + 1])
        of its shard.
        """
        pieces, counts = self._pieces(places)
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        document, start, length = pieces.T
        offsets, begin = np.cumsum(length) - length, starts[document] + start
        columns = (
            np.zeros(len(pieces), np.int64),
            offsets - np.repeat(offsets[ends[:-1]], counts),
            begin,
            length,
            np.arange(len(pieces)) - np.repeat(ends[:-1], counts),
            begin + length == starts[document + 1],
        )
        return RowTable(np.stack(columns, axis=1), ends, np.add.reduceat(length, ends[:-1]))

    def _pieces(
        self, places: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(document, start, length) of each piece of these rows, (P, 3), and how many each has."""
        full = places < self._full_rows
        chosen, packed_counts = _pieces_of(places[~full] - self._full_rows, self._packed_ends)
        counts = np.ones(len(places), dtype=np.int64)
        counts[~full] = packed_counts
        pieces = np.empty((int(counts.sum()), 3), dtype=np.int64)
        is_full = np.repeat(full, counts)
        pieces[~is_full] = self._packed[chosen]
        which = np.searchsorted(self._full_ends, places[full], side="right")
        number = places[full] - (self._full_ends - self._full)[which]
        pieces[is_full, 0] = self._documents[which]
        pieces[is_full, 1] = number * self._row_tokens
        pieces[is_full, 2] = self._row_tokens
        return pieces, counts


@dataclass(frozen=True)
class RowTable:
    """Rows as arrays: row r has the pieces [ends[r], ends[r + 1]) and `filled[r]` positions.

    pieces (P, 6) as `native.fill_rows` takes them, all in row 0; ends (R + 1,); filled (R,). All
    int64.
    """

    pieces: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    filled: npt.NDArray[np.int64]

    def of(
        self, rows: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Which pieces these rows have, one row after another, and how many each."""
        return _pieces_of(rows, self.ends)


def _pieces_of(
    rows: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    counts = ends[rows + 1] - ends[rows]
    stops = np.cumsum(counts)
    total = int(stops[-1]) if len(stops) else 0
    return np.arange(total) + np.repeat(ends[rows] - stops + counts, counts), counts


def plan_rows(lengths: npt.NDArray[np.int64], row_tokens: int, *, cut: Cut) -> list[Row]:
    """All rows of documents 0, 1, ... with (N,) `lengths`; see `RowPlan`."""
    plan = RowPlan(np.arange(len(lengths)), lengths, row_tokens, cut=cut)
    return [plan.row(index) for index in range(len(plan))]


def overlong(lengths: npt.NDArray[np.int64], row_tokens: int) -> int:
    """How many documents are longer than a row."""
    return int(np.count_nonzero(lengths > row_tokens))


def utilization(rows: Iterable[Row], row_tokens: int) -> float:
    """The filled share of positions, in [0, 1]; 0 without rows."""
    filled = [sum(piece.length for piece in row) for row in rows]
    return sum(filled) / (len(filled) * row_tokens) if filled else 0.0


class SourceRows:
    """The endless rows of one source: row k is a pure function of the arguments and k.

    Each epoch permutes the documents anew; blocks of 4,096 consecutive ones are packed, and the
    rows of a block shuffled. Blocks are planned when first needed; of old ones only counts stay.
    `cut` is for documents, `overlong` for conversations.
    """

    def __init__(
        self,
        lengths: npt.NDArray[np.int64],
        kind: ShardKind,
        row_tokens: int,
        key: int,
        *,
        cut: Cut = "anywhere",
        overlong: Overlong = "drop_oldest",
        name: str = "the source",
    ) -> None:
        if len(lengths) == 0:
            raise DataError(
                f"{name} has no training rows: its files held no usable row, or all of them went "
                "to validation; give it more rows or take it out of the mixture"
            )
        self._lengths = lengths
        self._ids = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        self._dropping = kind == "conversations" and overlong == "drop"
        if self._dropping and lengths.min() > row_tokens:
            raise DataError(
                f"{name}: each of its {len(lengths)} conversations is longer than a row of "
                f'{row_tokens} and overlong = "drop" leaves them out: choose another, or a larger '
                "model.max_position_embeddings"
            )
        split: Cut = "overlong" if overlong == "split" else "never"
        self._cut = cut if kind == "documents" else split
        self._row_tokens = row_tokens
        self._key = key
        self._blocks_an_epoch = -(-len(lengths) // BLOCK_DOCUMENTS)
        self._starts = [0]
        """Row at which block 0, 1, ... starts; one more than the blocks planned so far."""
        self._planned: OrderedDict[int, RowPlan] = OrderedDict()
        self._tables: OrderedDict[int, RowTable] = OrderedDict()
        """Of some planned blocks, their rows in the order of the stream."""

    def row(self, k: int) -> Row:
        block = self._block_of(k)
        first, stop = self._starts[block : block + 2]
        place = permute(k - first, stop - first, self._row_key(block))
        return self._plan(block).row(place)

    def take(
        self, within: npt.NDArray[np.int64]
    ) -> Iterator[tuple[npt.NDArray[np.bool_], "RowTable", npt.NDArray[np.int64]]]:
        """These rows, block by block: which of them are there, a table, and their places in it."""
        left = np.ones(len(within), dtype=np.bool_)
        while left.any():
            block = self._block_of(int(within[left.argmax()]))
            first, stop = self._starts[block : block + 2]
            own = left & (within >= first) & (within < stop)
            yield own, *self._table(block, within[own] - first)
            left &= ~own

    def _table(
        self, block: int, rows: npt.NDArray[np.int64]
    ) -> tuple["RowTable", npt.NDArray[np.int64]]:
        plan, key = self._plan(block), self._row_key(block)
        if len(plan) > _LISTED_ROWS:  # long books, whose every row would be much to keep
            return plan.table(permute_many(rows, len(plan), key), self._ids), np.arange(len(rows))
        if block not in self._tables:
            self._tables[block] = plan.table(permutation(len(plan), key), self._ids)
            while len(self._tables) > _BLOCKS_KEPT:
                self._tables.popitem(last=False)
        return self._tables[block], rows

    def _row_key(self, block: int) -> int:
        return seed_for(self._key, "rows", block)

    def epoch_of(self, k: int) -> int:
        return self._block_of(k) // self._blocks_an_epoch

    def rows_an_epoch(self) -> int:
        """Of the first; another may have a few rows more or less. Plans all of it."""
        k = 0
        while self.epoch_of(k) == 0:
            k = self._starts[-1]
        return self._starts[self._blocks_an_epoch]

    def _block_of(self, k: int) -> int:
        while self._starts[-1] <= k:
            self._starts.append(self._starts[-1] + len(self._plan(len(self._starts) - 1)))
        return bisect_right(self._starts, k) - 1

    def _plan(self, block: int) -> RowPlan:
        if block not in self._planned:
            epoch, number = divmod(block, self._blocks_an_epoch)
            first = number * BLOCK_DOCUMENTS
            stop = min(first + BLOCK_DOCUMENTS, len(self._lengths))
            documents = permute_many(
                np.arange(first, stop), len(self._lengths), seed_for(self._key, "epoch", epoch)
            )
            if self._dropping:
                documents = documents[self._lengths[documents] <= self._row_tokens]
            lengths = self._lengths[documents]
            self._planned[block] = RowPlan(documents, lengths, self._row_tokens, cut=self._cut)
        self._planned.move_to_end(block)
        while len(self._planned) > _BLOCKS_KEPT:
            self._planned.popitem(last=False)
        return self._planned[block]


def open_rows(
    shards: Mapping[str, Shard], row_tokens: int, seed: int, cut: Cut, overlong: Overlong
) -> dict[str, SourceRows]:
    """The rows of each source of a stage; each one's order is derived from the stage's seed and
    the source's name.

    Raises:
        DataError: a source has no training rows.
    """
    return {
        name: SourceRows(
            shard.lengths(),
            shard.kind,
            row_tokens,
            seed_for(seed, "order", name),
            cut=cut,
            overlong=overlong,
            name=f"sources.{name}",
        )
        for name, shard in shards.items()
    }
