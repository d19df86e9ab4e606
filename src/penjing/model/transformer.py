"""The Qwen3 transformer: ids to logits, over whole rows or through a key/value cache.

Parameter names are Hugging Face's Qwen3ForCausalLM. It does not initialize, save or sample; no
loss is computed here. The RMS-normalized embedding of performance.md §3 is left out: this is plain
Qwen3, so that what is trained is what is stored.

B rows, T tokens of a row, S new tokens, D hidden size, F intermediate size, H query heads,
N key/value heads, K width of a head, V vocabulary.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.config.schema import ModelShape
from penjing.model.attention import (
    CachedAttention,
    DocumentAttention,
    KeyValueCache,
    Rotation,
    rotate,
    rotation,
)
from penjing.model.kernels import rms_norm

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """The product x @ weight.T in x's dtype; masters stay float32."""
    return functional.linear(x, weight.to(x.dtype))


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


class SelfAttention(nn.Module):
    """Projections around `attend`, with normalized queries and keys."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        hidden, width = shape.hidden_size, shape.head_dim
        self.head_dim = width
        self.q_proj = Matrix(shape.num_attention_heads * width, hidden)
        self.k_proj = Matrix(shape.num_key_value_heads * width, hidden)
        self.v_proj = Matrix(shape.num_key_value_heads * width, hidden)
        self.o_proj = Matrix(hidden, shape.num_attention_heads * width)
        self.q_norm = RMSNorm(width, shape.rms_norm_eps)
        self.k_norm = RMSNorm(width, shape.rms_norm_eps)

    def forward(self, x_BTD: Tensor, layer: int, angles: Rotation, attend: Attend) -> Tensor:
        heads = (*x_BTD.shape[:2], -1, self.head_dim)
        q_BTHK = rotate(self.q_norm(self.q_proj(x_BTD).view(heads)), angles)
        k_BTNK = rotate(self.k_norm(self.k_proj(x_BTD).view(heads)), angles)
        out_BTHK = attend(layer, q_BTHK, k_BTNK, self.v_proj(x_BTD).view(heads))
        out: Tensor = self.o_proj(out_BTHK.flatten(2))
        return out


class Mlp(nn.Module):
    """SwiGLU. Source: arXiv:2002.05202, equation 6."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gate_proj = Matrix(shape.intermediate_size, shape.hidden_size)
        self.up_proj = Matrix(shape.intermediate_size, shape.hidden_size)
        self.down_proj = Matrix(shape.hidden_size, shape.intermediate_size)

    def forward(self, x_BTD: Tensor) -> Tensor:
        out: Tensor = self.down_proj(functional.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))
        return out


class Block(nn.Module):
    """One pre-normalized layer."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.self_attn = SelfAttention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.mlp = Mlp(shape)

    def forward(self, x_BTD: Tensor, layer: int, angles: Rotation, attend: Attend) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), layer, angles, attend)
        out: Tensor = x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))
        return out


class Body(nn.Module):
    """Everything below the head."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.embed_tokens = Matrix(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.num_hidden_layers))
        self.norm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)


class Transformer(nn.Module):
    """A Qwen3 causal language model; parameters float32, matrix products in `dtype`."""

    def __init__(self, shape: ModelShape, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.shape = shape
        self.dtype = dtype
        self.model = Body(shape)
        if not shape.tie_word_embeddings:
            self.lm_head = Matrix(shape.vocab_size, shape.hidden_size)

    @property
    def head_weight(self) -> Tensor:
        """(V, D): the head, which is the embedding table when tied."""
        return (self.model.embed_tokens if self.shape.tie_word_embeddings else self.lm_head).weight

    @property
    def compute_dtype(self) -> torch.dtype:
        """`dtype`, except that a model turned `.double()` computes in float64."""
        masters = self.model.norm.weight.dtype
        return self.dtype if masters == torch.float32 else masters

    def hidden(self, tokens_BT: Tensor, document_ids_BT: Tensor | None = None) -> Tensor:
        """(B, T, D) before the head; without ids each row is one document."""
        ids_BT = torch.zeros_like(tokens_BT) if document_ids_BT is None else document_ids_BT
        attend = DocumentAttention.of(ids_BT, self.compute_dtype)
        return self._blocks(tokens_BT, attend.positions, attend)

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
        hidden_BSD = self._blocks(tokens_BS.gather(1, step_BS), positions_BS, attend)
        cache.lengths[rows_B] += counts_B
        return self.logits(hidden_BSD[:, -1])

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, V), at least float32, of the hidden states (…, D)."""
        out = linear(hidden, self.head_weight)
        return out.float() if out.dtype == torch.bfloat16 else out

    def _blocks(self, tokens_BT: Tensor, positions_BT: Tensor, attend: Attend) -> Tensor:
        dtype = self.compute_dtype
        angles = rotation(positions_BT, self.shape.head_dim, self.shape.rope_theta, dtype)
        x_BTD = functional.embedding(tokens_BT, self.model.embed_tokens.weight).to(dtype)
        for layer, block in enumerate(self.model.layers):
            x_BTD = block(x_BTD, layer, angles, attend)
        out: Tensor = self.model.norm(x_BTD)
        return out
