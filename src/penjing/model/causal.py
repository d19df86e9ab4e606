"""Causal attention inside documents with its backward pass: one operation a device and dtype.

On a CPU it goes through our own kernel (native/attention_kernel.hpp) in the dtypes that this has,
and in the others through torch's products of blocks. Elsewhere a
compiled block takes FlexAttention, which skips what no row sees, and an eager one torch's fused
attention with a mask. Measured in docs/notebook.md; tests hold all against each other.

B rows, S tokens, H query heads, N key/value heads, G = H / N, K width of a head, Q queries of one
block, L keys that a block can see.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from penjing.model.kernels import HAS_COMPILED, for_kernel, has_kernels

if HAS_COMPILED:
    from penjing.model import _kernels

BLOCKS = (64, 128)
"""Queries of one block of torch's products, in rows below and from `LONG_ROW` on: at 256 tokens a
row 64 beat 32, 128 and 256, at 512 tokens 128 beat 64 by 6 %.
"""
LONG_ROW = 512


def keeps_weights(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the backward pass finds all attention weights in memory: torch's products of blocks
    keep them, everything else makes them again.
    """
    return device.type == "cpu" and not has_kernels(device, dtype)


def causal_attention(
    q_BSHK: Tensor,
    k_BSNK: Tensor,
    v_BSNK: Tensor,
    starts_BS: Tensor,
    block_mask: BlockMask | None = None,
) -> Tensor:
    """(B, S, H, K): each token sees the tokens from `starts_BS`, where its document begins, to it.

    Keys that no query of a block can see are never multiplied on a CPU. A compiler takes it as one
    operation: unrolled into its blocks it would be compiled for minutes. With a `block_mask`, which
    says the same (`causal_blocks`), FlexAttention is taken: for compiled code only.
    """
    cpu = q_BSHK.device.type == "cpu"
    if cpu and block_mask is None and not keeps_weights(q_BSHK.device, q_BSHK.dtype):
        out: Tensor = _compiled_attention(q_BSHK, k_BSNK, v_BSNK, starts_BS)[0]
        return out
    q_BHSK, k_BNSK, v_BNSK = (x.transpose(1, 2) for x in (q_BSHK, k_BSNK, v_BSNK))
    grouped = q_BHSK.shape[1] != k_BNSK.shape[1]
    if block_mask is not None:
        flex: Any = flex_attention  # its result is typed for all that it can return
        out = flex(q_BHSK, k_BNSK, v_BNSK, block_mask=block_mask, enable_gqa=grouped)
    elif cpu:
        out = _block_causal_attention(q_BHSK, k_BNSK, v_BNSK, starts_BS)[0]
    else:
        index_S = torch.arange(starts_BS.shape[1], device=starts_BS.device)
        seen_BSS = (index_S >= starts_BS[:, :, None]) & (index_S <= index_S[:, None])
        out = functional.scaled_dot_product_attention(
            q_BHSK, k_BNSK, v_BNSK, seen_BSS[:, None], enable_gqa=grouped
        )
    return out.transpose(1, 2)


def causal_blocks(starts_BS: Tensor) -> BlockMask:
    """What FlexAttention computes (arXiv:2412.05496): blocks of 128 x 128 in which a row sees
    something; made once a forward pass for all layers, without waiting for the device.
    """
    rows, tokens = starts_BS.shape

    def seen(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        del head
        return (key <= query) & (key >= starts_BS[row, query])

    return create_block_mask(seen, rows, None, tokens, tokens, device=starts_BS.device)


@torch.library.custom_op("penjing::causal_attention", mutates_args=())
def _compiled_attention(
    q_BSHK: Tensor, k_BSNK: Tensor, v_BSNK: Tensor, starts_BS: Tensor
) -> tuple[Tensor, Tensor]:
    """The output, and the log of each softmax's sum, (B, H, S), for the backward pass."""
    q, k, v = (_row_major(x) for x in (q_BSHK, k_BSNK, v_BSNK))
    out, logsums = q_BSHK.new_empty(q.shape), torch.empty(_logsums_shape(q))
    starts, threads = starts_BS.contiguous(), torch.get_num_threads()
    _kernels.attend(q, k, v, starts, for_kernel(out), logsums, threads)
    return out, logsums


@torch.library.custom_op("penjing::causal_attention_backward", mutates_args=())
def _compiled_attention_backward(
    grad_BSHK: Tensor, inputs: list[Tensor], out_BSHK: Tensor, logsums_BHS: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v; `inputs` are those of the forward pass."""
    grad, q, k, v, out = (_row_major(x) for x in (grad_BSHK, *inputs[:3], out_BSHK))
    grads = [x.new_empty(x.shape) for x in inputs[:3]]
    starts, logsums = inputs[3].contiguous(), logsums_BHS.detach().contiguous()
    grad_q, grad_k, grad_v = map(for_kernel, grads)
    threads = torch.get_num_threads()
    _kernels.differentiate(grad, q, k, v, starts, out, logsums, grad_q, grad_k, grad_v, threads)
    return grads[0], grads[1], grads[2]


@_compiled_attention.register_fake
def _(q_BSHK: Tensor, k_BSNK: Tensor, v_BSNK: Tensor, starts_BS: Tensor) -> tuple[Tensor, Tensor]:
    del k_BSNK, v_BSNK, starts_BS
    logsums = q_BSHK.new_empty(_logsums_shape(q_BSHK), dtype=torch.float32)
    return q_BSHK.new_empty(q_BSHK.shape), logsums


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _differentiate_compiled(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, out, logsums = ctx.saved_tensors
    return *_compiled_attention_backward(grad, inputs, out, logsums), None


_compiled_attention.register_autograd(_differentiate_compiled, setup_context=_keep)


def _row_major(x: Tensor) -> Tensor:
    """As the kernels take it, the last dimension dense."""
    return for_kernel(x if x.stride(-1) == 1 else x.contiguous())


def _logsums_shape(q_BSHK: Tensor) -> tuple[int, int, int]:
    rows, tokens, heads, _ = q_BSHK.shape
    return rows, heads, tokens


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


def _gradients_like_inputs(
    grad: Tensor, inputs: list[Tensor], out: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    del grad, out, kept
    q, k, v, _ = inputs
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


_compiled_attention_backward.register_fake(_gradients_like_inputs)
_block_causal_attention_backward.register_fake(_gradients_like_inputs)


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
