"""How long a training stage is and which mixture it follows: planned once, and kept as `plan.json`.

What is asked for stands in the run file; a plan on disk changes only by `--extend` and `edit`.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penjing.artifacts.lines import write_atomic
from penjing.config.mixtures import read_share, share_value
from penjing.config.model import ModelShape
from penjing.config.training import HORIZONS, TrainingConfig
from penjing.data.mixture import Segment
from penjing.errors import ArtifactError, ConfigError
from penjing.model.size import flops_per_token, parameters

PLAN = "plan.json"


@dataclass(frozen=True)
class StagePlan:
    """The steps of a stage, the horizon from which they follow, and the course of its mixture."""

    steps: int
    horizon: tuple[str, float]
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Measures:
    """What steps may be counted from; the functions are asked only if the horizon needs them.

    `rows_an_epoch` are those of all the mixture's sources together.
    """

    shape: ModelShape
    rows_an_epoch: Callable[[], int]
    seconds_per_step: Callable[[], float]


def rows_per_step(section: TrainingConfig, shape: ModelShape) -> int:
    return section.tokens_per_step // shape.max_position_embeddings


def steps_of(section: TrainingConfig, measures: Measures) -> int:
    """The steps that a table's horizon comes to, rounded up."""
    form, amount = horizon_of(section)
    shape, tokens = measures.shape, section.tokens_per_step
    if form == "steps":
        return int(amount)
    if form == "tokens":
        steps = amount / tokens
    elif form == "flops":
        steps = amount / flops_per_token(shape, shape.max_position_embeddings) / tokens
    elif form == "tokens_per_parameter":
        steps = amount * parameters(shape).total / tokens
    elif form == "epochs":
        steps = amount * measures.rows_an_epoch() / rows_per_step(section, shape)
    else:
        steps = amount / measures.seconds_per_step()
    # Of 5,075.0000000001 steps the last would be one of rounding errors.
    return max(1, math.ceil(steps * (1 - 1e-12)))


def horizon_of(section: TrainingConfig) -> tuple[str, float]:
    """The one form in which the horizon is given, and its number.

    Raises:
        ConfigError: none or several are; `config.loading` finds that first.
    """
    given = [(form, getattr(section, form)) for form in HORIZONS]
    found = [(form, amount) for form, amount in given if amount is not None]
    if len(found) != 1:
        raise ConfigError(f"found {len(found)} of {', '.join(HORIZONS)}: wanted exactly one")
    return found[0]


def open_plan(directory: Path, section: TrainingConfig, measures: Measures) -> StagePlan:
    """The stage's plan: the one on disk, made longer if the horizon grew, or else a new one."""
    old, horizon = read_plan(directory), horizon_of(section)
    if old is not None and old.horizon == horizon:
        return old
    steps = steps_of(section, measures)
    rows = steps * rows_per_step(section, measures.shape)
    # Old segments keep their length, so that rows that were trained on stay what they were.
    segments = old.segments if old else (Segment(0, section.mixture, rows),)
    plan = StagePlan(steps, horizon, segments)
    write_plan(directory, plan)
    return plan


def write_plan(directory: Path, plan: StagePlan) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    segments = [
        {
            "first_row": segment.first_row,
            "blend_rows": segment.blend_rows,
            "total_rows": segment.total_rows,
            "mixture": {share.source: share_value(share) for share in segment.shares},
        }
        for segment in plan.segments
    ]
    form, amount = plan.horizon
    value = {"steps": plan.steps, "horizon": {form: amount}, "segments": segments}
    write_atomic(directory / PLAN, (json.dumps(value, indent=1) + "\n").encode())


def read_plan(directory: Path) -> StagePlan | None:
    """The plan of a stage that was begun; None of another.

    Raises:
        ArtifactError: the file is damaged.
    """
    path = directory / PLAN
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_bytes())
        ((form, amount),) = value["horizon"].items()
        segments = tuple(_segment(one) for one in value["segments"])
        return StagePlan(int(value["steps"]), (form, amount), segments)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{path}: is no plan of a stage ({error}): do the stage again with --redo"
        ) from error


def _segment(value: Mapping[str, Any]) -> Segment:
    shares = []
    for source, written in value["mixture"].items():
        share, problem = read_share(source, written)
        if share is None:
            raise ValueError(f"{source}: {problem}")
        shares.append(share)
    rows = (int(value[key]) for key in ("first_row", "total_rows", "blend_rows"))
    first_row, total_rows, blend_rows = rows
    return Segment(first_row, tuple(shares), total_rows, blend_rows)
