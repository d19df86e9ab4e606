"""Compiles what a model repeats, once, and says why where it cannot.

Whether compiling pays is the stages' to say. Only training runs the compiled block: it has one
shape; probes and generation have many.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from penjing.model.kernels import chunk_loss
from penjing.model.language_model import LanguageModel
from penjing.model.likelihood import weighted_nll


@dataclass(frozen=True)
class Compilation:
    """Seconds that it took, and why it failed, if it did."""

    seconds: float
    failure: str


def attempt(compile_it: Callable[[], None]) -> Compilation:
    """Run what compiles and measure it; its failure is told, not raised."""
    begun, failure = time.perf_counter(), ""
    try:
        compile_it()
    except (RuntimeError, OSError, ImportError) as error:
        failure = str(error).strip().partition("\n")[0] or type(error).__name__
    return Compilation(time.perf_counter() - begun, failure)


def compile_block(model: LanguageModel, rows: int, tokens: int) -> Compilation:
    """Compile the block for microbatches of `rows` x `tokens`; after a failure it runs eagerly.

    All blocks have one shape, so that one graph serves them all: a tenth of the time that the
    whole model takes, for the same speed (docs/notebook.md). What was compiled before, for the
    same code, shapes, torch and CPU, is read from torch's cache on disk. On an accelerator what
    the head's loss makes of logits is compiled too: there it is bound by memory, on a CPU as fast.
    """
    block = next(model.blocks())
    model.compiled_block = torch.compile(type(block).forward, dynamic=False)
    if model.head_weight.device.type != "cpu":
        model.chunk_loss = torch.compile(chunk_loss, dynamic=False)

    def once() -> None:
        ids = torch.zeros((rows, tokens), dtype=torch.int64, device=model.head_weight.device)
        loss = weighted_nll(model, ids, ids, torch.ones_like(ids, dtype=torch.float32), ids)
        torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)

    done = attempt(once)
    if done.failure:
        model.compiled_block, model.chunk_loss = None, chunk_loss
    return done
