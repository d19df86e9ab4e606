"""The operations whose backward pass is written by hand, because torch is slow there on a CPU.

Measured on two CPU cores in docs/notebook.md. Elsewhere than on a CPU torch's own fused attention
and norm are taken; tests hold both against each other. No weights are made here.

B rows, S tokens, H query heads, N key/value heads, G = H / N, K width of a head, Q queries of one
block, L keys that a block can see, P positions, D hidden size, V vocabulary.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

BLOCKS = (64, 128)
"""Queries of one block, in rows below and from `LONG_ROW` on: at 256 tokens a row 64 beat 32, 128
and 256, at 512 tokens 128 beat 64 by 6 %.
"""
LONG_ROW = 512

CHUNK_LOGITS = 2**22
"""Logits that exist at a time in the head's loss: 16 MiB of float32 stay in a CPU's cache."""


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Scale x to unit mean square over its last dimension, times weight, in x's dtype.

    Statistics are float32 or better. Source: arXiv:1910.07467, equation 4.
    """
    # A compiler fuses the plain form with what is around it.
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        apply: Any = _RmsNorm.apply
        out: Tensor = apply(x, weight, eps)
        return out
    wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    return functional.rms_norm(wide, weight.shape, weight.to(wide.dtype), eps).to(x.dtype)


def causal_attention(q_BHSK: Tensor, k_BNSK: Tensor, v_BNSK: Tensor, starts_BS: Tensor) -> Tensor:
    """(B, H, S, K): each token sees the tokens from `starts_BS`, where its document begins, to it.

    On a CPU a block of queries multiplies only the keys that one of its rows can see. A compiler
    takes it as one operation: unrolled into its blocks it would be compiled for minutes.
    """
    if q_BHSK.device.type == "cpu":
        out: Tensor = _block_causal_attention(q_BHSK, k_BNSK, v_BNSK, starts_BS)[0]
        return out
    index_S = torch.arange(starts_BS.shape[1], device=starts_BS.device)
    seen_BSS = (index_S >= starts_BS[:, :, None]) & (index_S <= index_S[:, None])
    return functional.scaled_dot_product_attention(
        q_BHSK, k_BNSK, v_BNSK, seen_BSS[:, None], enable_gqa=q_BHSK.shape[1] != k_BNSK.shape[1]
    )


def weighted_loss(
    hidden_PD: Tensor,
    head_VD: Tensor,
    targets_P: Tensor,
    weights_P: Tensor,
    softcap: float | None = None,
    chunk_logits: int = CHUNK_LOGITS,
) -> Tensor:
    """The sum of weights x -ln p(target), a float32 scalar; logits never exist whole.

    Both gradients are made in the forward pass, chunk by chunk, while the logits are at hand.
    Source: Liger (arXiv:2410.10989, section 3.2), here with float32 logits and weights.
    """
    apply: Any = _WeightedLoss.apply
    out: Tensor = apply(hidden_PD, head_VD, targets_P, weights_P, softcap, chunk_logits)
    return out


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        scale = torch.linalg.vecdot(wide, wide).div_(x.shape[-1]).add_(eps).rsqrt_()[..., None]
        normal = wide * scale
        ctx.save_for_backward(normal, scale, weight)
        out: Tensor = (normal * weight).to(x.dtype)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        normal, scale, weight = ctx.saved_tensors
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = (grad * normal).flatten(0, -2).sum(0)
        grad_normal = grad * weight
        along = torch.linalg.vecdot(grad_normal, normal).div_(normal.shape[-1])[..., None]
        grad_x = grad_normal.addcmul_(normal, along, value=-1).mul_(scale)
        return grad_x.to(grad.dtype), grad_weight, None


