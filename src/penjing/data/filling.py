"""The arrays of a batch, filled with pieces of documents and padding.

Which pieces stand in which row is `packing`'s; a batch is `batches`'.
"""

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from penjing.data.overlong import TurnMarks, recent_turns
from penjing.data.packing import Row, RowTable
from penjing.data.shards import Shard
from penjing.text import native

Array = npt.NDArray[Any]


class RowFiller:
    """The arrays of a batch while its rows are written; what is not written is padding.

    Pieces are noted row by row, and written together: all of a shard by one call.
    """

    def __init__(
        self,
        rows: int,
        row_tokens: int,
        end_of_text: int,
        marks: TurnMarks | None = None,
        *,
        pinned: bool = False,
    ) -> None:
        # Pinned memory comes from torch's cache, which takes it back when the copy is done: after
        # a few steps none is allocated any more.
        new = partial(torch.empty, (rows, row_tokens), pin_memory=pinned)
        whole = partial(new, dtype=torch.int64)
        self._tensors = (whole(), whole(), new(dtype=torch.float32), whole())
        tokens, targets, weights, document_ids = self._tensors
        inputs = (tokens.numpy(), targets.numpy())
        self._arrays = (*inputs, weights.numpy(), document_ids.numpy())
        self._end_of_text, self._marks = end_of_text, marks
        self._filled = np.zeros(rows, dtype=np.int64)
        self._many: list[tuple[Shard, Array]] = []
        self._noted: dict[Shard, list[tuple[int, int, int, int, int, bool]]] = {}

    def fill(self, row: int, shard: Shard, starts: Array, pieces: Row) -> None:
        """A row's pieces of a shard whose document d has the ids [starts[d], starts[d + 1])."""
        noted = self._noted.setdefault(shard, [])
        at, whole = 0, shard.kind == "documents" or not self._marks
        for number, (document, first, length) in enumerate(pieces):
            begin, end = int(starts[document]) + first, int(starts[document + 1])
            if whole or begin + length >= end:
                noted.append((row, at, begin, length, number, begin + length == end))
                shard.verify(begin, min(end, begin + length + 1))
            else:
                length = self._fill_recent(row, at, shard, (begin, end), length, number)  # noqa: PLW2901 - it may be shorter than planned
            at += length
        self._filled[row] = at

    def fill_many(
        self, places: Array, shard: Shard, starts: Array, table: RowTable, rows: Array
    ) -> None:
        """`fill` of these rows of a table, at these places, at once."""
        chosen, counts = table.of(rows)
        made = table.pieces[chosen]
        made[:, 0] = np.repeat(places, counts)
        self._filled[places] = table.filled[rows]
        if not shard.verified:
            for _, _, first, size, _, last in made.tolist():
                shard.verify(first, first + size + 1 - last)
        if shard.kind == "conversations" and self._marks:
            whole = made[:, 5] == 1
            for row, _, begin, length, *_ in made[~whole].tolist():
                end = int(starts[np.searchsorted(starts, begin, side="right")])
                self._fill_recent(row, 0, shard, (begin, end), length, 0)
            made = made[whole]
        self._many.append((shard, made))

    def _fill_recent(
        self, row: int, at: int, shard: Shard, span: tuple[int, int], length: int, number: int
    ) -> int:
        """The latest turns of a conversation that is too long; returns their positions."""
        assert self._marks is not None
        ids, trained = shard.span(*span)
        kept = recent_turns(ids, length, self._marks)
        weights = np.ones(len(kept)) if trained is None else trained[kept]
        self.place(row, at, len(kept), ids[kept], weights, number=number)
        return len(kept)

    def place(
        self, row: int, start: int, length: int, ids: Array, weights: Array, *, number: int = 0
    ) -> None:
        """Write `length` positions; ids and weights have that many or one more."""
        tokens, targets, loss_weights, document_ids = self._arrays
        stop, known = start + length, start + len(ids) - 1
        tokens[row, start:stop] = ids[:length]
        targets[row, start:stop] = self._end_of_text
        targets[row, start:known] = ids[1:]
        loss_weights[row, start:stop] = 0
        loss_weights[row, start:known] = weights[1:]
        document_ids[row, start:stop] = number
        self._filled[row] = stop

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Tokens, targets, loss weights and document ids, (rows, row_tokens) each."""
        noted = (
            (shard, np.array(some, dtype=np.int64).reshape(-1, 6))
            for shard, some in self._noted.items()
        )
        for shard, pieces in (*self._many, *noted):
            ids, trained = shard.all_ids, shard.all_trained
            native.fill_rows(ids, trained, pieces, *self._arrays, self._end_of_text)
        native.pad_rows(self._filled, *self._arrays, self._end_of_text)
        return self._tensors
