"""Read what a run left on disk into one typed value; it judges nothing and draws nothing.

A failed or unfinished run is read as far as it goes: what is missing is `None` or empty, and a
file that cannot be read becomes a line of `RunReport.unreadable`.
"""

import dataclasses
import json
import random
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from penjing.artifacts.lines import read_record, read_records
from penjing.artifacts.records import (
    Event,
    Manifest,
    RolloutRecord,
    SampleRecord,
    StepRecord,
    TaskResult,
    TimingRecord,
    TokenizerEvaluation,
)
from penjing.artifacts.stage import read_manifest
from penjing.config.schema import STAGE_NAMES
from penjing.errors import PenjingError
from penjing.intervals import mean_interval
from penjing.seeds import seed_for

TRAINED = ("pretrain", "midtrain", "sft", "dpo", "rl")
ALWAYS = ("tokenizer", "shards", "evaluate")
LATEST = {
    "started": "running",
    "resumed": "running",
    "failed": "failed",
    "interrupted": "stopped",
    "finished": "missing",  # and its manifest is gone
    "set_aside": "missing",
}
STATUSES = ("failed", "stopped", "running", "missing", "ok")
Value = TypeVar("Value")


@dataclass(frozen=True)
class StageReport:
    """One stage of the run: `status` is ok, failed, stopped (resumable), running or missing."""

    name: str
    status: str
    reason: str
    manifest: Manifest | None
    steps: tuple[StepRecord, ...]
    timings: tuple[TimingRecord, ...]
    samples: tuple[SampleRecord, ...]

    @property
    def state(self) -> str:
        verb = self.status if self.status in ("failed", "stopped") else f"is {self.status}"
        return f"{self.name} {verb}: {self.reason}"

    def result(self, key: str) -> Any:
        """What the manifest's results say, None if it says nothing."""
        return self.manifest.results.get(key) if self.manifest else None

    @property
    def seconds(self) -> float | None:
        """Wall seconds: after a resume the manifest counts the last session, the timings all."""
        return self._longer("seconds")

    @property
    def cpu_seconds(self) -> float | None:
        return self._longer("cpu_seconds")

    @property
    def data_share(self) -> float | None:
        """The share of the steps' wall time spent waiting for batches; in rl, for rollouts."""
        seconds = sum(timing.seconds for timing in self.timings)
        return sum(timing.data_seconds for timing in self.timings) / seconds if seconds else None

    @property
    def peak_memory_bytes(self) -> int | None:
        known = [timing.peak_memory_bytes for timing in self.timings]
        known += [self.manifest.peak_memory_bytes] if self.manifest else []
        return max(known, default=None)

    @property
    def tokens(self) -> int | None:
        return self.result("tokens") or sum(step.tokens for step in self.steps) or None

    @property
    def final_loss(self) -> float | None:
        return self._last([step.loss for step in self.steps])

    @property
    def validation_bpb(self) -> float | None:
        return self._last([step.values.get("validation_bpb") for step in self.steps])

    def _longer(self, field: str) -> float | None:
        known = [sum(getattr(timing, field) for timing in self.timings)] if self.timings else []
        known += [getattr(self.manifest, field)] if self.manifest else []
        return max(known, default=None)

    def _last(self, logged: list[float | None]) -> float | None:
        known = [value for value in logged if value is not None]
        return known[-1] if known else None


@dataclass(frozen=True)
class Delta:
    """A score's change between two stages, paired over the problems that both answered."""

    task: str
    metric: str
    before: str
    after: str
    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Rollouts:
    """A few of RL's rollouts, chosen by reward and by lot."""

    count: int = 0
    good: tuple[RolloutRecord, ...] = ()
    bad: tuple[RolloutRecord, ...] = ()
    drawn: tuple[RolloutRecord, ...] = ()


@dataclass(frozen=True)
class RunReport:
    """Everything the report shows, before any wording. `results` hold no items."""

    name: str
    config: dict[str, Any]
    config_text: str
    machine: dict[str, Any]
    stages: tuple[StageReport, ...]
    events: tuple[Event, ...]
    results: tuple[TaskResult, ...]
    deltas: tuple[Delta, ...]
    rollouts: Rollouts
    compression: TokenizerEvaluation | None
    unreadable: tuple[str, ...]

    def stage(self, name: str) -> StageReport | None:
        return next((stage for stage in self.stages if stage.name == name), None)

    @property
    def trained(self) -> tuple[StageReport, ...]:
        return tuple(stage for stage in self.stages if stage.name in TRAINED)

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        return tuple(stage.manifest for stage in self.stages if stage.manifest)

    @property
    def parameters(self) -> int | None:
        return next(filter(None, (stage.result("parameters") for stage in self.trained)), None)


