"""The two operations whose backward pass is written by hand, because eager torch is slow there.

Measured on two CPU cores in docs/notebook.md. Elsewhere than on a CPU torch's own fused kernels
are taken; tests hold both against each other. No weights and no masks are made here.

B rows, S queries, L keys (of the same tokens where S = L), H query heads, N key/value heads,
G = H / N, K width of a head, Q queries of one block.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

BLOCK = 64
"""Queries of one block: 64 beat 32, 128 and 256 at 256 tokens a row."""


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Scale x to unit mean square over its last dimension, times weight, in x's dtype.

    Statistics are float32 or better. Source: arXiv:1910.07467, equation 4.
    """
    if x.device.type == "cpu":
        apply: Any = _RmsNorm.apply
        out: Tensor = apply(x, weight, eps)
        return out
    return functional.rms_norm(x, weight.shape, weight.to(x.dtype), eps)


def causal_attention(q_BHSK: Tensor, k_BNSK: Tensor, v_BNSK: Tensor, mask_B1SS: Tensor) -> Tensor:
    """(B, H, S, K); the mask is additive and must be -inf above its diagonal.

    On a CPU a block of queries multiplies only the keys up to its end.
    """
    if q_BHSK.device.type == "cpu":
        apply: Any = _BlockCausalAttention.apply
        out: Tensor = apply(q_BHSK, k_BNSK, v_BNSK, mask_B1SS)
        return out
    return functional.scaled_dot_product_attention(
        q_BHSK, k_BNSK, v_BNSK, mask_B1SS, enable_gqa=q_BHSK.shape[1] != k_BNSK.shape[1]
    )


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float() if x.dtype == torch.bfloat16 else x
        scale = torch.linalg.vecdot(wide, wide).div_(x.shape[-1]).add_(eps).rsqrt_()[..., None]
        normal = wide * scale
        ctx.save_for_backward(normal, scale, weight)
        out: Tensor = (normal * weight).to(x.dtype)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        normal, scale, weight = ctx.saved_tensors
        grad_weight = (grad * normal).flatten(0, -2).sum(0)
        grad_normal = grad * weight
        along = torch.linalg.vecdot(grad_normal, normal).div_(normal.shape[-1])[..., None]
        grad_x = grad_normal.addcmul_(normal, along, value=-1).mul_(scale)
        return grad_x.to(grad.dtype), grad_weight, None


class _BlockCausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q_BHSK: Tensor, k_BNSK: Tensor, v_BNSK: Tensor, mask_B1SS: Tensor
    ) -> Tensor:
        rows, kv_heads, tokens, width = k_BNSK.shape
        k, v = (x.reshape(rows * kv_heads, tokens, width) for x in (k_BNSK, v_BNSK))
        q = _grouped(q_BHSK * width**-0.5, kv_heads)
        out = torch.empty_like(q)
        weights = []
        for start in range(0, tokens, BLOCK):
            stop = min(start + BLOCK, tokens)
            scores = torch.bmm(_block(q, start, stop), k[:, :stop].mT)
            by_head = scores.view(rows, -1, stop - start, stop)
            by_head += mask_B1SS[:, :, start:stop, :stop]
            weight = _softmax(scores)
            part = out[:, :, start:stop]
            part.copy_(torch.bmm(weight, v[:, :stop]).view_as(part))
            weights.append(weight)
        ctx.save_for_backward(q, k, v, out, *weights)
        return out.view(q_BHSK.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BHSK: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, out, *weights = ctx.saved_tensors
        rows, _, tokens, width = grad_BHSK.shape
        grad = _grouped(grad_BHSK, k.shape[0] // rows)
        inner = torch.linalg.vecdot(grad, out)[..., None]
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for weight, start in zip(weights, range(0, tokens, BLOCK), strict=True):
            stop = min(start + BLOCK, tokens)
            grad_block = _block(grad, start, stop)
            grad_v[:, :stop] += torch.bmm(weight.mT, grad_block)
            grad_scores = torch.bmm(grad_block, v[:, :stop].mT)
            grad_scores.sub_(_block(inner, start, stop)).mul_(weight)
            part = grad_q[:, :, start:stop]
            part.copy_(torch.bmm(grad_scores, k[:, :stop]).view_as(part))
            grad_k[:, :stop] += torch.bmm(grad_scores.mT, _block(q, start, stop))
        kv_shape = (rows, -1, tokens, width)
        return (
            grad_q.view(grad_BHSK.shape).mul_(width**-0.5),
            grad_k.view(kv_shape),
            grad_v.view(kv_shape),
            None,
        )


def _grouped(x_BHSK: Tensor, kv_heads: int) -> Tensor:
    """(B N, G, S, K): the query heads that share one key/value head together."""
    rows, heads, tokens, width = x_BHSK.shape
    return x_BHSK.reshape(rows * kv_heads, heads // kv_heads, tokens, width)


def _block(x: Tensor, start: int, stop: int) -> Tensor:
    """(B N, G Q, K) of (B N, G, S, K)."""
    return x[:, :, start:stop].flatten(1, 2)


def _softmax(scores: Tensor) -> Tensor:
    if scores.dtype == torch.bfloat16:
        return scores.softmax(-1, dtype=torch.float32).to(scores.dtype)
    return scores.softmax(-1)
