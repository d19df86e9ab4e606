"""Measures the way from shards to batches beside litdata, mosaicml-streaming and nanochat's loader.

    python -m venv /tmp/peers
    /tmp/peers/bin/pip install torch==2.13.0 litdata mosaicml-streaming pyarrow tiktoken filelock
    python -m benchmarks.stream_peers RUN --peers /tmp/peers/bin/python --nanochat PATH/nanochat

RUN has finished shards of `--sources`. The same documents reach everyone: as shards, as optimized
chunks, as MDS, as parquet of their texts for nanochat, which tokenizes as it reads (`ids given`:
its loader alone). Peers shuffle; only ours packs documents whole, masks them apart, gives positions
and blends. One thread each, positions a CPU second; rounds are interleaved, ratios taken within a
round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.stream import POSITIONS, measure
from penjing.artifacts.directories import verified
from penjing.data.shards import open_shard
from penjing.text.tokenizer import load_tokenizer

JOBS = Path(__file__).with_name("stream_jobs.py")


def main() -> int:
    """Prints one row a peer and context."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--nanochat", type=Path)
    parser.add_argument("--sources", nargs="+", default=["children", "web"])
    parser.add_argument("--contexts", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    peers = ["litdata", "streaming", *(["nanochat"] if options.nanochat else [])]
    print("| context | loader | million positions a CPU second | ours by theirs | notes |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        write_documents(options.run, options.sources, Path(folder))
        for context in options.contexts:
            compare(options, peers, Path(folder), context)
    return 0


def compare(options: argparse.Namespace, peers: list[str], folder: Path, context: int) -> None:
    """All rounds of one context, and its rows of the table."""
    rates, ratios = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    notes: dict[str, str] = {}
    for _ in range(options.rounds):
        ours, filled = measure(options.run, context, options.seconds, options.sources)
        rates["penjing"].append(ours)
        notes["penjing"] = f"{filled:.1%} of positions filled, no token lost"
        for peer in peers:
            found = one_peer(options, peer, folder, context)
            if "error" in found:
                notes[peer] = found["error"]
                continue
            names = {"rate": peer, "rate_of_ids": f"{peer}, ids given"}
            for key in names.keys() & found.keys():
                rates[names[key]].append(found[key])
                ratios[names[key]].append(ours / found[key])
            notes[peer] = found["version"]
            if "kept" in found:
                notes[peer] = f"{found['kept']:.1%} of the tokens kept"
    for name in dict.fromkeys([*rates, *notes]):
        print(
            f"| {context} | {name} | {spread(rates[name], 1e6)} | {spread(ratios[name], 1)} | "
            f"{notes.get(name, '')} |"
        )


def spread(values: list[float], unit: float) -> str:
    """Median (least to most)."""
    if not values:
        return "–"
    low, high = min(values) / unit, max(values) / unit
    return f"{statistics.median(values) / unit:.2f} ({low:.2f}–{high:.2f})"


def one_peer(options: argparse.Namespace, peer: str, folder: Path, context: int) -> dict[str, Any]:
    """What a peer's process measured, or why it did not."""
    rows = max(1, POSITIONS // context)
    words = [str(options.peers), str(JOBS), peer, str(folder), str(context), str(rows)]
    environment = os.environ | {"NANOCHAT": str(options.nanochat), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603 - our own script
        [*words, str(options.seconds)], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["failed"])[-1][:120]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def write_documents(run: Path, sources: list[str], folder: Path) -> None:
    """Ids, texts and vocabulary for the peers."""
    tokenizer = load_tokenizer(verified(run / "tokenizer"))
    ids, ends, texts, total = [], [], list[str](), 0
    for source in sources:
        shard = open_shard(run / "shards", f"{source}.train", tokenizer.digest)
        for document, length in enumerate(shard.lengths().tolist()):
            own, _ = shard.read(document, 0, length)
            ids.append(own.astype(np.uint16))
            total += length
            ends.append(total)
            texts.append(tokenizer.decode(own[1:].tolist()))
    np.save(folder / "ids.npy", np.concatenate(ids))
    np.save(folder / "ends.npy", np.array(ends))
    for part in range(2):
        table = pa.table({"text": texts[part::2]})
        pq.write_table(table, folder / f"{part}.parquet", row_group_size=1024)
    (folder / "tokenizer.tiktoken").write_bytes((run / "tokenizer/tokenizer.tiktoken").read_bytes())
    about = json.loads((run / "tokenizer/tokenizer.tiktoken.json").read_text())
    (folder / "pattern.json").write_text(json.dumps(about["pat_str"]))


if __name__ == "__main__":
    sys.exit(main())
