"""Measures the tokenizer's core beside its peers and prints Markdown for docs/notebook.md.

    python -m venv /tmp/peers
    /tmp/peers/bin/pip install rustbpe tokenizers tiktoken gigatoken fastokens numpy
    python -m benchmarks.corpus --data ../shared/data --out /tmp/corpus
    python -m benchmarks.tokenizer --corpus /tmp/corpus --peers /tmp/peers/bin/python

Every job is a process of its own; a round runs each job of a part once, so ours and the peers' are
interleaved, and ratios are taken within a round: median (least to most). Seconds are CPU seconds
with one thread, unless said otherwise. `--parts` chooses, `--rounds` repeats.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import penjing
from penjing.text import native
from penjing.text.bpe import PATTERN

ROOT = Path(__file__).resolve().parents[1]
MERGES = 50_000
PATTERN_NAME = "qwen2"
NO_CAP = 2**30
CAP = 256
"""Words over 256 bytes are cut for training, except beside rustbpe, which does not cut."""

TRAIN_MEMORY_BYTES = 256_000_000
ENCODED_BYTES = 24_000_000
PRUNED_WORDS = 200_000
KINDS = ("en", "code", "zh")
Answer = dict[str, Any]
FAILED: Answer = {"digest": "failed", "cold": float("inf"), "text_bytes": 0}
"""Of a peer that ends with an error: tiktoken runs out of stack in a megabyte of spaces."""


@dataclass
class Bench:
    """Where things are, and what has been measured: job's label -> its answer in every round."""

    corpus: Path
    peers: Path
    scratch: Path
    rounds: int
    answers: dict[str, list[Answer]] = field(default_factory=lambda: defaultdict(list))

    def job(self, label: str, name: str, **arguments: Any) -> Answer:
        """Runs one job; its answer is kept under the label."""
        ours = name.endswith("_penjing")
        command = [sys.executable if ours else str(self.peers)]
        command += [str(ROOT / "benchmarks" / "tokenizer_jobs.py"), name, json.dumps(arguments)]
        environment = {**os.environ, "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        if ours:
            environment["PYTHONPATH"] = str(Path(penjing.__file__).parents[1])
        done = subprocess.run(  # noqa: S603
            command, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode and not ours and name.startswith("encode"):
            print(f"{label}: {name} failed: {done.stderr[-200:]}", file=sys.stderr)
            self.answers[label].append(FAILED)
            return FAILED
        if done.returncode:
            raise SystemExit(f"{label}: {name} failed\n{done.stderr[-2000:]}")
        answer: Answer = json.loads(done.stdout)
        self.answers[label].append(answer)
        print(f"{label}: {json.dumps(answer)}", file=sys.stderr)
        return answer

    def train(self, label: str, files: list[Path], **changes: Any) -> Answer:
        arguments: Answer = {"num_merges": MERGES, "pattern": PATTERN_NAME, "cap": CAP}
        arguments |= {"memory_bytes": 0, "scratch": str(self.scratch / "runs")}
        arguments |= {"vocabulary": str(self.vocabulary(label)), "files": [str(f) for f in files]}
        return self.job(label, "train_penjing", **(arguments | changes))

    def vocabulary(self, label: str) -> Path:
        return self.scratch / f"{label.replace(' ', '-')}.json"

    def values(self, label: str, what: str) -> list[float]:
        return [float(answer[what]) for answer in self.answers[label]]

    def ratio(self, label: str, base: str, what: str) -> str:
        """How many times the base's value another's is, within rounds."""
        pairs = zip(self.values(label, what), self.values(base, what), strict=True)
        return spread([value / unit for value, unit in pairs], "×")


def spread(values: list[float], unit: str = "") -> str:
    middle = f"{statistics.median(values):.3g}{unit}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.3g}–{max(values):.3g})"


def training(bench: Bench) -> list[str]:
    """200 MB beside rustbpe and Hugging Face, which takes minutes and 4 GB."""
    files = [bench.corpus / "mix.jsonl"]
    plain = {"files": [str(files[0])], "num_merges": MERGES, "expression": PATTERN}
    for _ in range(bench.rounds):
        bench.train("mix", files, cap=NO_CAP)
        bench.job("rustbpe", "train_rustbpe", **plain)
        bench.job("hf", "train_hf", **plain)
    same = {answer["digest"] for label in ("mix", "rustbpe") for answer in bench.answers[label]}
    phases = bench.answers["mix"][-1]["phases"]
    parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in phases.items())
    answer = bench.answers["mix"][-1]
    growth = (answer["peak"] - answer["peak_before_training"]) / answer["symbol_bytes"]
    return [
        "| training, 50,000 merges | CPU s | peak MB | × ours |",
        "|---|---|---|---|",
        *(
            f"| {label} | {spread(bench.values(label, 'cpu'))} | "
            f"{max(bench.values(label, 'peak')) / 1e6:.0f} | {bench.ratio(label, 'mix', 'cpu')} |"
            for label in ("mix", "rustbpe", "hf")
        ),
        "",
        f"Merges {'identical' if len(same) == 1 else 'DIFFERENT'} to rustbpe's. Ours: {parts} s; "
        f"{answer['symbol_bytes'] / 1e6:.1f} MB of different words, {growth:.1f} bytes of memory "
        "for each byte of them in training.",
    ]


def counting(bench: Bench) -> list[str]:
    """Scanning and counting, one thread and two."""
    names = {"mix": bench.corpus / "mix.jsonl", "zh": bench.corpus / "zh.jsonl"}
    for _ in range(bench.rounds):
        for name, path in names.items():
            for threads in (1, 2):
                arguments = {"file": str(path), "pattern": PATTERN_NAME, "cap": CAP}
                label = f"count {name} {threads}"
                bench.job(label, "count_penjing", threads=threads, **arguments)
    lines = ["| counting | MB per core second | two threads, wall |", "|---|---|---|"]
    for name in names:
        one, two = bench.answers[f"count {name} 1"], bench.answers[f"count {name} 2"]
        speed = [answer["text_bytes"] / 1e6 / answer["count_cpu"] for answer in one]
        faster = [a["count_wall"] / b["count_wall"] for a, b in zip(one, two, strict=True)]
        lines.append(f"| {name} | {spread(speed)} | {spread(faster, '×')} |")
    return lines


def encoding(bench: Bench) -> list[str]:
    """A cold pass over different documents, ids compared."""
    vocabulary = bench.vocabulary("mix")
    if not vocabulary.exists():
        bench.train("mix", [bench.corpus / "mix.jsonl"], cap=NO_CAP)
    json_file = bench.scratch / "tokenizer.json"
    source = {"vocabulary": str(vocabulary)}
    expression = {"expression": PATTERN}
    bench.job("json", "write_tokenizer_json", out=str(json_file), **source, **expression)
    strange = _pathological(bench.scratch)
    texts = {kind: bench.corpus / f"heldout_{kind}.jsonl" for kind in KINDS}
    texts |= {path.stem: path for path in strange}
    for number in range(bench.rounds):
        for name, path in texts.items():
            if path in strange and number:
                continue
            arguments = {"texts": str(path), "limit": ENCODED_BYTES}
            bench.job(f"penjing {name}", "encode_penjing", **arguments, **source)
            bench.job(f"tiktoken {name}", "encode_tiktoken", **arguments, **source, **expression)
            for peer in ("gigatoken", "fastokens"):
                job = f"encode_{peer}"
                bench.job(f"{peer} {name}", job, **arguments, tokenizer_json=str(json_file))
    peers = ("penjing", "tiktoken", "gigatoken", "fastokens")
    lines = [
        "| encoding, cold, MB per core second | "
        + " | ".join(peers)
        + " | ours × tiktoken | ids |",
        "|---" * (len(peers) + 3) + "|",
    ]
    for name in texts:
        every = {peer: bench.answers[f"{peer} {name}"] for peer in peers}
        digests = {peer: answers[-1]["digest"] for peer, answers in every.items()}
        failed = [peer for peer in peers if digests[peer] == "failed"]
        others = [peer for peer in peers if digests[peer] not in ("failed", digests["penjing"])]
        speeds = [
            spread([a["text_bytes"] / 1e6 / max(a["cold"], 1e-6) for a in answers])
            for answers in every.values()
        ]
        ratio = bench.ratio(f"tiktoken {name}", f"penjing {name}", "cold")
        ids = "equal" if not others else "not " + ", ".join(others)
        ids += "".join(f"; {peer} failed" for peer in failed)
        lines.append(f"| {name} | {' | '.join(speeds)} | {ratio} | {ids} |")
    return lines


def _pathological(scratch: Path) -> list[Path]:
    """Ten inputs that have hung tokenizers, each as one document in a file of its own."""
    texts = {
        "letter": "a" * 1_000_000,
        "spaces": " " * 1_000_000,
        "newlines": "\n" * 1_000_000,
        "digits": "7" * 1_000_000,
        "carets": "^" * 1_000_000,
        "han": "".join(chr(0x4E00 + number * 7919 % 20_000) for number in range(333_333)),
        "letters": "".join(chr(97 + number * number * 31 % 26) for number in range(200_000)),
        "latin1": bytes(number * 2_654_435_761 % 2**32 >> 24 for number in range(10**6)).decode(
            "latin-1"
        ),
        "pairs": "ab" * 500_000,
        "emoji": "👩‍👩‍👧‍👦" * 40_000,
    }
    paths = []
    for name, text in texts.items():
        paths.append(scratch / f"{name}.jsonl")
        paths[-1].write_text(json.dumps({"text": text}) + "\n")
    return paths


def bounded(bench: Bench) -> list[str]:
    """All of the corpus from gzip files: exact, and with words sampled to fit the memory."""
    files = sorted((bench.corpus / "full").glob("*.jsonl.gz"))
    for _ in range(bench.rounds):
        bench.train("full exact", files)
        bench.train("full bounded", files, memory_bytes=TRAIN_MEMORY_BYTES)
    return _compared(bench, ["full exact", "full bounded"], KINDS)


def chinese(bench: Bench) -> list[str]:
    """The Chinese of the shared data: exact, sampled, and pruned as some trainers do."""
    folder = bench.scratch / "zh"
    folder.mkdir(exist_ok=True)
    lines = (bench.corpus / "zh.jsonl").read_bytes().splitlines(keepends=True)
    heldout, training_lines = lines[::50], [line for n, line in enumerate(lines) if n % 50]
    (bench.corpus / "heldout_zh50.jsonl").write_bytes(b"".join(heldout))
    files = [folder / f"{number}.jsonl" for number in range(8)]
    for number, file in enumerate(files):
        file.write_bytes(b"".join(training_lines[number::8]))
    bench.train("zh exact", files)
    bench.train("zh bounded", files, memory_bytes=TRAIN_MEMORY_BYTES)
    bench.train("zh pruned", files, prune=PRUNED_WORDS)
    return _compared(bench, ["zh exact", "zh bounded", "zh pruned"], ("zh50",))


def _compared(bench: Bench, labels: list[str], kinds: tuple[str, ...]) -> list[str]:
    """Speed, memory, threshold and bytes a token of several trainings on one corpus."""
    lines = [
        "| training, 50,000 merges | threshold | kept | CPU s | MB per CPU s | peak MB | "
        + " | ".join(f"{kind}: bytes/token" for kind in kinds)
        + " |",
        "|---" * (6 + len(kinds)) + "|",
    ]
    base: dict[str, float] = {}
    for label in labels:
        answer = bench.answers[label][-1]
        cells = []
        for kind in kinds:
            texts = {"texts": str(bench.corpus / f"heldout_{kind}.jsonl"), "limit": ENCODED_BYTES}
            vocabulary = str(bench.vocabulary(label))
            held = bench.job(f"{label} {kind}", "encode_penjing", vocabulary=vocabulary, **texts)
            value = held["text_bytes"] / held["tokens"]
            change = 100 * (value / base.setdefault(kind, value) - 1)
            cells.append(f"{value:.4f}" + (f" ({change:+.2f} %)" if label != labels[0] else ""))
        speed = [a["text_bytes"] / 1e6 / a["cpu"] for a in bench.answers[label]]
        lines.append(
            f"| {label} | {answer['threshold']} | {answer['kept_occurrences']:.4f} | "
            f"{spread(bench.values(label, 'cpu'))} | {spread(speed)} | "
            f"{max(bench.values(label, 'peak')) / 1e6:.0f} | {' | '.join(cells)} |"
        )
        phases = ", ".join(f"{name} {spent:.2f}" for name, spent in answer["phases"].items())
        lines.append(f"<!-- {label}: {phases} CPU s -->")
    comments = [line for line in lines if line.startswith("<!--")]
    return [line for line in lines if line not in comments] + comments


PARTS: dict[str, Callable[[Bench], list[str]]] = {
    part.__name__: part for part in (training, counting, encoding, bounded, chinese)
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="made by benchmarks.corpus")
    parser.add_argument("--peers", type=Path, required=True, help="python of the peers' venv")
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/penjing-tokenizer"))  # noqa: S108
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    arguments = parser.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    bench = Bench(arguments.corpus, arguments.peers, arguments.scratch, arguments.rounds)
    core = "compiled" if native.COMPILED else "the slow twin in Python"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {_processor()}, {bench.rounds} rounds, core: {core}\n")
    for part in arguments.parts:
        print("\n".join([*PARTS[part](bench), ""]), flush=True)
    return 0


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return "unknown processor"


if __name__ == "__main__":
    sys.exit(main())
