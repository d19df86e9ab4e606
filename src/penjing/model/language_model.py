"""What every model class is to the rest of Penjing: ids to logits, whole rows or through a cache.

The classes are `model.transformer` (Qwen3, portable), `model.gpt2` and `model.racing`; which one a
shape asks for is decided in `model.build`. Nothing is initialized, saved or sampled here.

B rows, T tokens of a row, S new tokens, D hidden size, V vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from penjing.config.model import ModelShape
from penjing.model.attention import Attention, CachedAttention, DocumentAttention, KeyValueCache
from penjing.model.kernels import ChunkLoss, chunk_loss, rms_norm


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The product x @ weight.T (+ bias) in x's dtype; masters stay float32."""
    narrow = None if bias is None else bias.to(x.dtype)
    return functional.linear(x, weight.to(x.dtype), narrow)


class Matrix(nn.Module):
    """A weight (outputs, inputs) without bias, zero until initialized or loaded."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight)


class RMSNorm(nn.Module):
    """The scales of one `rms_norm`."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class LanguageModel(nn.Module, ABC):
    """A causal language model; parameters float32, matrix products in `dtype`.

    `softcap`: logits are bounded by it, or None. `compiled_block`: how one block is run while
    gradients are recorded, if it was compiled; `chunk_loss`: what the head's loss makes of logits,
    compiled or not; `checkpoints_blocks`: whether the backward pass makes a block's activations
    again instead of keeping them (arXiv:1604.06174).
    """

    softcap: float | None = None

    def __init__(self, shape: ModelShape, dtype: torch.dtype) -> None:
        super().__init__()
        self.shape = shape
        self.dtype = dtype
        self.checkpoints_blocks = False
        self.compiled_block: Callable[..., Tensor] | None = None
        self.chunk_loss: ChunkLoss = chunk_loss

    @property
    @abstractmethod
    def head_weight(self) -> Tensor:
        """(V, D): the head, which is the embedding table when tied."""

    @abstractmethod
    def blocks(self) -> Iterator[nn.Module]:
        """The repeated layers, first to last."""

    @abstractmethod
    def states(self, tokens_BT: Tensor, positions_BT: Tensor, attend: Attention) -> Tensor:
        """(B, T, D): the input of the head."""

    @property
    def compute_dtype(self) -> torch.dtype:
        """`dtype`, except that a model turned `.double()` computes in float64."""
        masters = self.head_weight.dtype
        return self.dtype if masters == torch.float32 else masters

    def begin_step(self, step: int) -> None:
        """Told the number of each training step; for a model that draws at random."""

    def hidden(self, tokens_BT: Tensor, document_ids_BT: Tensor | None = None) -> Tensor:
        """(B, T, D) before the head; without ids each row is one document."""
        compiled = self.compiled_block is not None and torch.is_grad_enabled()
        attend = DocumentAttention.of(tokens_BT, document_ids_BT, compiled=compiled)
        return self.states(tokens_BT, attend.positions, attend)

    def forward(self, tokens_BT: Tensor, document_ids_BT: Tensor | None = None) -> Tensor:
        """(B, T, V) float32 logits; `model.likelihood` avoids making them whole."""
        return self.logits(self.hidden(tokens_BT, document_ids_BT))

    @torch.no_grad()
    def extend(
        self, cache: KeyValueCache, rows_B: Tensor, tokens_BS: Tensor, counts_B: Tensor
    ) -> Tensor:
        """Feed `counts_B[i]` >= 1 tokens of the right-padded `tokens_BS[i]` to a cache row.

        Returns:
            (B, V) float32 logits after each row's last token; `cache.lengths` has advanced.
        """
        # A pad repeats its row's last real token at the same position: what it stores is the same,
        # and the last column is every row's last real token.
        step_BS = torch.arange(tokens_BS.shape[1], device=tokens_BS.device).minimum(
            counts_B[:, None] - 1
        )
        positions_BS = cache.lengths[rows_B][:, None] + step_BS
        attend = CachedAttention.of(cache, rows_B, positions_BS, self.compute_dtype)
        hidden_BSD = self.states(tokens_BS.gather(1, step_BS), positions_BS, attend)
        cache.lengths[rows_B] += counts_B
        return self.logits(hidden_BSD[:, -1])

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, V), at least float32, of the hidden states (…, D)."""
        out = linear(hidden, self.head_weight)
        out = out.float() if out.dtype in (torch.bfloat16, torch.float16) else out
        return out if self.softcap is None else self.softcap * torch.tanh(out / self.softcap)

    def run(self, block: nn.Module, *inputs: Any) -> Tensor:
        """One block, as this model runs its blocks now."""
        if not torch.is_grad_enabled():
            out: Tensor = block(*inputs)
            return out
        call: Callable[..., Tensor] = block
        if self.compiled_block is not None:
            call = partial(self.compiled_block, block)
        if self.checkpoints_blocks:
            again: Tensor = checkpoint(call, *inputs, use_reentrant=False, preserve_rng_state=False)
            return again
        return call(*inputs)
