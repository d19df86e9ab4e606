"""Measures how true a plan comes: CPU time and memory foretold, and what the stage then took.

    python -m benchmarks.plan RUN.toml RUNS [--rounds 3] [--steps 60]

RUN.toml's run in RUNS has finished shards; five models are trained on them, each in a process of
its own. Prints foretold and found, and by how much they differ.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from penjing.config.loading import load_run
from penjing.config.schema import RunConfig
from penjing.stages.forecast import forecast
from penjing.stages.plan import plan_run

SHAPES = ((2, 128, 8), (3, 192, 8), (4, 192, 4), (4, 256, 8), (6, 256, 16))
"""Depth, width and rows of a step."""


def main() -> int:
    """Prints a row a configuration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_file", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    # As the command line has it, for the processes that calibrate: where two processors are halves
    # of one core, a thread that waits for long takes a third of the other's speed.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    config = load_run(options.run_file)
    print("| depth, width, rows | CPU s foretold | found | off | GB foretold | found | off |")
    print("|---|---|---|---|---|---|---|")
    for depth, width, rows in SHAPES:
        foretold, found = [], []
        for _ in range(options.rounds):
            words = settings(config, depth, width, rows, options.steps)
            foretold.append(planned(options, words))
            found.append(trained(options, config, words))
        plan = [statistics.median(values) for values in zip(*foretold, strict=True)]
        true = [statistics.median(values) for values in zip(*found, strict=True)]
        print(
            f"| {depth}, {width}, {rows} | {plan[0]:.1f} | {true[0]:.1f} | "
            f"{plan[0] / true[0] - 1:+.0%} | {plan[1] / 1e9:.2f} | {true[1] / 1e9:.2f} | "
            f"{plan[1] / true[1] - 1:+.0%} |",
            flush=True,
        )
    return 0


def settings(config: RunConfig, depth: int, width: int, rows: int, steps: int) -> list[str]:
    """What is changed in the run file."""
    tokens = rows * config.model.max_position_embeddings
    return [
        "name=planned",
        f"model.depth={depth}",
        f"model.hidden_size={width}",
        f"pretrain.steps={steps}",
        f"pretrain.tokens_per_step={tokens}",
        f"pretrain.microbatch_rows={min(rows, 8)}",
    ]


def planned(options: argparse.Namespace, words: list[str]) -> tuple[float, float]:
    """CPU seconds and bytes, as the plan says."""
    config = load_run(options.run_file, words)
    base = replace(config, name=load_run(options.run_file).name)
    facts = plan_run(base, options.run_file.parent, options.runs)
    found = forecast(base, facts, facts.stages[0], options.runs)
    assert found is not None
    assert found.cpu_seconds is not None
    return found.cpu_seconds, float(found.memory_bytes)


def trained(
    options: argparse.Namespace, config: RunConfig, words: list[str]
) -> tuple[float, float]:
    """CPU seconds and bytes that the stage took."""
    run = options.runs / "planned"
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    for stage in ("tokenizer", "shards"):
        shutil.copytree(options.runs / config.name / stage, run / stage)
    sets = [part for word in words for part in ("--set", word)]
    command = [sys.executable, "-m", "penjing.cli.main", "pretrain", str(options.run_file)]
    subprocess.run(  # noqa: S603 - our own words
        [*command, "--runs", str(options.runs), *sets], check=True, capture_output=True
    )
    manifest = json.loads((run / "pretrain" / "stage.json").read_text())
    return manifest["cpu_seconds"], float(manifest["peak_memory_bytes"])


if __name__ == "__main__":
    sys.exit(main())
