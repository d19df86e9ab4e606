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
from penjing.data.packing import RowTable
from penjing.data.shards import Shard
from penjing.text import native

Array = npt.NDArray[Any]


class RowFiller:
    """The arrays of a batch while its rows are written; what is not written is padding.

    Pieces are noted, and written together: all of a shard's by one call.
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
        self._noted: list[tuple[Shard, Array]] = []

    def fill(
        self, places: Array, shard: Shard, starts: Array, table: RowTable, rows: Array
    ) -> None:
        """Note these rows of a table of the shard, whose document d has the ids [starts[d],
        starts[d + 1]), at these places of the batch.
        """
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
                ids, trained = shard.span(begin, end)
                kept = recent_turns(ids, length, self._marks)
                assert trained is not None
                self.place(row, ids[kept], trained[kept], length=len(kept))
            made = made[whole]
        self._noted.append((shard, made))

    def place(self, row: int, ids: Array, weights: Array, *, length: int) -> None:
        """Write a row's `length` positions; ids and weights have that many or one more."""
        tokens, targets, loss_weights, document_ids = self._arrays
        known = len(ids) - 1
        tokens[row, :length] = ids[:length]
        targets[row, :length] = self._end_of_text
        targets[row, :known] = ids[1:]
        loss_weights[row, :length] = 0
        loss_weights[row, :known] = weights[1:]
        document_ids[row, :length] = 0
        self._filled[row] = length

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Tokens, targets, loss weights and document ids, (rows, row_tokens) each."""
        for shard, pieces in self._noted:
            ids, trained = shard.all_ids, shard.all_trained
            native.fill_rows(ids, trained, pieces, *self._arrays, self._end_of_text)
        native.pad_rows(self._filled, *self._arrays, self._end_of_text)
        return self._tensors
