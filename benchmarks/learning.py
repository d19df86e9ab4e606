"""Measures what is learnt in equal CPU seconds beside nanochat, on the same text and tokenizer.

    python -m benchmarks.learning RUN --peers /tmp/peers/bin/python --nanochat PATH/nanochat \
        --out /tmp/learning.jsonl --minutes 2 --seeds 1 2 3 [--systems ...]

RUN has finished shards of stories and children's books, vocabulary 4,096. Each run is a process of
one thread; two systems run at the same time, one a core, so that both meet the same neighbours.
Finished runs stand in `--out` and are not done again. Held-out text is scored document by document,
in windows, the same for everyone.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from penjing.artifacts.directories import verified
from penjing.config.training import MixtureShare
from penjing.data.batches import Batch, RowStream
from penjing.data.mixture import Segment
from penjing.data.shards import Shard, open_shard
from penjing.evaluate.bits_per_byte import document_windows
from penjing.text.tokenizer import load_tokenizer

JOBS = Path(__file__).with_name("learning_jobs.py")
TOKENS, LAYERS, HIDDEN = 256, 4, 192
HELD_OUT_TOKENS = 60_000

SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "penjing": ("penjing", {}),
    "penjing, racing": ("penjing", {"model": {"architecture": "racing", "head_dim": 128}}),
    "nanochat": ("nanochat", {"tokens_per_step": 16_384}),
    "nanochat, tuned": ("nanochat", {"tokens_per_step": 2048, "rate_scale": 0.5}),
    "nanochat, tuned, bfloat16": (
        "nanochat",
        {"tokens_per_step": 2048, "rate_scale": 0.5, "dtype": "bfloat16"},
    ),
}
"""nanochat's own rule gives steps of 16,384 tokens here (2^19 x (0.4 M / 1.3 G tokens)^0.383)."""


