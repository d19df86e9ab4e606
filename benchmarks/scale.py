"""Measures count, reduce, training and encoding of a corpus, and what a larger one would take.

Usage: python -m benchmarks.scale FILE [FILE ...] [--vocab-size N] [--workers N] [--keep DIRECTORY]
Files as in a run file (.jsonl, .jsonl.gz, .parquet ...). Prints the tables of docs/scale.md.
"""

import argparse
import resource
import shutil
import sys
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from penjing.artifacts.stage import read_manifest
from penjing.config.loading import parse_run
from penjing.config.schema import RunConfig
from penjing.data.corpus import Conduct
from penjing.process import cpu_seconds
from penjing.stages.corpus import do_part, do_stage
from penjing.text import native

GOALS = (("67 GB", 67e9), ("1 TB", 1e12), ("10 TB", 10e12))
CORES = (1, 16, 512)


@dataclass(frozen=True)
class Rates:
    """CPU seconds of each part, and what it left on disk, for `text_bytes` of text."""

    text_bytes: int
    count: float
    reduce: float
    train: float
    encode: float
    run_bytes: int
    shard_bytes: int


def main() -> int:
    """Measures, prints, and leaves nothing behind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--vocab-size", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="the run stays here")
    options = parser.parse_args()
    paths = ", ".join(f'"{path.absolute()}"' for path in options.files)
    config = parse_run(
        f"[sources.texts]\npaths = [{paths}]\n[pretrain]\nsteps = 9\nmixture = {{ texts = 1.0 }}\n"
        f"[tokenizer]\nvocab_size = {options.vocab_size}\nworkers = {options.workers}\n"
        f"chunk_files = 1\n[shards]\nworkers = {options.workers}\nchunk_files = 1\n",
        "scale.toml",
    )
    directory = options.keep or Path(tempfile.mkdtemp())
    try:
        tell(measure(config, directory))
    finally:
        if not options.keep:
            shutil.rmtree(directory)
    return 0


def measure(config: RunConfig, directory: Path) -> Rates:
    """Every part of the work once, from nothing."""
    run_dir = directory / config.name
    begun = [cpu_seconds()]
    for part in ("count", "reduce"):
        do_part(config, directory, directory, "tokenizer", part, Conduct(), lambda _: None)
        begun.append(cpu_seconds())
    run_bytes = sum(path.stat().st_size for path in run_dir.glob("tokenizer.work/count/*/*.run"))
    for stage, part_name in (("tokenizer", "train"), ("shards", None)):
        do_stage(
            config, directory, directory, stage, part_name, Conduct(), lambda _: None, redo=False
        )
        begun.append(cpu_seconds())
    manifest = read_manifest(run_dir / "tokenizer")
    assert manifest is not None
    facts = manifest.results
    print(
        f"compiled {native.COMPILED}, {facts['unique_words']:,} words, threshold "
        f"{facts['threshold']}, kept {facts['kept_mass']:.2%}, last merge made "
        f"{facts['last_merge_count']} times"
    )
    shards = sum(path.stat().st_size for path in (run_dir / "shards").glob("*.bin"))
    count, reduce, train, encode = (after - before for before, after in pairwise(begun))
    return Rates(facts["bytes"], count, reduce, train, encode, run_bytes, shards)


def tell(rates: Rates) -> None:
    """The two tables."""
    size = rates.text_bytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\n{size / 1e6:.0f} MB of text, {sys.platform}; peak memory {peak:.0f} MB\n")
    print(
        "| part | CPU s | MB per CPU second | bytes on disk for a byte of text |\n|---|---|---|---|"
    )
    disk = {"count": rates.run_bytes / size, "encode": rates.shard_bytes / size}
    for part in ("count", "reduce", "train", "encode"):
        seconds = getattr(rates, part)
        left = f"{disk[part]:.2f}" if part in disk else ""
        print(f"| {part} | {seconds:.1f} | {size / 1e6 / max(seconds, 1e-3):.0f} | {left} |")
    print("\n| text | core hours: count | reduce | encode | hours on 1, 16, 512 cores |")
    print("|---|---|---|---|---|")
    for name, goal in GOALS:
        hours = {p: getattr(rates, p) * goal / size / 3600 for p in ("count", "reduce", "encode")}
        whole = ", ".join(f"{sum(hours.values()) / cores:.2g}" for cores in CORES)
        cells = " | ".join(f"{value:.2g}" for value in hours.values())
        print(f"| {name} | {cells} | {whole} |")


if __name__ == "__main__":
    sys.exit(main())
