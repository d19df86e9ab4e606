"""Measures training steps beside our own plain model, transformers, litgpt and nanochat.

    python -m venv /tmp/peers && /tmp/peers/bin/pip install torch==2.13.0 litgpt
    python -m benchmarks.train RUN --peers /tmp/peers/bin/python --nanochat PATH/nanochat

RUN has finished shards of a vocabulary of 8,192. Everyone takes the same rows of the same ids, one
document a row, in the same shape (6 layers of 256, 4 heads, 8 rows of 512 a step), with two threads
and deterministic algorithms, clipping and fused AdamW; nanochat has its own optimizer and its value
embeddings (parameters are printed) and is compared with our Muon. Each round is a process of its
own; rounds are interleaved and ratios are taken within a round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from penjing.config.model import ModelConfig
from penjing.model.size import flops_per_token
from penjing.runtime import measured_peak, open_runtime

JOBS = Path(__file__).with_name("train_jobs.py")
ROWS, TOKENS = 8, 512


def main() -> int:
    """Prints a row of the table for each system."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--nanochat", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args()
    _, machine = open_runtime("cpu", "auto", 2)
    dtype = machine.dtype
    systems: dict[str, tuple[str, list[str], dict[str, str]]] = {
        "penjing": (sys.executable, ["penjing", "--dtype", dtype], {}),
        "plain compiled float32": (sys.executable, ["plain"], {}),
        "transformers": (sys.executable, ["transformers"], {}),
    }
    if options.peers:
        systems["litgpt"] = (str(options.peers), ["litgpt"], {})
    if options.nanochat and options.peers:
        place = ["nanochat", "--nanochat", str(options.nanochat)]
        systems["nanochat"] = (str(options.peers), place, {})
        if dtype == "bfloat16":
            best = {"NANOCHAT_DTYPE": "bfloat16"}
            systems["nanochat, bfloat16"] = (str(options.peers), place, best)
        muon = ["penjing", "--dtype", dtype, "--optimizer", "muon"]
        systems["penjing, Muon"] = (sys.executable, muon, {})
    print(f"{machine.cpu}, {dtype}")
    if not options.nanochat:
        print("nanochat: absent (--nanochat)")
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.bin"
        shape = write_rows(options.run, rows, options.steps + 1)
        compare(systems, rows, shape, options, dtype)
    return 0


def compare(
    systems: dict[str, tuple[str, list[str], dict[str, str]]],
    rows: Path,
    shape: tuple[int, int, int],
    options: argparse.Namespace,
    dtype: str,
) -> None:
    """All rounds, and the table. The peak is the highest of all that are measured, two beside each
    of our runs: neighbours can halve it.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in systems}
    peaks = []
    for _ in range(options.rounds):
        for name, (python, words, environment) in systems.items():
            if name.startswith("penjing"):
                peaks.append(measured_peak(torch.device("cpu"), dtype, ""))
            found[name].append(measured(python, words, environment, rows, shape, options.steps))
    cost = flops_per_token(
        ModelConfig(depth=6, hidden_size=256, intermediate_size=704).shape(8192), TOKENS
    )
    peak = max(peaks)
    print(f"peak {peak:,.0f} GFLOP/s (found {spread(peaks, 0)})")
    print("| system | parameters | tokens/s | ours by theirs | share of the peak | first step |")
    print("|---|---|---|---|---|---|")
    for name, rounds in found.items():
        ours = found["penjing, Muon" if name.startswith("nanochat") else "penjing"]
        good = [(one, other) for one, other in zip(rounds, ours, strict=True) if "best" in one]
        if not good:
            print(f"| {name} | {rounds[0].get('error', '?')} | | | | |")
            continue
        speeds = [one["best"] for one, _ in good]
        ratios = [other["best"] / one["best"] for one, other in good]
        share = statistics.median(speeds) * cost / peak / 1e9
        waits = f"{good[0][0]['warm_up']:.0f}, {good[-1][0]['warm_up']:.0f} s"
        print(
            f"| {name} | {good[0][0]['parameters']:,} | {spread(speeds, 0)} | "
            f"{spread(ratios, 2)} | {share:.2f} | {waits} |"
        )


def measured(
    python: str,
    words: list[str],
    environment: dict[str, str],
    rows: Path,
    shape: tuple[int, int, int],
    steps: int,
) -> dict[str, Any]:
    """One process's numbers, or its last words."""
    sizes = [str(size) for size in shape]
    command = [python, str(JOBS), *words, "--rows", str(rows), "--steps", str(steps)]
    done = subprocess.run(  # noqa: S603 - our own words
        [*command, "--shape", *sizes],
        env=os.environ | {"GOMP_SPINCOUNT": "10000"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1][:120]}
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def write_rows(run: Path, path: Path, steps: int) -> tuple[int, int, int]:
    """Rows of one document each, cut out of the run's first shard."""
    info = min((run / "shards").glob("*.train.json"))
    size = (steps, ROWS, TOKENS + 1)
    dtype = json.loads(info.read_text())["dtype"]
    ids = np.fromfile(info.with_suffix(".bin"), dtype, size[0] * size[1] * size[2])
    ids.astype(np.int64).tofile(path)
    return size


def spread(values: list[float], digits: int) -> str:
    low, high = min(values), max(values)
    return f"{statistics.median(values):,.{digits}f} ({low:,.{digits}f}–{high:,.{digits}f})"


if __name__ == "__main__":
    sys.exit(main())
