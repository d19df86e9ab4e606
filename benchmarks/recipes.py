"""Trains each packaged recipe at its full shape for twenty steps of one row of 128 tokens.

    python -m benchmarks.recipes [NAME ...] [--steps 20] [--kind adamw]

The row is the same at every step, so that a recipe whose rates are sound learns it by heart.
`--kind` replaces the optimizer: a step of Muon on matrices of 1,280 is fifteen trillion operations.
A recipe takes up to 20 bytes of memory a parameter, and a process of its own.
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
from penjing.model.size import parameters
from penjing.process import peak_memory_bytes
from penjing.stages.calibration import open_untrained
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
    opened = open_untrained(config, config.pretrain, vocabulary)
    settings = config.pretrain.optimizer
    settings = replace(settings, kind=kind) if kind else settings
    ids = torch.randint(256, (1, TOKENS + 1), generator=torch.Generator().manual_seed(1))
    zeros = torch.zeros(1, TOKENS, dtype=torch.int64)
    row = Batch(ids[:, :-1], ids[:, 1:], torch.ones(1, TOKENS), zeros)
    begun, losses = time.perf_counter(), []
    for result in train_steps(
        opened.model,
        build_optimizer(opened.model, settings),
        next_token,
        iter([row] * steps),
        opened.runtime,
        steps=range(1, steps + 1),
        microbatch_rows=opened.microbatch_rows,
        schedule=lambda _: 1.0,
        max_grad_norm=settings.max_grad_norm,
    ):
        losses.append(result.loss)
    seconds = (time.perf_counter() - begun) / steps
    size, dtype = parameters(opened.model.shape).total, str(opened.runtime.dtype)
    return (
        f"{size:,} | {settings.kind}, {dtype.removeprefix('torch.')} | "
        f"{losses[0]:.2f}, {losses[-1]:.2f} | {seconds:.1f} | {peak_memory_bytes() / 1e9:.1f}"
    )


def _step() -> list[str]:
    return [
        f"pretrain.tokens_per_step={TOKENS}",
        "pretrain.microbatch_rows=1",
        'runtime.device="cpu"',
    ]


if __name__ == "__main__":
    sys.exit(main())