class _WeightedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_PD: Tensor,
        head_VD: Tensor,
        targets_P: Tensor,
        weights_P: Tensor,
        softcap: float | None,
        chunk_logits: int,
    ) -> Tensor:
        head = head_VD.to(hidden_PD.dtype)
        grad_hidden = torch.empty_like(hidden_PD)
        grad_head = torch.zeros_like(head_VD)
        total = weights_P.new_zeros((), dtype=torch.promote_types(head_VD.dtype, torch.float32))
        size = max(1, chunk_logits // len(head))
        for start in range(0, len(hidden_PD), size):
            part = slice(start, start + size)
            loss, grad_logits = _chunk_loss(
                hidden_PD[part] @ head.T, targets_P[part, None], weights_P[part, None], softcap
            )
            total += loss
            grad_logits = grad_logits.to(head.dtype)
            torch.mm(grad_logits, head, out=grad_hidden[part])
            if head.dtype == grad_head.dtype:
                grad_head.addmm_(grad_logits.T, hidden_PD[part])
            else:
                grad_head += grad_logits.T @ hidden_PD[part]
        ctx.save_for_backward(grad_hidden, grad_head)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_head = ctx.saved_tensors
        return grad_hidden * grad.to(grad_hidden.dtype), grad_head * grad, None, None, None, None


def _chunk_loss(
    logits: Tensor, targets: Tensor, weights: Tensor, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """The weighted loss of some positions and its gradient by their logits before the cap."""
    logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    bounded = logits if softcap is None else torch.tanh(logits / softcap) * softcap
    logprobs = bounded.log_softmax(-1)
    loss = -(logprobs.gather(1, targets) * weights).sum()
    grad = logprobs.exp_().mul_(weights).scatter_add_(1, targets, -weights.to(logprobs.dtype))
    if softcap is not None:
        grad.mul_(1 - (bounded / softcap).square())
    return loss, grad


@torch.library.custom_op("penjing::block_causal_attention", mutates_args=())
def _block_causal_attention(
    q_BHSK: Tensor, k_BNSK: Tensor, v_BNSK: Tensor, starts_BS: Tensor
) -> tuple[Tensor, Tensor]:
    """The output (B, H, S, K), and all attention weights for the backward pass."""
    rows, kv_heads, tokens, width = k_BNSK.shape
    k, v = (x.reshape(rows * kv_heads, tokens, width) for x in (k_BNSK, v_BNSK))
    q = _grouped(q_BHSK * width**-0.5, kv_heads)
    out = torch.empty_like(q)
    weights = q.new_empty(_weights_size(q_BHSK))
    for (first, start, stop, hidden), weight in _blocks(starts_BS, weights, q):
        scores = torch.bmm(_block(q, start, stop), k[:, first:stop].mT)
        by_head = scores.view(rows, -1, stop - start, stop - first)
        by_head[..., -hidden.shape[-1] :].masked_fill_(hidden, float("-inf"))
        _softmax(scores, weight)
        part = out[:, :, start:stop]
        part.copy_(torch.bmm(weight, v[:, first:stop]).view_as(part))
    return out.view(q_BHSK.shape), weights


@torch.library.custom_op("penjing::block_causal_attention_backward", mutates_args=())
def _block_causal_attention_backward(
    grad_BHSK: Tensor,
    inputs: list[Tensor],
    out_BHSK: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v; `inputs` are those of the forward pass."""
    q_BHSK, k_BNSK, v_BNSK, starts_BS = inputs
    rows, kv_heads, tokens, width = k_BNSK.shape
    k, v = (x.reshape(rows * kv_heads, tokens, width) for x in (k_BNSK, v_BNSK))
    q = _grouped(q_BHSK * width**-0.5, kv_heads)
    grad = _grouped(grad_BHSK, kv_heads)
    inner = torch.linalg.vecdot(grad, _grouped(out_BHSK, kv_heads))[..., None]
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for (first, start, stop, _), weight in _blocks(starts_BS, weights, q):
        grad_block = _block(grad, start, stop)
        grad_v[:, first:stop] += torch.bmm(weight.mT, grad_block)
        grad_scores = torch.bmm(grad_block, v[:, first:stop].mT)
        grad_scores.sub_(_block(inner, start, stop)).mul_(weight)
        part = grad_q[:, :, start:stop]
        part.copy_(torch.bmm(grad_scores, k[:, first:stop]).view_as(part))
        grad_k[:, first:stop] += torch.bmm(grad_scores.mT, _block(q, start, stop))
    shape = (rows, kv_heads, tokens, width)
    grad_q = grad_q.view(q_BHSK.shape).mul_(width**-0.5)
    return grad_q, grad_k.view(shape), grad_v.view(shape)


@_block_causal_attention.register_fake
def _(q_BHSK: Tensor, k_BNSK: Tensor, v_BNSK: Tensor, starts_BS: Tensor) -> tuple[Tensor, Tensor]:
    del k_BNSK, v_BNSK, starts_BS
    return q_BHSK.new_empty(q_BHSK.shape), q_BHSK.new_empty(_weights_size(q_BHSK))


@_block_causal_attention_backward.register_fake
def _(
    grad_BHSK: Tensor, inputs: list[Tensor], out_BHSK: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    del grad_BHSK, out_BHSK, weights
    q_BHSK, k_BNSK, v_BNSK, _ = inputs
    return (
        q_BHSK.new_empty(q_BHSK.shape),
        k_BNSK.new_empty(k_BNSK.shape),
        v_BNSK.new_empty(v_BNSK.shape),
    )


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, out, weights = ctx.saved_tensors
    return *_block_causal_attention_backward(grad, inputs, out, weights), None


_block_causal_attention.register_autograd(_differentiate, setup_context=_keep)


def _weights_size(q_BHSK: Tensor) -> int:
    """Attention weights of all blocks, if every query saw its whole row."""
    rows, heads, tokens, _ = q_BHSK.shape
    return rows * heads * sum((stop - start) * stop for start, stop in _edges(tokens))


def _edges(tokens: int) -> list[tuple[int, int]]:
    """First place of each block, and the one behind it."""
    size = BLOCKS[tokens >= LONG_ROW]
    return [(start, min(start + size, tokens)) for start in range(0, tokens, size)]


def _blocks(
    starts_BS: Tensor, weights: Tensor, q: Tensor
) -> Iterator[tuple[tuple[int, int, int, Tensor], Tensor]]:
    """Of each block of queries: the first key that one of them sees, its own first and last place,
    (B or 1, 1, Q, columns) which of its last columns are hidden from which query; and its part of
    the weights, (B N, G Q, L).
    """
    tokens, done = starts_BS.shape[1], 0
    index_S = torch.arange(tokens, device=starts_BS.device)
    for start, stop in _edges(tokens):
        starts_BQ = starts_BS[:, start:stop]
        first, last = int(starts_BQ.min()), int(starts_BQ.max())
        size = (q.shape[0], q.shape[1] * (stop - start), stop - first)
        number = size[0] * size[1] * size[2]
        weight = weights[done : done + number].view(size)
        done += number
        later = index_S[start:stop] > index_S[start:stop, None]
        hidden = later[None, None]
        if first != last:
            hidden = (index_S[first:stop] < starts_BQ[:, :, None])[:, None]
            hidden[..., start - first :] |= later
        yield (first, start, stop, hidden), weight


def _grouped(x_BHSK: Tensor, kv_heads: int) -> Tensor:
    """(B N, G, S, K): the query heads that share one key/value head together."""
    rows, heads, tokens, width = x_BHSK.shape
    return x_BHSK.reshape(rows * kv_heads, heads // kv_heads, tokens, width)


def _block(x: Tensor, start: int, stop: int) -> Tensor:
    """(B N, G Q, K) of (B N, G, S, K)."""
    return x[:, :, start:stop].flatten(1, 2)


def _softmax(scores: Tensor, out: Tensor) -> None:
    if scores.dtype == torch.bfloat16:
        out.copy_(scores.softmax(-1, dtype=torch.float32))
    else:
        torch.softmax(scores, -1, out=out)
