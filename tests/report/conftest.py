"""A run directory as the stages would leave it, with made-up numbers."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penjing.artifacts.records import (
    Event,
    ItemRecord,
    Manifest,
    RolloutRecord,
    SampleRecord,
    StepRecord,
    TaskResult,
    TimingRecord,
    to_json,
)
from penjing.artifacts.stage import identity_digest

CONFIG = """name = "tiny"
seed = 1
[model]
depth = 4
[sources.stories]
synthetic = "stories"
rows = 20000
language = "en"
licence = "CC0-1.0"
[sources.chats]
kind = "conversations"
synthetic = "chats"
rows = 8000
tool_share = 0.1
[tokenizer]
vocab_size = 8192
[pretrain]
steps = 400
mixture = { stories = 1.0 }
[midtrain]
steps = 100
mixture = { stories = [0.9, 0.4], chats = [0.1, 0.6] }
[sft]
steps = 120
mixture = { chats = 1.0 }
[dpo]
steps = 40
[rl]
steps = 50
"""
STEPS = {"pretrain": 400, "midtrain": 100, "sft": 120, "dpo": 40, "rl": 50}
STARTS = {"pretrain": (9.0, 2.1), "midtrain": (2.4, 1.7), "sft": (2.6, 0.9)}
PROMPTS = ("Once upon a time", "What is 23 × 41?", "Who are you?")
HOSTILE = "<script>alert(1)</script> | `code` [x](javascript:1) \x1b[31m\u202e"
Write = Callable[..., Path]


@pytest.fixture
def write_run(tmp_path: Path) -> Write:
    """Builds `tiny`, finished up to and including `until`."""

    def write(until: str = "evaluate", failure: str = "") -> Path:
        run = tmp_path / "tiny"
        names = ("tokenizer", "shards", *STEPS, "evaluate")
        for place, name in enumerate(names[: names.index(until) + 1]):
            _stage(run, name, place)
        (run / "config.toml").write_text(CONFIG)
        machine = {
            "device": "cpu",
            "cpu": "Example CPU @ 2.5 GHz",
            "dtype": "float32",
            "threads": 2,
        }
        machine["measurements"] = {"float32": 151.2, "bfloat16": 96.5}
        (run / "machine.json").write_text(json.dumps(machine))
        events = [Event("2026-11-21T09:00:00.000+00:00", "started", "tokenizer", "begins")]
        if failure:
            after = names[names.index(until) + 1]
            events.append(Event("2026-11-21T09:30:00.000+00:00", "started", after, "begins"))
            events.append(Event("2026-11-21T09:31:00.000+00:00", "failed", after, failure))
        _lines(run / "events.jsonl", events)
        return run

    return write


def _lines(path: Path, records: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(to_json(record) + "\n" for record in records))


def _stage(run: Path, name: str, place: int) -> None:
    results: dict[str, Any] = {}
    if name == "tokenizer":
        results = {"vocab_size": 8192, "documents": 28000, "bytes_per_token": 4.107}
    if name == "shards":
        stories = {"name": "stories", "kind": "documents", "documents": 19804, "tokens": 3112450}
        stories |= {"bytes": 12802000, "validation_documents": 196, "bad_rows": 3}
        chats = {"name": "chats", "kind": "conversations", "documents": 7920, "tokens": 610300}
        chats |= {"bytes": 2000100, "validation_documents": 80, "bad_rows": 0, "overlong": 7}
        results = {"sources": [stories, chats]}
    if name in STEPS:
        results = _training(run / name, name)
    if name == "evaluate":
        _scores(run / name)
    identity = {"seed": 1, "stage": name}
    manifest = Manifest(
        stage=name,
        identity=identity,
        identity_digest=identity_digest(identity),
        inputs={"tokenizer": "ab" * 32} if place else {},
        seed=1,
        versions={"python": "3.11.9", "torch": "2.13.0", "git_commit": "0123456789abcdef+"},
        machine={},
        started=f"2026-11-21T09:0{place}:00.000+00:00",
        finished=f"2026-11-21T09:0{place + 1}:00.000+00:00",
        seconds=11.5 * (place + 1),
        cpu_seconds=22.1 * (place + 1),
        peak_memory_bytes=700 * 2**20,
        results=results,
    )
    _lines(run / name / "stage.json", [manifest])


def _training(directory: Path, name: str) -> dict[str, Any]:
    dice = random.Random(name)
    steps, timings = [], []
    total = STEPS[name]
    high, low = STARTS.get(name, (0.69, 0.5))
    for step in range(1, total + 1):
        done = step / total
        loss = low + (high - low) * math.exp(-5 * done) + dice.gauss(0, 0.04)
        values = {}
        if name in STARTS and step % 20 == 0:
            values["validation_bpb"] = loss / 2.5
            values |= {"validation_bpb.stories": loss / 2.6, "validation_bpb.poems": loss / 2.4}
            values |= {"requested_share.stories": done, "realised_share.stories": done}
        if name == "rl":
            reward = 0.15 + 0.75 / (1 + math.exp(-12 * (done - 0.45)))
            values = {"reward": reward + dice.gauss(0, 0.03), "entropy": 0.9 - 0.5 * done}
            if step % 10 == 0:
                values["greedy_accuracy"] = min(1.0, reward + 0.05)
        schedule = min(1.0, step / 20, 2 * (1 - done))
        skipped = "not finite" if name == "pretrain" and step == 57 else ""
        skipped = "no targets" if name == "rl" and step in (3, 4) else skipped
        steps.append(
            StepRecord(step, None if skipped else loss, 0.8, schedule, 2000, 2048, skipped, values)
        )
        timings.append(TimingRecord(step, 0.2, 0.4, 9800 + dice.gauss(0, 300), 650 * 2**20))
    _lines(directory / "metrics.jsonl", steps)
    _lines(directory / "timings.jsonl", timings)
    texts = (", there was a small fox who lived by the lake.", "23 × 41 = 943.", HOSTILE)
    _lines(
        directory / "samples.jsonl",
        [
            SampleRecord(name, step, prompt, text, 64, "length", 0.7, 1)
            for step in range(total // 4, total + 1, total // 4)
            for prompt, text in zip(PROMPTS, texts, strict=True)
        ],
    )
    results: dict[str, Any] = {
        "steps": total,
        "tokens": total * 2048,
        "planned_tokens": total * 2048,
    }
    results |= {"targets": total * 2000, "final_loss": steps[-1].loss, "parameters": 7_345_408}
    if name in STARTS:
        results["utilization"] = 0.976
        source = "chats" if name == "sft" else "stories"
        share: dict[str, Any] = {"source": source, "requested_start": 0.9, "requested_end": 0.4}
        epochs = 5.2 if name == "sft" else 0.31
        share |= {"requested": 0.65, "realised": 0.652, "epochs": epochs}
        results["mixture"] = [share | {"overlong": 7 if name == "sft" else 0}]
        results["overlong"] = "drop_oldest"
    if name == "dpo":
        results["overlong_pairs"] = 2
    if name != "pretrain":
        results["start_stage"] = list(STEPS)[list(STEPS).index(name) - 1]
    if name == "rl":
        _rollouts(directory / "rollouts.jsonl")
    return results


def _rollouts(path: Path) -> None:
    dice = random.Random(2)
    records = []
    for step in range(1, 51):
        for sample in range(4):
            right = dice.random() < step / 50
            text = "<tool_call>23*41</tool_call> 943" if right else HOSTILE
            ids = (step, f"p{step}", sample, "What is 23 × 41?", text)
            records.append(
                RolloutRecord(*ids, float(right), right - 0.5, 31, 22, int(right), "stop")
            )
    _lines(path, records)


def _scores(directory: Path) -> None:
    levels = {"pretrain": 0.02, "midtrain": 0.08, "sft": 0.31, "dpo": 0.32, "rl": 0.88}
    for stage, level in levels.items():
        for task, baseline in (("products", 0.0), ("facts", 0.25)):
            value = level if task == "products" else 0.25 + level / 8
            items = tuple(
                ItemRecord(f"q{i}", "q", "a", HOSTILE, float(i < 100 * value), "stop")
                for i in range(100)
            )
            low, high = max(0.0, value - 0.08), min(1.0, value + 0.08)
            score = TaskResult(
                stage, task, "accuracy", value, low, high, 100, baseline, baseline, "", items
            )
            _lines(directory / f"{stage}.{task}.accuracy.json", [score])
    none = (None, None, None)
    reason = TaskResult("rl", "wordplay", "accuracy", *none, 0, None, None, "no problems were made")
    _lines(directory / "rl.wordplay.accuracy.json", [reason])
    bits = TaskResult("rl", "text", "bits_per_byte", 0.912, None, None, 40100, None, None)
    _lines(directory / "rl.text.bits_per_byte.json", [bits])
