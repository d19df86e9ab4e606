"""GPT-2: learned positions, LayerNorm, GELU, biases and dropout, for what others published.

Parameter names are Hugging Face's GPT2LMHeadModel; matrices are kept (outputs, inputs), and
`model.weights` turns them as GPT-2's folders want. Source: the GPT-2 report (Radford et al., 2019).

B rows, T tokens of a row, D hidden size, H heads, K width of a head.
"""

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.config.model import ModelShape
from penjing.model.attention import Attend, Attention
from penjing.model.language_model import LanguageModel, Matrix, linear

_MULTIPLIERS = (0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9, 0x14D049BB133111EB)
"""Odd constants of splitmix64, within int64."""


class Affine(nn.Module):
    """A matrix (outputs, inputs) with bias."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class LayerNorm(nn.Module):
    """Scales and shifts of one layer norm. Source: arXiv:1607.06450."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return functional.layer_norm(x, weight.shape, weight, bias, self.eps)


class Dropout(nn.Module):
    """Drops units by a hash of the row's key, the place and the unit: no random state, and the same
    units whatever microbatch or rank the row comes in.
    """

    def __init__(self, rate: float, site: int) -> None:
        super().__init__()
        self.rate, self.site = rate, site

    def forward(self, x_BTD: Tensor, key_B: Tensor | None) -> Tensor:
        if key_B is None or not self.rate:
            return x_BTD
        places = torch.arange(x_BTD.shape[1] * x_BTD.shape[2], device=x_BTD.device)
        bits = _mixed(_mixed(key_B + self.site)[:, None] + places)
        kept_BTD = ((bits >> 8) & 0xFFFF).view_as(x_BTD) >= int(self.rate * 0x10000)
        return x_BTD * kept_BTD * (1 / (1 - self.rate))


def _mixed(x: Tensor) -> Tensor:
    """int64 to int64, every bit depending on all. Source: splitmix64, doi:10.1145/2714064.2660195,
    with arithmetic shifts.
    """
    x = (x ^ (x >> 30)) * _MULTIPLIERS[1]
    x = (x ^ (x >> 27)) * _MULTIPLIERS[2]
    return x ^ (x >> 31)


class SelfAttention(nn.Module):
    """One projection for queries, keys and values. Attention weights are not dropped: fused
    attention never holds them.
    """

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.head_dim = shape.head_dim
        self.c_attn = Affine(3 * shape.hidden_size, shape.hidden_size)
        self.c_proj = Affine(shape.hidden_size, shape.hidden_size)

    def forward(self, x_BTD: Tensor, attend: Attend) -> Tensor:
        heads = (*x_BTD.shape[:2], -1, self.head_dim)
        q_BTHK, k_BTHK, v_BTHK = (part.view(heads) for part in self.c_attn(x_BTD).chunk(3, dim=-1))
        out: Tensor = self.c_proj(attend(q_BTHK, k_BTHK, v_BTHK).flatten(2))
        return out


class Mlp(nn.Module):
    """Two matrices around the tanh form of GELU. Source: arXiv:1606.08415."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.c_fc = Affine(shape.intermediate_size, shape.hidden_size)
        self.c_proj = Affine(shape.hidden_size, shape.intermediate_size)

    def forward(self, x_BTD: Tensor) -> Tensor:
        out: Tensor = self.c_proj(functional.gelu(self.c_fc(x_BTD), approximate="tanh"))
        return out


class Block(nn.Module):
    """One pre-normalized layer."""

    def __init__(self, shape: ModelShape, layer: int) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(shape.hidden_size, shape.rms_norm_eps)
        self.attn = SelfAttention(shape)
        self.ln_2 = LayerNorm(shape.hidden_size, shape.rms_norm_eps)
        self.mlp = Mlp(shape)
        self.drop_1 = Dropout(shape.dropout, 2 * layer + 1)
        self.drop_2 = Dropout(shape.dropout, 2 * layer + 2)

    def forward(self, x_BTD: Tensor, key_B: Tensor | None, attend: Attend) -> Tensor:
        x_BTD = x_BTD + self.drop_1(self.attn(self.ln_1(x_BTD), attend), key_B)
        out: Tensor = x_BTD + self.drop_2(self.mlp(self.ln_2(x_BTD)), key_B)
        return out


class Body(nn.Module):
    """Everything below the head."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.wte = Matrix(shape.vocab_size, shape.hidden_size)
        self.wpe = Matrix(shape.max_position_embeddings, shape.hidden_size)
        self.drop = Dropout(shape.dropout, 0)
        self.h = nn.ModuleList(Block(shape, n) for n in range(shape.num_hidden_layers))
        self.ln_f = LayerNorm(shape.hidden_size, shape.rms_norm_eps)


@final
class Gpt2(LanguageModel):
    """A GPT-2 language model."""

    def __init__(self, shape: ModelShape, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(shape, dtype)
        self.transformer = Body(shape)
        self._step = 0
        if not shape.tie_word_embeddings:
            self.lm_head = Matrix(shape.vocab_size, shape.hidden_size)

    @property
    def head_weight(self) -> Tensor:
        return (self.transformer.wte if self.shape.tie_word_embeddings else self.lm_head).weight

    def blocks(self) -> Iterator[nn.Module]:
        return iter(self.transformer.h)

    def begin_step(self, step: int) -> None:
        self._step = step

    def states(self, tokens_BT: Tensor, positions_BT: Tensor, attend: Attention) -> Tensor:
        key_B = self._keys(tokens_BT)
        x_BTD = functional.embedding(tokens_BT, self.transformer.wte.weight)
        x_BTD = x_BTD + functional.embedding(positions_BT, self.transformer.wpe.weight)
        x_BTD = self.transformer.drop(x_BTD.to(self.compute_dtype), key_B)
        for layer, block in enumerate(self.blocks()):
            x_BTD = self.run(block, x_BTD, key_B, attend.at(layer))
        out: Tensor = self.transformer.ln_f(x_BTD)
        return out

    def _keys(self, tokens_BT: Tensor) -> Tensor | None:
        """(B,) int64: of each row, by its ids and the step; None where nothing is dropped."""
        if not self.shape.dropout or not torch.is_grad_enabled():
            return None
        places = torch.arange(1, tokens_BT.shape[1] + 1, device=tokens_BT.device)
        hashed_B = _mixed(tokens_BT + _MULTIPLIERS[0] * places).sum(1)
        return _mixed(hashed_B + self._step)
