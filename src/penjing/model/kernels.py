"""Norm, gate and head loss with backward passes written by hand, because torch is slow there on a
CPU: by our own compiled kernels (native/) in the dtypes that these have, or by torch.

Measured on two CPU cores in docs/notebook.md. Elsewhere than on a CPU torch's own norm is taken;
tests hold all against each other. Attention is `model.causal`'s. No weights are made here.

P positions, D hidden size, V vocabulary.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

HAS_COMPILED = find_spec("penjing.model._kernels") is not None  # mypy takes it for True
if HAS_COMPILED:
    from penjing.model import _kernels

CPU_KERNELS = "torch"
if HAS_COMPILED:
    CPU_KERNELS = "+".join(filter(None, (_kernels.INSTRUCTIONS, _kernels.BFLOAT16)))
"""What our own kernels use on this CPU: "avx512", "avx2", "plain", with "+bfloat16" where products
of bfloat16 are instructions and "+amx" where those of whole tiles are; "torch" if they were not
compiled.
"""

CHUNK_LOGITS, DEVICE_CHUNK_LOGITS = 2**22, 2**27
"""Logits that exist at a time in the head's loss: on a CPU 16 MiB of float32, which stay in its
caches; on an accelerator 512 MiB, so that its kernels are few and long.
"""


ChunkLoss = Callable[[Tensor, Tensor, Tensor, float | None], tuple[Tensor, Tensor]]
"""What `chunk_loss` is, or is compiled to."""


def has_kernels(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether our own kernels compute in this dtype on this device."""
    if not HAS_COMPILED or device.type != "cpu":
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and _kernels.BFLOAT16 != "")


def for_kernel(x: Tensor) -> Tensor:
    """Without a graph; bfloat16 as integers, since that is how the kernels know it."""
    x = x.detach()
    return x.view(torch.uint16) if x.dtype == torch.bfloat16 else x


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Scale x to unit mean square over its last dimension, times weight, in x's dtype.

    Statistics are float32 or better. Source: arXiv:1910.07467, equation 4.
    """
    # A compiler fuses the plain form with what is around it.
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        own = has_kernels(x.device, x.dtype) and weight.dtype == torch.float32
        apply: Any = _CompiledRmsNorm.apply if own else _RmsNorm.apply
        out: Tensor = apply(x, weight, eps)
        return out
    wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    return functional.rms_norm(wide, weight.shape, weight.to(wide.dtype), eps).to(x.dtype)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) x up. Source: arXiv:2002.05202, equation 6, before the last product.

    Our own kernel does it: torch takes twice as long, and in bfloat16 what its compiler makes of it
    does too.
    """
    compiling = torch.compiler.is_compiling()
    if not has_kernels(gate.device, gate.dtype) or (compiling and gate.dtype != torch.bfloat16):
        return functional.silu(gate) * up
    if not (compiling or gate.requires_grad or up.requires_grad):
        return _gated(gate, up)  # what an operation costs counts in generation
    out: Tensor = _open_gate(gate, up)
    return out


def _gated(gate: Tensor, up: Tensor) -> Tensor:
    out = gate.new_empty(gate.shape)
    _kernels.open_gate(_flat(gate), _flat(up), _flat(out), torch.get_num_threads())
    return out


_open_gate = torch.library.custom_op("penjing::swiglu", _gated, mutates_args=())