def collect(run_dir: Path) -> RunReport:
    """Read a run directory, however far the run came."""
    unreadable: list[str] = []

    def attempt(read: Callable[[Path], Value], path: Path, otherwise: Value) -> Value:
        if not path.exists():
            return otherwise
        try:
            return read(path)
        except (OSError, ValueError, TypeError, KeyError, PenjingError) as error:
            unreadable.append(f"{path.relative_to(run_dir)}: {error}")
            return otherwise

    def lines(path: Path, record: type[Value]) -> tuple[Value, ...]:
        found: list[Value] = []  # what stands before a damaged line is kept
        attempt(lambda log: found.extend(read_records(log, record)), path, None)
        return tuple(found)

    text = attempt(lambda path: path.read_text("utf-8"), run_dir / "config.toml", "")
    no_config: dict[str, Any] = {}
    config = attempt(lambda _: tomllib.loads(text), run_dir / "config.toml", no_config)
    events = lines(run_dir / "events.jsonl", Event)

    def stage(name: str) -> StageReport:
        directory = run_dir / name
        manifest = attempt(lambda _: read_manifest(directory), directory / "stage.json", None)
        steps = lines(directory / "metrics.jsonl", StepRecord)
        status, reason = _status(name, manifest, events, steps)
        return StageReport(
            name=name,
            status=status,
            reason=reason,
            manifest=manifest,
            steps=steps,
            timings=lines(directory / "timings.jsonl", TimingRecord),
            samples=lines(directory / "samples.jsonl", SampleRecord),
        )

    wanted = [n for n in STAGE_NAMES if n in ALWAYS or (n in ("clean", *TRAINED) and n in config)]
    files = sorted((run_dir / "evaluate").glob("*.*.*.json"))
    results = [attempt(lambda p: read_record(p, TaskResult), path, None) for path in files]
    scores = tuple(result for result in results if result)
    return RunReport(
        name=str(config.get("name", run_dir.name)),
        config=config,
        config_text=text,
        machine=attempt(lambda p: dict(json.loads(p.read_text())), run_dir / "machine.json", {}),
        stages=tuple(stage(name) for name in wanted),
        events=events,
        results=tuple(dataclasses.replace(score, items=()) for score in scores),
        deltas=_deltas(scores),
        rollouts=_choose(lines(run_dir / "rl" / "rollouts.jsonl", RolloutRecord)),
        compression=attempt(_compression, run_dir / "tokenizer" / "evaluation.json", None),
        unreadable=tuple(unreadable),
    )


def to_json(report: RunReport) -> str:
    """All that was collected, for other programs."""
    value = {"schema_version": 1, **dataclasses.asdict(report)}
    return json.dumps(value, allow_nan=False, indent=1, default=str)


def _compression(path: Path) -> TokenizerEvaluation | None:
    return read_record(path, TokenizerEvaluation)


def _status(
    name: str, manifest: Manifest | None, events: Iterable[Event], steps: tuple[StepRecord, ...]
) -> tuple[str, str]:
    if manifest:
        return "ok", ""
    told = [event for event in events if event.stage == name and event.kind in LATEST]
    if not told:
        return "missing", "not started"
    last, status = told[-1], LATEST[told[-1].kind]
    reached = f"at step {steps[-1].step}" if steps else "before the first step"
    if status == "running":
        return status, f"{last.kind} {last.time}, {reached}, no end recorded"
    return status, f"{last.message or last.kind} ({reached})"


def _deltas(results: Iterable[TaskResult]) -> tuple[Delta, ...]:
    """Changes from each stage to the next one that has the same score."""
    found = []
    by_score: dict[tuple[str, str], list[TaskResult]] = {}
    known = (result for result in results if result.stage in TRAINED and result.value is not None)
    for result in sorted(known, key=lambda result: TRAINED.index(result.stage)):
        if result.items:
            by_score.setdefault((result.task, result.metric), []).append(result)
    for (task, metric), row in sorted(by_score.items()):
        for before, after in pairwise(row):
            old, new = _by_problem(before), _by_problem(after)
            changes = [new[problem] - old[problem] for problem in sorted(new.keys() & old.keys())]
            if len(changes) > 1:
                stages = (before.stage, after.stage)
                found.append(Delta(task, metric, *stages, *mean_interval(changes), len(changes)))
    return tuple(found)


def _by_problem(result: TaskResult) -> dict[str, float]:
    """Mean score of each problem: a sampled one has several answers."""
    scores: dict[str, list[float]] = {}
    for item in result.items:
        scores.setdefault(item.problem_id, []).append(item.score)
    return {problem: sum(given) / len(given) for problem, given in scores.items()}


def _choose(rollouts: tuple[RolloutRecord, ...], each: int = 4) -> Rollouts:
    """The best and the worst of the last quarter, and some of all by lot (a fixed seed)."""
    late = rollouts[len(rollouts) * 3 // 4 :]
    ranked = sorted(late, key=lambda rollout: -rollout.reward)
    half = min(each, len(ranked) // 2)
    lot = random.Random(seed_for(0, "report", "rollouts"))
    return Rollouts(
        count=len(rollouts),
        good=tuple(ranked[:half]),
        bad=tuple(ranked[len(ranked) - half :]),
        drawn=tuple(lot.sample(rollouts, min(each, len(rollouts)))),
    )
