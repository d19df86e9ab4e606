"""Rotary positions, attention inside documents, and the key/value cache of generation.

It has no weights; the projections are `model.transformer`'s, sampling is `generate`'s.

B rows, T tokens of a row, S new tokens, L cached positions, R cache rows, H query heads,
N key/value heads, G = H / N, K width of a head.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask

from penjing.config.model import ModelShape
from penjing.model.causal import causal_attention, causal_blocks

Rotation = tuple[Tensor, Tensor]
"""Cosines and signed sines, each (B, T, 1, K)."""

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries (B, T, H, K), keys and values (B, T, N, K) to (B, T, H, K)."""


class Attention(Protocol):
    """What one forward pass attends to, made once; each layer asks for its own."""

    def at(self, layer: int) -> Attend: ...


def rotation(positions_BT: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> Rotation:
    """The angles of RoPE in Hugging Face's half layout, computed in float32.

    The first half of the sines is negated, so that `rotate` needs no negation.
    Source: arXiv:2104.09864, equation 34.
    """
    exponents = torch.arange(0, head_dim, 2, device=positions_BT.device).float() / head_dim
    angles = positions_BT[:, :, None, None].float() * theta**-exponents
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), -1).to(dtype), torch.cat((-sin, sin), -1).to(dtype)


def rotate(x_BTHK: Tensor, angles: Rotation) -> Tensor:
    # As halves that change places: `roll` over the last dimension is compiled to scalar code.
    halves, cos, sin = (x.reshape(*x.shape[:-1], 2, -1) for x in (x_BTHK, *angles))
    return (halves * cos + halves.flip(-2) * sin).flatten(-2)


def document_starts(document_ids_BT: Tensor) -> Tensor:
    """(B, T) int64: where in its row the run of equal ids that holds each token begins."""
    index_T = torch.arange(document_ids_BT.shape[1], device=document_ids_BT.device)
    begins = torch.ones_like(document_ids_BT, dtype=torch.bool)
    begins[:, 1:] = document_ids_BT[:, 1:] != document_ids_BT[:, :-1]
    return torch.where(begins, index_T, 0).cummax(1).values


def additive_mask(first_BS: Tensor, last_BS: Tensor, keys: int, dtype: torch.dtype) -> Tensor:
    """(B, 1, S, keys): 0 where first <= key <= last, else -inf, whose softmax is exactly 0."""
    key_L = torch.arange(keys, device=first_BS.device)
    seen = (key_L >= first_BS[:, :, None]) & (key_L <= last_BS[:, :, None])
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, float("-inf"))[:, None]


@dataclass(frozen=True)
class DocumentAttention:
    """Causal attention inside each document, made once a forward.

    `positions`: (B, T) int64, from 0 in every document; `starts`: (B, T) int64, where in its row
    each token's document begins; `blocks`: the same for compiled code on an accelerator.
    """

    positions: Tensor
    starts: Tensor
    blocks: BlockMask | None = None

    @classmethod
    def of(
        cls, tokens_BT: Tensor, document_ids_BT: Tensor | None, *, compiled: bool = False
    ) -> Self:
        """Without ids each row is one document; `compiled`: whether compiled code will ask."""
        index_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        starts_BT = torch.zeros_like(tokens_BT)
        if document_ids_BT is not None:
            starts_BT = document_starts(document_ids_BT)
        in_blocks = compiled and tokens_BT.device.type != "cpu"
        return cls(index_T - starts_BT, starts_BT, causal_blocks(starts_BT) if in_blocks else None)

    def at(self, layer: int) -> Attend:
        del layer
        return self

    def __call__(self, q_BTHK: Tensor, k_BTNK: Tensor, v_BTNK: Tensor) -> Tensor:
        """(B, T, H, K)."""
        return causal_attention(q_BTHK, k_BTNK, v_BTNK, self.starts, self.blocks)


@dataclass(frozen=True)
class KeyValueCache:
    """Keys and values of R independent sequences; setting `lengths[row] = 0` empties a row.

    `keys` and `values`: a tensor (R, N, L, K) a layer; `lengths`: (R,) int64.
    """

    keys: list[Tensor]
    values: list[Tensor]
    lengths: Tensor

    @classmethod
    def empty(
        cls,
        shape: ModelShape,
        rows: int,
        length: int,
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> Self:
        # Zeros, not garbage: a masked key weighs exactly 0, but 0 x NaN is NaN.
        size = (rows, shape.num_key_value_heads, length, shape.head_dim)
        layers = range(shape.num_hidden_layers)
        return cls(
            keys=[torch.zeros(size, device=device, dtype=dtype) for _ in layers],
            values=[torch.zeros(size, device=device, dtype=dtype) for _ in layers],
            lengths=torch.zeros(rows, device=device, dtype=torch.int64),
        )


@dataclass(frozen=True)
class CachedAttention:
    """Attention of new tokens to their row's cache and themselves, made once an extension.

    `rows`: (B,), `positions`: (B, S), both int64; `mask`: (B, 1, S, L).
    """

    cache: KeyValueCache
    rows: Tensor
    positions: Tensor
    neighbours: slice | None
    mask: Tensor

    @classmethod
    def of(
        cls, cache: KeyValueCache, rows_B: Tensor, positions_BS: Tensor, dtype: torch.dtype
    ) -> Self:
        """Raises ValueError if a row would outgrow the cache."""
        longest = int(positions_BS.max()) + 1
        if longest > cache.keys[0].shape[2]:
            raise ValueError(f"{longest} positions do not fit a cache of {cache.keys[0].shape[2]}")
        mask = additive_mask(torch.zeros_like(positions_BS), positions_BS, longest, dtype)
        return cls(cache, rows_B, positions_BS, _neighbours(rows_B), mask)

    def at(self, layer: int) -> Attend:
        return partial(self._attend, layer)

    def _attend(self, layer: int, q_BSHK: Tensor, k_BSNK: Tensor, v_BSNK: Tensor) -> Tensor:
        """(B, S, H, K); stores the keys and values at their positions first."""
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys[self.rows[:, None], :, self.positions] = k_BSNK.to(keys.dtype)
        values[self.rows[:, None], :, self.positions] = v_BSNK.to(values.dtype)
        longest = self.mask.shape[-1]
        out_BHSK = functional.scaled_dot_product_attention(
            q_BSHK.transpose(1, 2),
            self._read(keys[:, :, :longest]),
            self._read(values[:, :, :longest]),
            self.mask,
            enable_gqa=q_BSHK.shape[2] != k_BSNK.shape[2],
        )
        return out_BHSK.transpose(1, 2)

    def _read(self, cached_RNLK: Tensor) -> Tensor:
        # Neighbouring rows are read without a copy; index_select is 5x quicker than indexing.
        if self.neighbours is not None:
            return cached_RNLK[self.neighbours]
        return cached_RNLK.index_select(0, self.rows)


def _neighbours(rows_B: Tensor) -> slice | None:
    rows = rows_B.tolist()
    span = slice(rows[0], rows[0] + len(rows))
    return span if rows == list(range(span.start, span.stop)) else None
