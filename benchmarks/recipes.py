"""Trains each packaged recipe at its full shape for twenty steps of one row of 128 tokens.

    python -m benchmarks.recipes [NAME ...] [--steps 20] [--kind adamw]

The row is the same at every step, so that a recipe whose rates are sound learns it by heart. What
needs more memory than there is, is only counted. `--kind` replaces the optimizer: a step of Muon on
matrices of 1,280 is fifteen trillion operations.
"""

import argparse
import subprocess
import sys
import time
from dataclasses import replace
from importlib import resources
from typing import Literal

import torch

from penjing.config.loading import parse_run
from penjing.data.batches import Batch
from penjing.model.build import build_model
from penjing.model.initialization import initialize
from penjing.model.size import parameters
from penjing.process import peak_memory_bytes
from penjing.runtime import open_runtime
from penjing.train.loop import train_steps
from penjing.train.objectives import next_token
from penjing.train.optimizer import build_optimizer

NAMES = (
    "nanozh-10m",
    "nanozh-100m",
    "rangeflow-124m",
    "nanochat-d10",
    "nanozh-300m",
    "zac-500m",
    "nanochat-d20",
    "nanochat-d20-speedrun",
    "nanochat-d26",
)
TOKENS = 128
GPT2_IDS = 50_264
"""Where a recipe takes GPT-2's vocabulary, with our seven special tokens."""

BYTES_A_PARAMETER = 20
"""Weight, gradient, two moments, and what a step needs besides."""


def main() -> int:
    """Prints a row a recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(NAMES))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--kind", choices=("muon", "adamw", "adamw8bit"))
    options = parser.parse_args()
    if len(options.names) == 1:
        (name,) = options.names
        print(f"| {name} | {measured(name, options.steps, options.kind)} |")
        return 0
    print("| recipe | parameters | optimizer | loss, first and last | s a step | peak GB |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in options.names:  # a process each, for its own peak of memory
        words = [sys.executable, "-m", "benchmarks.recipes", name, "--steps", str(options.steps)]
        words += ["--kind", options.kind] if options.kind else []
        subprocess.run(words, check=False)  # noqa: S603 - our own words
    return 0


def measured(name: str, steps: int, kind: Literal["muon", "adamw", "adamw8bit"] | None) -> str:
    """The rest of a recipe's row."""
    text = (resources.files("penjing.configs") / f"{name}.toml").read_text(encoding="utf-8")
    config = parse_run(text, f"{name}.toml", [f"model.max_position_embeddings={TOKENS}", *_step()])
    assert config.pretrain is not None
    vocabulary = config.tokenizer.vocab_size or GPT2_IDS
    shape = config.model.shape(vocabulary)
    size = parameters(shape).total
    runtime, machine = open_runtime("cpu", "auto", None)
    if BYTES_A_PARAMETER * size > runtime.total_memory_bytes():
        return f"{size:,} | – | not run: too large for this machine | – | –"
    settings = config.pretrain.optimizer
    settings = replace(settings, kind=kind) if kind else settings
    model = build_model(shape, runtime.dtype)
    initialize(model, 1)
    ids = torch.randint(256, (1, TOKENS + 1), generator=torch.Generator().manual_seed(1))
    zeros = torch.zeros(1, TOKENS, dtype=torch.int64)
    row = Batch(ids[:, :-1], ids[:, 1:], torch.ones(1, TOKENS), zeros)
    begun, losses = time.perf_counter(), []
    for result in train_steps(
        model,
        build_optimizer(model, settings),
        next_token,
        iter([row] * steps),
        runtime,
        steps=range(1, steps + 1),
        microbatch_rows=1,
        schedule=lambda _: 1.0,
        max_grad_norm=settings.max_grad_norm,
    ):
        losses.append(result.loss)
    seconds = (time.perf_counter() - begun) / steps
    return (
        f"{size:,} | {settings.kind}, {machine.dtype} | {losses[0]:.2f}, {losses[-1]:.2f} | "
        f"{seconds:.1f} | {peak_memory_bytes() / 1e9:.1f}"
    )


def _step() -> list[str]:
    return [f"pretrain.tokens_per_step={TOKENS}", "pretrain.microbatch_rows=1"]


if __name__ == "__main__":
    sys.exit(main())
