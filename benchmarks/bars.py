"""Holds a finished demo run against the bars; exits 1 and says by how much one is missed.

`--level ci` asks for what may not fail by luck; `--level nightly` for everything promised.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import penjing
from penjing.artifacts.stage import read_manifest
from penjing.config.loading import load_run, section_of
from penjing.config.schema import STAGE_NAMES
from penjing.generate.engine import Request, generate
from penjing.generate.sampling import Sampling
from penjing.intervals import mean_interval
from penjing.synthetic import generators
from penjing.synthetic.copying import copies_a_run, run_index
from penjing.text.template import render_prompt

EXTRAS = ("letters", "recall_two", "spelling_new_words")
"""Scored, and beyond so small a model: it guesses, so a score moves by several problems of 50 when
nothing is lost. Their fall must be more than chance; every other skill's is taken as it is."""


@dataclass(frozen=True)
class Bar:
    """One promise: `value` must be at least (or, with `at_most`, at most) `bound`."""

    name: str
    value: float
    bound: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        mark = "ok    " if self.met else "MISSED"
        return f"{mark} {self.name:<46} {self.value:9.3f}  {sign} {self.bound:g}"


def main() -> int:
    """Prints every bar of the level."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--level", choices=("ci", "nightly"), default="nightly")
    arguments = parser.parse_args()
    bars = bars_of(arguments.run, arguments.level)
    sys.stdout.write("\n".join(str(bar) for bar in bars) + "\n")
    return 0 if all(bar.met for bar in bars) else 1


def bars_of(run: Path, level: str) -> list[Bar]:
    """Every bar of that level on the run."""
    config = load_run(run / "config.toml")
    stages = [name for name in STAGE_NAMES if section_of(config, name) is not None]
    manifests = [read_manifest(run / name) for name in stages]
    cpu = sum(manifest.cpu_seconds for manifest in manifests if manifest)
    score = _scores(run)
    bars = [
        Bar("stages finished", sum(m is not None for m in manifests), len(stages)),
        Bar("CPU seconds", cpu, 1100, at_most=True),
    ]
    if level == "ci":
        return [
            *bars,
            Bar("sft: stop rate", score("sft", "all", "stop_rate"), 0.9),
            Bar("rl: products, greedy", score("rl", "products", "accuracy"), 0.7),
        ]
    memory = max(manifest.peak_memory_bytes for manifest in manifests if manifest) / 1e9
    return [
        *bars,
        Bar("peak memory in GB", memory, 4, at_most=True),
        Bar("sft: stop rate", score("sft", "all", "stop_rate"), 0.99),
        Bar("sft: identity", score("sft", "identity", "accuracy"), 1.0),
        Bar("sft: recall of a just-told fact", score("sft", "recall", "accuracy"), 0.95),
        Bar("sft: spelling of lexicon words", score("sft", "spelling", "accuracy"), 0.95),
        Bar("before rl: products, sampled", _before_rl(score, run), 0.35, at_most=True),
        Bar("rl: tool use as it begins, at least", _first_tool_use(run), 0.2),
        Bar("rl: tool use as it begins, at most", _first_tool_use(run), 0.35, at_most=True),
        Bar("rl: products, sampled", score("rl", "products", "sampled_accuracy"), 0.85),
        Bar("rl: products, greedy", score("rl", "products", "accuracy"), 0.95),
        *_losses_to_rl(score, run),
        Bar("pretrain: fall of validation bpb", _bpb_fall(run), 0.2),
        Bar("rl: stories that copy 12 words", copied_share(run), 0.2, at_most=True),
    ]


def copied_share(run: Path, count: int = 100) -> float:
    """The share of stories, sampled at temperature 1, that repeat 12 words of a training story."""
    config, model = load_run(run / "config.toml"), penjing.load(run)
    tokenizer, seed = model.tokenizer, config.seed
    texts: list[str] = []
    for source in config.sources:
        if source.synthetic == "stories":
            texts += generators.documents("stories", seed, source.rows or 0)
        elif source.synthetic == "story_requests":
            asked = generators.conversations("story_requests", seed, source.rows or 0)
            texts += (conversation.messages[-1].text for conversation in asked)
    index = run_index(texts)
    wanted = generators.exercises("story_heroes", "test", seed, count)
    requests = [
        Request(tuple(render_prompt(tokenizer, one.prompt)), Sampling(max_new_tokens=160), place)
        for place, one in enumerate(wanted)
    ]
    stops = (tokenizer.im_end, tokenizer.end_of_text)
    completions = generate(model.transformer, requests, stop_ids=stops)
    told = [tokenizer.decode(list(completion.ids[:-1])) for completion in completions]
    return sum(copies_a_run(text, index) for text in told) / len(told)


def _scores(run: Path) -> Any:
    def score(stage: str, task: str, metric: str) -> float:
        path = run / "evaluate" / f"{stage}.{task}.{metric}.json"
        return float(json.loads(path.read_text())["value"]) if path.exists() else float("nan")

    return score


def _stage_before_rl(run: Path) -> str:
    return next(name for name in ("dpo", "sft") if (run / name / "stage.json").exists())


def _before_rl(score: Any, run: Path) -> float:
    return float(score(_stage_before_rl(run), "products", "sampled_accuracy"))


def _first_tool_use(run: Path, steps: int = 5) -> float:
    """The share of the first steps' rollouts in which the calculator was called."""
    lines = (run / "rl" / "rollouts.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    used = [bool(record["tool_calls"]) for record in records if record["step"] <= steps]
    return sum(used) / len(used)


def _losses_to_rl(score: Any, run: Path) -> list[Bar]:
    """How much each other skill fell from the stage before rl."""
    before, bars = _stage_before_rl(run), []
    for path in sorted((run / "evaluate").glob("rl.*.json")):
        _, task, metric, _ = path.name.split(".")
        if task in ("products", "text") or metric in ("tool_rate", "stop_rate"):
            continue
        if task in EXTRAS:
            name, fall = (
                f"rl: fall of {task} {metric}, at least",
                _sure_fall(run, before, task, metric),
            )
        else:
            fall = score(before, task, metric) - score("rl", task, metric)
            name = f"rl: fall of {task} {metric}"
        bars.append(Bar(name, fall, 0.03, at_most=True))
    return bars


def _sure_fall(run: Path, before: str, task: str, metric: str) -> float:
    """The least fall that the problems, paired, are compatible with (95 %)."""
    falls: dict[str, float] = {}
    for stage, sign in ((before, 1.0), ("rl", -1.0)):
        result = json.loads((run / "evaluate" / f"{stage}.{task}.{metric}.json").read_text())
        for item in result["items"]:
            problem = item["problem_id"]
            falls[problem] = falls.get(problem, 0.0) + sign * item["score"]
    _, low, _ = mean_interval(list(falls.values()))
    return low


def _bpb_fall(run: Path) -> float:
    lines = (run / "pretrain" / "metrics.jsonl").read_text().splitlines()
    values = [json.loads(line)["values"].get("validation_bpb") for line in lines]
    curve = [value for value in values if value is not None]
    return float(curve[0] - curve[-1])


if __name__ == "__main__":
    sys.exit(main())
