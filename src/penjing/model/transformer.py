"""The Qwen3 transformer, the portable default: its folders load in any runtime that knows Qwen3.

Parameter names are Hugging Face's Qwen3ForCausalLM. The RMS-normalized embedding of performance.md
§3 is left out: this is plain Qwen3, so that what is trained is what is stored.

B rows, T tokens of a row, D hidden size, H query heads, N key/value heads, K width of a head.
"""

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.config.model import ModelShape
from penjing.model.attention import Attend, Attention, Rotation, rotate, rotation
from penjing.model.kernels import swiglu
from penjing.model.language_model import LanguageModel, Matrix, RMSNorm


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

    def forward(self, x_BTD: Tensor, angles: Rotation, attend: Attend) -> Tensor:
        heads = (*x_BTD.shape[:2], -1, self.head_dim)
        q_BTHK = rotate(self.q_norm(self.q_proj(x_BTD).view(heads)), angles)
        k_BTNK = rotate(self.k_norm(self.k_proj(x_BTD).view(heads)), angles)
        out_BTHK = attend(q_BTHK, k_BTNK, self.v_proj(x_BTD).view(heads))
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
        out: Tensor = self.down_proj(swiglu(self.gate_proj(x_BTD), self.up_proj(x_BTD)))
        return out


class Block(nn.Module):
    """One pre-normalized layer."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.self_attn = SelfAttention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.mlp = Mlp(shape)

    def forward(self, x_BTD: Tensor, angles: Rotation, attend: Attend) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), angles, attend)
        out: Tensor = x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))
        return out


class Body(nn.Module):
    """Everything below the head."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.embed_tokens = Matrix(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.num_hidden_layers))
        self.norm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)


@final
class Transformer(LanguageModel):
    """A Qwen3 causal language model."""

    def __init__(self, shape: ModelShape, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(shape, dtype)
        self.model = Body(shape)
        if not shape.tie_word_embeddings:
            self.lm_head = Matrix(shape.vocab_size, shape.hidden_size)

    @property
    def head_weight(self) -> Tensor:
        return (self.model.embed_tokens if self.shape.tie_word_embeddings else self.lm_head).weight

    def blocks(self) -> Iterator[nn.Module]:
        return iter(self.model.layers)

    def states(self, tokens_BT: Tensor, positions_BT: Tensor, attend: Attention) -> Tensor:
        dtype = self.compute_dtype
        angles = rotation(positions_BT, self.shape.head_dim, self.shape.rope_theta, dtype)
        x_BTD = functional.embedding(tokens_BT, self.model.embed_tokens.weight).to(dtype)
        for layer, block in enumerate(self.blocks()):
            x_BTD = self.run(block, x_BTD, angles, attend.at(layer))
        out: Tensor = self.model.norm(x_BTD)
        return out