def main() -> int:
    """Runs what is missing and prints a row for each system and budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--nanochat", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, nargs="+", default=[2.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS))
    parser.add_argument("--settings", default="", help="JSON: further systems, by name")
    options = parser.parse_args()
    more: dict[str, Any] = json.loads(options.settings or "{}")
    systems = SYSTEMS | {name: (kind, settings) for name, (kind, settings) in more.items()}
    chosen = [*options.systems, *more]
    done = read_done(options.out)
    wanted = [
        (name, minutes, seed)
        for minutes in options.minutes
        for seed in options.seeds
        for name in chosen
        if (name, minutes, seed) not in done
    ]
    with tempfile.TemporaryDirectory() as folder:
        write_folder(options.run, Path(folder))

        def one(job: tuple[str, float, int]) -> None:
            found = measured(systems[job[0]], job, Path(folder), options)
            with options.out.open("a") as file:
                file.write(json.dumps({"job": job} | found) + "\n")

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(one, wanted))
    show(read_done(options.out))
    return 0


def read_done(path: Path) -> dict[tuple[str, float, int], dict[str, Any]]:
    """Finished runs by system, minutes and seed."""
    if not path.exists():
        return {}
    lines = (json.loads(line) for line in path.read_text().splitlines())
    return {(one["job"][0], one["job"][1], one["job"][2]): one for one in lines if "bpb" in one}


def measured(
    system: tuple[str, dict[str, Any]],
    job: tuple[str, float, int],
    folder: Path,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """One run's numbers, or its last words."""
    kind, settings = system
    python = sys.executable if kind == "penjing" else str(options.peers)
    command = [python, str(JOBS), kind, str(folder), "--seconds", str(60 * job[1])]
    command += ["--seed", str(job[2]), "--settings", json.dumps(settings)]
    command += ["--nanochat", str(options.nanochat)] if options.nanochat else []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(JOBS.parents[1])}
    environment["NANOCHAT_DTYPE"] = settings.get("dtype", "float32")
    done = subprocess.run(  # noqa: S603 - our own words
        command, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {"error": done.stderr[-2000:]}
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def show(done: dict[tuple[str, float, int], dict[str, Any]]) -> None:
    """One row a system and budget."""
    print("| system | CPU minutes | bits per byte, by seed | mean | tokens | steps | parameters |")
    print("|---|---|---|---|---|---|---|")
    for name, minutes in sorted({key[:2] for key in done}, key=lambda key: (key[1], key[0])):
        found = [one for key, one in sorted(done.items()) if key[:2] == (name, minutes)]
        each = ", ".join(f"{one['bpb']:.3f}" for one in found)
        mean = statistics.mean(one["bpb"] for one in found)
        tokens = statistics.mean(one["tokens"] for one in found) / 1e6
        print(
            f"| {name} | {minutes:g} | {each} | {mean:.3f} | {tokens:.2f} M | "
            f"{found[0]['steps']:,} | {found[0]['parameters']:,} |"
        )


def shards_of(run: Path, part: str) -> list[Shard]:
    """The run's shards of documents."""
    tokenizer = load_tokenizer(verified(run / "tokenizer"))
    names = sorted(path.name[: -len(".json")] for path in (run / "shards").glob(f"*.{part}.json"))
    found = [open_shard(run / "shards", name, tokenizer.digest) for name in names]
    return [shard for shard in found if shard.kind == "documents" and shard.documents]


def write_folder(run: Path, folder: Path) -> None:
    """What every job reads: documents, held-out windows, and what they are."""
    tokenizer = load_tokenizer(verified(run / "tokenizer"))
    documents = [list(ids) for shard in shards_of(run, "train") for ids in ids_of(shard)]
    np.save(folder / "ids.npy", np.concatenate([np.array(ids, np.int32) for ids in documents]))
    np.save(folder / "ends.npy", np.cumsum([len(ids) for ids in documents]))
    held_out = [list(ids) for shard in shards_of(run, "validation") for ids in ids_of(shard)]
    held_out = held_out[:: max(1, sum(map(len, held_out)) // HELD_OUT_TOKENS)]
    lengths = tokenizer.byte_lengths()
    parts: dict[str, list[Any]] = {"tokens": [], "targets": [], "bytes": []}
    for batch in document_windows(held_out, tokenizer.end_of_text, TOKENS, 1):
        missing = TOKENS - batch.tokens.shape[1]
        padded = [np.pad(x.numpy(), ((0, 0), (0, missing))) for x in (batch.tokens, batch.targets)]
        weights = np.pad(batch.loss_weights.numpy(), ((0, 0), (0, missing)))
        parts["tokens"].append(padded[0])
        parts["targets"].append(padded[1])
        parts["bytes"].append(np.where(weights > 0, lengths[padded[1]], 0))
    for name, arrays in parts.items():
        np.save(folder / f"{name}.npy", np.concatenate(arrays).astype(np.int64))
    info = {
        "run": str(run.absolute()),
        "vocab_size": tokenizer.vocab_size,
        "end_of_text": tokenizer.end_of_text,
        "tokens": TOKENS,
        "model": {
            "depth": LAYERS,
            "hidden_size": HIDDEN,
            "max_position_embeddings": TOKENS,
        },
    }
    (folder / "info.json").write_text(json.dumps(info))


def ids_of(shard: Shard) -> Iterator[Any]:
    """The ids of each document, without the id that begins it."""
    for number in range(shard.documents):
        yield shard.read(number, 1, 1 << 40)[0]


def open_rows(folder: Path, rows: int, seed: int) -> Iterator[Batch]:
    """Our stream, each source in proportion to its tokens."""
    info = json.loads((folder / "info.json").read_text())
    shards = shards_of(Path(info["run"]), "train")
    shares = tuple(MixtureShare(one.name, float(one.tokens), float(one.tokens)) for one in shards)
    stream = RowStream(
        shards=shards,
        segments=(Segment(0, shares, 1 << 30),),
        rows_per_step=rows,
        row_tokens=info["tokens"],
        end_of_text=info["end_of_text"],
        seed=seed,
    )
    return iter(stream.step_batches(0))


if __name__ == "__main__":
    sys.exit(main())
