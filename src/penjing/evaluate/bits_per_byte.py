"""Bits per byte: the loss of a model on text, comparable between tokenizers.

bpb = sum of -ln p(target) / (ln 2 x sum of the targets' raw byte lengths), over targets that are
text: special tokens have no bytes and are in neither sum. It does not choose the text.

Shapes: B rows, T positions, V vocabulary.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penjing.data.batches import Batch, pad_rows
from penjing.model.language_model import LanguageModel
from penjing.model.likelihood import token_logprobs
from penjing.runtime import fitting


@dataclass(frozen=True)
class TextLoss:
    """Sums over scored targets; add them up before dividing."""

    nats: float
    tokens: int
    num_bytes: int

    def __add__(self, other: "TextLoss") -> "TextLoss":
        return TextLoss(
            self.nats + other.nats, self.tokens + other.tokens, self.num_bytes + other.num_bytes
        )

    @property
    def bits_per_byte(self) -> float:
        return self.nats / (math.log(2) * self.num_bytes) if self.num_bytes else math.nan


@torch.no_grad()
def text_loss(
    model: LanguageModel,
    batches: Iterable[Batch],
    byte_lengths: NDArray[np.int64],
) -> TextLoss:
    """Sums over every target with weight > 0 and at least one byte, in float64.

    Args:
        model: scored as it is.
        batches: any rows; special targets and padding are left out by their byte length of 0.
        byte_lengths: (V,) raw bytes of every id.
    """
    lengths_V, found = torch.from_numpy(byte_lengths), TextLoss(0.0, 0, 0)
    for batch in batches:
        work = partial(_scored, model, batch, lengths_V.to(batch.targets.device))
        found += fitting(work, max(1, batch.rows), batch.targets.device)
    return found


def _scored(model: LanguageModel, batch: Batch, lengths_V: Tensor, rows: int) -> TextLoss:
    """The sums of a batch, so many rows at a time."""
    nats, tokens, num_bytes = 0.0, 0, 0
    for part in batch.split(rows):
        logprobs_BT = token_logprobs(model, part.tokens, part.targets, part.document_ids)
        bytes_BT = lengths_V[part.targets]
        scored_BT = (part.loss_weights > 0) & (bytes_BT > 0)
        nats -= float(logprobs_BT.double()[scored_BT].sum())
        tokens += int(scored_BT.sum())
        num_bytes += int(bytes_BT[scored_BT].sum())
    return TextLoss(nats, tokens, num_bytes)


def document_windows(
    documents: Sequence[Sequence[int]], end_of_text: int, context: int, rows: int
) -> Iterable[Batch]:
    """Batches in which each document stands alone and each of its ids is a target exactly once.

    A document longer than the context is cut into windows; every window but the first begins
    with the last id of the one before, as lm-eval's `loglikelihood_rolling` does.
    """
    windows: list[tuple[list[int], list[float]]] = []
    for ids in documents:
        stored = [end_of_text, *ids]
        for start in range(0, len(ids), context):
            piece = stored[start : start + context + 1]
            windows.append((piece, [1.0] * len(piece)))
    for first in range(0, len(windows), rows):
        yield pad_rows(windows[first : first + rows], end_of_text, None)
