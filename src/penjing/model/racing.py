"""The racing class, which is also nanochat's shape: ReLU squared, norms without scales, q and k
normalized after rotation, bounded logits, and optionally value embeddings and residual scalars.

It is not portable: no other runtime knows it, and `config.json` says so. Source: nanochat, of
October 2025 without `value_embeddings` and `residual_scalars`, of 2026 with them (its smear,
backout and windows are left out).

B rows, T tokens of a row, D hidden size, H query heads, N key/value heads, K width of a head.
"""

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.config.model import ModelShape
from penjing.model.attention import Attend, Attention, Rotation, rotate, rotation
from penjing.model.kernels import rms_norm
from penjing.model.language_model import LanguageModel, Matrix, linear
from penjing.model.size import gate_inputs, has_value_embedding


class _Norm(nn.Module):
    """RMS norm whose scales are fixed at 1."""

    ones: Tensor

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.register_buffer("ones", torch.ones(width), persistent=False)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.ones, self.eps)


class SelfAttention(nn.Module):
    """Projections around `attend`. Value embeddings: arXiv:2410.17897, gated as in nanochat."""

    def __init__(self, shape: ModelShape, layer: int) -> None:
        super().__init__()
        hidden, width = shape.hidden_size, shape.head_dim
        self.head_dim = width
        self.c_q = Matrix(shape.num_attention_heads * width, hidden)
        self.c_k = Matrix(shape.num_key_value_heads * width, hidden)
        self.c_v = Matrix(shape.num_key_value_heads * width, hidden)
        self.c_proj = Matrix(hidden, shape.num_attention_heads * width)
        self.norm = _Norm(width, shape.rms_norm_eps)
        if has_value_embedding(shape, layer):
            self.value_gate = Matrix(shape.num_key_value_heads, gate_inputs(shape))

    def forward(
        self, x_BTD: Tensor, value_BTE: Tensor | None, angles: Rotation, attend: Attend
    ) -> Tensor:
        heads = (*x_BTD.shape[:2], -1, self.head_dim)
        q_BTHK = self.norm(rotate(self.c_q(x_BTD).view(heads), angles))
        k_BTNK = self.norm(rotate(self.c_k(x_BTD).view(heads), angles))
        v_BTNK = self.c_v(x_BTD).view(heads)
        if value_BTE is not None:
            weight = self.value_gate.weight
            gate_BTN = 3 * torch.sigmoid(linear(x_BTD[..., : weight.shape[1]], weight))
            v_BTNK = v_BTNK + gate_BTN[..., None] * value_BTE.view(heads)
        out: Tensor = self.c_proj(attend(q_BTHK, k_BTNK, v_BTNK).flatten(2))
        return out


class Mlp(nn.Module):
    """ReLU squared. Source: arXiv:2109.08668."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.c_fc = Matrix(shape.intermediate_size, shape.hidden_size)
        self.c_proj = Matrix(shape.hidden_size, shape.intermediate_size)

    def forward(self, x_BTD: Tensor) -> Tensor:
        out: Tensor = self.c_proj(functional.relu(self.c_fc(x_BTD)).square())
        return out


class Block(nn.Module):
    """One pre-normalized layer."""

    def __init__(self, shape: ModelShape, layer: int) -> None:
        super().__init__()
        self.norm = _Norm(shape.hidden_size, shape.rms_norm_eps)
        self.attn = SelfAttention(shape, layer)
        self.mlp = Mlp(shape)

    def forward(
        self, x_BTD: Tensor, value_BTE: Tensor | None, angles: Rotation, attend: Attend
    ) -> Tensor:
        x_BTD = x_BTD + self.attn(self.norm(x_BTD), value_BTE, angles, attend)
        out: Tensor = x_BTD + self.mlp(self.norm(x_BTD))
        return out


@final
class Racing(LanguageModel):
    """A model that trains fast and that only Penjing runs."""

    def __init__(self, shape: ModelShape, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(shape, dtype)
        self.softcap = shape.logit_softcap
        layers, values = shape.num_hidden_layers, shape.num_key_value_heads * shape.head_dim
        self.wte = Matrix(shape.vocab_size, shape.hidden_size)
        self.h = nn.ModuleList(Block(shape, layer) for layer in range(layers))
        self.norm = _Norm(shape.hidden_size, shape.rms_norm_eps)
        self.value_embeds = nn.ModuleDict(
            {
                str(layer): Matrix(shape.vocab_size, values)
                for layer in range(layers)
                if has_value_embedding(shape, layer)
            }
        )
        if shape.residual_scalars:
            self.residual_scales = nn.Parameter(torch.ones(layers))
            self.embedding_scales = nn.Parameter(torch.zeros(layers))
        if not shape.tie_word_embeddings:
            self.lm_head = Matrix(shape.vocab_size, shape.hidden_size)

    @property
    def head_weight(self) -> Tensor:
        return (self.wte if self.shape.tie_word_embeddings else self.lm_head).weight

    def blocks(self) -> Iterator[nn.Module]:
        return iter(self.h)

    def states(self, tokens_BT: Tensor, positions_BT: Tensor, attend: Attention) -> Tensor:
        dtype = self.compute_dtype
        angles = rotation(positions_BT, self.shape.head_dim, self.shape.rope_theta, dtype)
        first_BTD = self.norm(functional.embedding(tokens_BT, self.wte.weight).to(dtype))
        x_BTD = first_BTD
        for layer, block in enumerate(self.blocks()):
            if self.shape.residual_scalars:
                kept, again = self.residual_scales[layer], self.embedding_scales[layer]
                x_BTD = kept.to(dtype) * x_BTD + again.to(dtype) * first_BTD
            values = None
            if has_value_embedding(self.shape, layer):
                table = self.value_embeds[str(layer)].weight
                assert isinstance(table, Tensor)
                values = functional.embedding(tokens_BT, table).to(dtype)
            x_BTD = self.run(block, x_BTD, values, angles, attend.at(layer))
        out: Tensor = self.norm(x_BTD)
        return out
