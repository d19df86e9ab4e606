"""The records that a run leaves on disk, one JSON object each.

Their fields are the public format of `docs/artifacts.md`; how they are written safely is
`artifacts.directories`' duty.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, TypeVar

Record = TypeVar("Record")


@dataclass(frozen=True)
class StepRecord:
    """A line of `metrics.jsonl`: only what seed and data determine.

    `skipped` says why the weights were left alone: "", "no targets", "not finite", "spike" or "skip
    list" (passed over after a return to an earlier checkpoint). `values` holds
    what a stage adds (`validation_bpb`, `reward`, `margin_accuracy`, ...), by name.
    """

    step: int
    loss: float | None
    grad_norm: float | None
    schedule: float
    targets: int
    tokens: int
    skipped: str = ""
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TimingRecord:
    """A line of `timings.jsonl`: what depends on the machine and the hour.

    `mfu` is the share of the machine's matrix product peak, by convention A (docs/glossary.md), or
    None where the peak is unknown; `memory_bytes` is held after the step, `reserved_bytes` are kept
    by the device's allocator, `peak_memory_bytes` is the most so far.
    """

    step: int
    seconds: float
    cpu_seconds: float
    tokens_per_second: float
    peak_memory_bytes: int
    data_seconds: float = 0.0
    mfu: float | None = None
    memory_bytes: int = 0
    reserved_bytes: int = 0


@dataclass(frozen=True)
class SampleRecord:
    """A line of `samples.jsonl`: one answer to a fixed prompt.

    `prompt_set` is the set that it belongs to, "" for the run file's own; `group` its kind there.
    """

    stage: str
    step: int
    prompt: str
    text: str
    tokens: int
    finish_reason: str
    temperature: float
    seed: int
    prompt_set: str = ""
    group: str = ""


@dataclass(frozen=True)
class RolloutRecord:
    """A line of `rollouts.jsonl`: one sampled answer of RL, graded."""

    step: int
    prompt_id: str
    sample: int
    prompt: str
    text: str
    reward: float
    advantage: float
    tokens: int
    sampled_tokens: int
    tool_calls: int
    finish_reason: str


@dataclass(frozen=True)
class ItemRecord:
    """One problem of a task as one model answered it."""

    problem_id: str
    prompt: str
    wanted: str
    answer: str
    score: float
    finish_reason: str


@dataclass(frozen=True)
class TaskResult:
    """One score of one stage's model: `evaluate/STAGE.TASK.METRIC.json`.

    A task that could not be run has `value = None` and says why in `reason`.
    """

    stage: str
    task: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    random_baseline: float | None
    majority_baseline: float | None
    reason: str = ""
    items: tuple[ItemRecord, ...] = ()


@dataclass(frozen=True)
class CompressionRecord:
    """The tokens of one text in one vocabulary: ours, or another's.

    `difference_percent` says how many fewer tokens we need, in % of theirs: above 0 ours is better.
    """

    text: str
    vocabulary: str
    bytes: int
    tokens: int
    bytes_per_token: float
    difference_percent: float | None


@dataclass(frozen=True)
class TokenizerEvaluation:
    """`tokenizer/evaluation.json`: what the tokenizer is, and how well it compresses.

    `absent` says why a vocabulary was not compared with.
    """

    vocab_size: int
    num_special_tokens: int
    token_bytes_min: int
    token_bytes_max: int
    token_bytes_mean: float
    token_bytes_std: float
    max_chars: int | None
    doc_cap: int | None
    absent: dict[str, str]
    texts: tuple[CompressionRecord, ...]


@dataclass(frozen=True)
class Event:
    """A line of `events.jsonl`: started, resumed, failed, interrupted, skipped_step, warning..."""

    time: str
    kind: str
    stage: str
    message: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EditRecord:
    """A line of `edits.jsonl`: sources added to a run, or a mixture changed while its stage runs.

    `shares` has of each source its share before, at `first_row`, and after, `blend_rows` later;
    `digests`, if sources were `added`, of each stage that was made larger those before and after.
    """

    time: str
    stage: str
    first_row: int
    blend_rows: int
    added: tuple[str, ...]
    shares: dict[str, list[float]] = field(default_factory=dict)
    digests: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """`stage.json`, written last: its existence means that the stage is finished."""

    stage: str
    identity: dict[str, Any]
    identity_digest: str
    inputs: dict[str, str]
    seed: int
    versions: dict[str, str]
    machine: dict[str, Any]
    started: str
    finished: str
    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    results: dict[str, Any] = field(default_factory=dict)


def to_json(record: Any) -> str:
    """One line of JSON, keys in field order, non-finite numbers refused (ValueError)."""
    return json.dumps(dataclasses.asdict(record), ensure_ascii=False, allow_nan=False)