@torch.library.custom_op("penjing::swiglu_backward", mutates_args=())
def _differentiate_gate(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    grads = gate.new_empty(gate.shape), up.new_empty(up.shape)
    grad, gate, up, grad_gate, grad_up = (_flat(x) for x in (grad, gate, up, *grads))
    threads = torch.get_num_threads()
    _kernels.differentiate_gate(grad, gate, up, grad_gate, grad_up, threads)
    return grads


def _flat(x: Tensor) -> Tensor:
    return for_kernel(x.contiguous())


@_open_gate.register_fake
def _(gate: Tensor, up: Tensor) -> Tensor:
    del up
    return gate.new_empty(gate.shape)


@_differentiate_gate.register_fake
def _(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    del grad
    return gate.new_empty(gate.shape), up.new_empty(up.shape)


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs)


def _backward_gate(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    gate, up = ctx.saved_tensors
    grad_gate, grad_up = _differentiate_gate(grad, gate, up)
    return grad_gate, grad_up


_open_gate.register_autograd(_backward_gate, setup_context=_keep_inputs)


def chunk_loss(
    logits: Tensor, targets: Tensor, weights: Tensor, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """The weighted loss of some positions, and its gradient by their logits before the cap.

    Args:
        logits: (P, V), may be overwritten.
        targets: (P, 1) int64.
        weights: (P, 1).
        softcap: what bounds the logits, or None.

    Returns:
        A scalar, at least float32, and (P, V) in the logits' dtype.
    """
    compiling = torch.compiler.is_compiling()
    if softcap is None and not compiling and has_kernels(logits.device, logits.dtype):
        losses = torch.empty(len(logits))
        ids, shares = targets.squeeze(1), weights.float().squeeze(1)
        _kernels.head_loss(for_kernel(logits), ids, shares, losses, torch.get_num_threads())
        return losses.sum(), logits
    wide = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    bounded = wide if softcap is None else torch.tanh(wide / softcap) * softcap
    highest = bounded.amax(-1, keepdim=True)
    gap = highest - bounded.gather(1, targets)
    # By hand: torch's log_softmax and exp_ take half as long again.
    powers = (bounded.sub_(highest) if softcap is None else bounded - highest).exp_()
    sums = powers.sum(-1, keepdim=True)
    loss = ((sums.log() + gap) * weights).sum()
    grad = powers.mul_(weights / sums)
    at_targets = grad.gather(1, targets) - weights
    if softcap is not None:
        slope = 1 - (bounded / softcap).square()
        grad, at_targets = grad.mul_(slope), at_targets * slope.gather(1, targets)
    return loss, grad.to(logits.dtype).scatter_(1, targets, at_targets.to(logits.dtype))


def weighted_loss(
    hidden_PD: Tensor,
    head_VD: Tensor,
    targets_P: Tensor,
    weights_P: Tensor,
    softcap: float | None = None,
    loss_of_chunk: ChunkLoss = chunk_loss,
) -> Tensor:
    """The sum of weights x -ln p(target), a float32 scalar; logits never exist whole.

    Both gradients are made in the forward pass, chunk by chunk, while the logits are at hand.
    Source: Liger (arXiv:2410.10989, section 3.2), here with float32 logits and weights.
    """
    apply: Any = _WeightedLoss.apply
    on_cpu = hidden_PD.device.type == "cpu"
    size = max(1, (CHUNK_LOGITS if on_cpu else DEVICE_CHUNK_LOGITS) // len(head_VD))
    out: Tensor = apply(hidden_PD, head_VD, targets_P, weights_P, softcap, loss_of_chunk, size)
    return out


def _add(sum_VD: Tensor, x_VD: Tensor) -> None:
    """In the sum's dtype: float32, in one pass by our kernel, where torch makes a wider x first."""
    if has_kernels(x_VD.device, x_VD.dtype) and sum_VD.dtype == torch.float32:
        _kernels.add(sum_VD, for_kernel(x_VD), torch.get_num_threads())
    else:
        sum_VD += x_VD


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


class _CompiledRmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        out, scales = x.new_empty(x.shape), weight.new_empty(x.numel() // x.shape[-1])
        threads = torch.get_num_threads()
        _kernels.normalize(_flat(x), weight.detach(), eps, _flat(out), scales, threads)
        ctx.save_for_backward(x, weight, scales)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scales = ctx.saved_tensors
        grad_x, grad_weight = x.new_empty(x.shape), weight.new_empty(weight.shape)
        given = (_flat(grad), _flat(x), weight.detach(), scales, _flat(grad_x), grad_weight)
        _kernels.differentiate_norm(*given, torch.get_num_threads())
        return grad_x, grad_weight, None


class _WeightedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_PD: Tensor,
        head_VD: Tensor,
        targets_P: Tensor,
        weights_P: Tensor,
        softcap: float | None,
        loss_of_chunk: ChunkLoss,
        size: int,
    ) -> Tensor:
        head = head_VD.to(hidden_PD.dtype)
        grad_hidden = torch.empty_like(hidden_PD)
        grad_head = torch.zeros_like(head_VD)
        total = weights_P.new_zeros((), dtype=torch.promote_types(head_VD.dtype, torch.float32))
        for start in range(0, len(hidden_PD), size):
            part = slice(start, start + size)
            loss, grad_logits = loss_of_chunk(
                hidden_PD[part] @ head.T, targets_P[part, None], weights_P[part, None], softcap
            )
            total += loss
            torch.mm(grad_logits, head, out=grad_hidden[part])
            if head.dtype == grad_head.dtype:
                grad_head.addmm_(grad_logits.T, hidden_PD[part])
            else:
                _add(grad_head, grad_logits.T @ hidden_PD[part])
        ctx.save_for_backward(grad_hidden, grad_head)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_head = ctx.saved_tensors
        return grad_hidden * grad.to(grad_hidden.dtype), grad_head * grad, *(None,) * 5
