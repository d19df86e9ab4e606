"""Measures the way from shards to batches: mixing, permuting, packing, masks, hashes and all.

    python -m benchmarks.stream RUN [--contexts 512 2048] [--seconds 10]

RUN is a run's directory with finished shards; its sources of documents are mixed in equal shares.
Prints million positions a CPU second of one core, the filled share of the positions, and what of
the time a step of that many positions would wait at a given training speed.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from penjing.artifacts.directories import verified
from penjing.config.training import MixtureShare
from penjing.data.batches import RowStream
from penjing.data.mixture import Segment
from penjing.data.shards import open_shard
from penjing.text.tokenizer import load_tokenizer

POSITIONS = 1 << 15
"""Of one batch."""

TRAINING_SPEEDS = (10_000, 1_000_000)
"""Positions a second: two CPU cores, and an accelerator."""


def main() -> int:
    """Prints one row of a table for each context."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--contexts", type=int, nargs="+", default=[288, 512, 2048])
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    waits = " | ".join(f"wait at {speed:,}/s" for speed in TRAINING_SPEEDS)
    print(f"| context | million positions a CPU second | filled | {waits} |")
    print("|---|---|---|" + "---|" * len(TRAINING_SPEEDS))
    for context in options.contexts:
        rate, filled = measure(options.run, context, options.seconds)
        shares = " | ".join(f"{speed / rate:.2%}" for speed in TRAINING_SPEEDS)
        print(f"| {context} | {rate / 1e6:.1f} | {filled:.1%} | {shares} |")
    return 0


def measure(
    run: Path, context: int, seconds: float, sources: Sequence[str] = ()
) -> tuple[float, float]:
    """Positions a CPU second, and the share of them that is filled; all sources unless given."""
    tokenizer = load_tokenizer(verified(run / "tokenizer"))
    names = sorted(path.name[: -len(".json")] for path in (run / "shards").glob("*.train.json"))
    found = [open_shard(run / "shards", name, tokenizer.digest) for name in names]
    shards = [shard for shard in found if shard.kind == "documents" and shard.documents]
    if sources:
        shards = [shard for shard in shards if shard.name.removesuffix(".train") in sources]
    rows = max(1, POSITIONS // context)
    shares = tuple(MixtureShare(shard.name, 1.0, 1.0) for shard in shards)
    stream = RowStream(
        shards=shards,
        segments=(Segment(0, shares, 1 << 30),),
        rows_per_step=rows,
        row_tokens=context,
        end_of_text=tokenizer.end_of_text,
        seed=1,
    )
    batches = stream.step_batches(0)
    next(batches)
    positions, looked, filled, begun = 0, 0, 0.0, time.process_time()
    while time.process_time() - begun < seconds:
        batch = next(batches)
        positions += batch.tokens.numel()
        looked += 1
        if looked % 16 == 0:  # counting costs as much as a tenth of a batch
            filled += float((batch.document_ids >= 0).float().mean())
    return positions / (time.process_time() - begun), filled / (looked // 16)


if __name__ == "__main__":
    sys.exit(main())
