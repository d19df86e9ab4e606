"""The verb `edit`: sources added to a run, and another mixture for a stage that is being trained.

The user changes the run file; this verb takes over what an edit may change, records it, and says
what the shares were and will be. Anything else is `--redo`'s or `--extend`'s matter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from penjing.artifacts import directories, disk
from penjing.artifacts.lines import LineLog, write_atomic
from penjing.artifacts.progress import Progress
from penjing.artifacts.records import EditRecord, to_json
from penjing.artifacts.stage import (
    append_event,
    changed_fields,
    finished,
    read_manifest,
    run_lock,
    utc_now,
)
from penjing.config.loading import dump_run
from penjing.config.schema import RunConfig
from penjing.config.training import HORIZONS, TrainingConfig
from penjing.data.mixture import MixturePlan, Segment
from penjing.errors import ArtifactError, ConfigError
from penjing.stages import clean, shards
from penjing.stages.context import TRAINED_STAGES, Show, StageContext
from penjing.stages.horizon import StagePlan, read_plan, write_plan
from penjing.stages.upkeep import (
    BEGUN,
    EDITS,
    Stage,
    input_digests,
    manifest_digest,
    read_begun,
    read_edits,
    run_stage,
    set_aside,
    stage_identity,
)
from penjing.train.checkpoint import checkpoints

EXTENDED: dict[str, tuple[str, ...]] = {"clean": (), "shards": ("clean", "tokenizer")}
"""Stages to which sources are added, in order, and what they need."""

SUDDEN = 0.05
"""Share of rows that may change its source at once without being told to."""

BLEND_SHARE = 0.05
"""Of a stage's rows, over which an edit blends unless told."""

LEAST_BLEND_SHARE = 0.01
"""Of a stage's rows: a shorter blend is an abrupt switch."""


@dataclass(frozen=True)
class Wishes:
    """How an edit is to come in: over so many tokens (None: a twentieth of the stage)."""

    blend_tokens: int | None
    abrupt: bool


def edit(config: RunConfig, base: Path, runs: Path, wishes: Wishes, show: Show) -> list[EditRecord]:
    """Takes over added sources and changed mixtures of the run file; returns what was done.

    Raises:
        ConfigError: nothing changed, something else did, or a mixture would change abruptly.
        ArtifactError: the run has no shards yet, or is being trained right now.
    """
    run_dir = runs / config.name
    context = StageContext(config, base, run_dir, show)
    with run_lock(run_dir):
        done = list[EditRecord]()
        _finish_exchange(run_dir)
        running = [
            (stage, plan)
            for stage in TRAINED_STAGES
            if not finished(run_dir / stage) and (plan := read_plan(run_dir / stage))
        ]
        changes = [
            _change_of(context, stage, plan, wishes)
            for stage, plan in running
            if plan.segments[-1].shares != _section(config, stage).mixture
        ]
        added = _added_sources(context)
        _refuse_other_changes(context, {stage for stage, _ in running})
        if added:
            done.append(_add_sources(context, added))
        done += [_take_over(context, change) for change in changes]
        followed = [stage for stage, _ in running if _begin_with(context, stage)]
        if not done and not followed:
            raise ConfigError(
                f"{run_dir}: found neither a new source nor another mixture of a stage that is "
                "being trained: change the run file first"
            )
        write_atomic(run_dir / "config.toml", dump_run(config).encode())
    return done


def _section(config: RunConfig, stage: str) -> TrainingConfig:
    section = getattr(config, stage)
    if not isinstance(section, TrainingConfig):
        raise ConfigError(f"{stage} was begun, and the run file has no [{stage}] any more")
    return section


def _added_sources(context: StageContext) -> list[str]:
    manifest = read_manifest(context.directory("shards"))
    if manifest is None:
        raise ArtifactError(
            f"{context.run_dir} has no shards yet: nothing needs an edit; `penjing train` does all"
        )
    names = [source.name for source in context.config.sources if source.kind != "preferences"]
    return [name for name in names if f"sources.{name}.kind" not in manifest.identity]


def _refuse_other_changes(context: StageContext, running: set[str]) -> None:
    """An edit takes over mixtures of running stages and new sources alone."""
    config = context.config
    added = tuple(_added_sources(context))
    edits = [*read_edits(context.run_dir), EditRecord("", "", 0, 0, added)]
    for stage in ("clean", "tokenizer", "shards", *TRAINED_STAGES):
        directory = context.directory(stage)
        old = read_manifest(directory) or read_begun(directory)
        if old is None or getattr(config, stage) is None:
            continue
        wanted = stage_identity(config, stage, edits)
        new = tuple(f"sources.{name}." for name in added)
        found = changed_fields(old, wanted, old.inputs)
        found = [key for key in found if not key.startswith(new)]
        allowed = {f"{stage}.mixture"} if stage in running else set[str]()
        if wrong := sorted(set(found) - allowed):
            hint = "--extend" if wrong[0].split(".")[-1] in HORIZONS else f"--redo {stage}"
            raise ConfigError(
                f"found a change of {', '.join(wrong)}: an edit takes over new sources, and the "
                f"mixture of a stage that is being trained; for this use `penjing train` {hint}"
            )


@dataclass(frozen=True)
class _Change:
    """A new segment of a stage's plan, and each source's share before it and after."""

    stage: str
    plan: StagePlan
    segment: Segment
    shares: dict[str, list[float]]


def _change_of(context: StageContext, stage: str, plan: StagePlan, wishes: Wishes) -> _Change:
    """The new segment of a plan, from the newest checkpoint on.

    Raises:
        ConfigError: it would change more than a twentieth of the rows at once, untold.
    """
    section = _section(context.config, stage)
    row_tokens = context.config.model.max_position_embeddings
    a_step = section.tokens_per_step // row_tokens
    found = checkpoints(context.directory(stage))
    first_row = (int(found[-1].name[5:]) if found else 0) * a_step
    total = plan.steps * a_step
    default = int(BLEND_SHARE * total) * row_tokens
    blend = (default if wishes.blend_tokens is None else wishes.blend_tokens) // row_tokens
    segment = Segment(first_row, section.mixture, total, blend)
    shares = _shares(plan.segments, segment, row_tokens)
    moved = sum(abs(after - before) for before, after in shares.values()) / 2
    least = int(LEAST_BLEND_SHARE * total) * row_tokens
    if moved > SUDDEN and blend * row_tokens < least and not wishes.abrupt and first_row:
        raise ConfigError(
            f"{stage}: {moved:.0%} of the rows would change their source within "
            f"{blend * row_tokens:,} tokens ({_told(shares)}): a model forgets by it. Give "
            f"--blend-tokens of at least {least:,}, or say --abrupt"
        )
    return _Change(stage, plan, segment, shares)


def _told(shares: Mapping[str, Sequence[float]]) -> str:
    return ", ".join(f"{name} {a:.1%} → {b:.1%}" for name, (a, b) in shares.items())


def _shares(old: Sequence[Segment], new: Segment, row_tokens: int) -> dict[str, list[float]]:
    """Each source's share before the new segment, and when it is wholly in.

    Shares given as epochs count as 1 here: their rows are known when training goes on.
    """
    segments = [
        replace(
            part,
            shares=tuple(
                replace(share, start=1.0, end=1.0, epochs=None, max_epochs=None)
                if share.epochs
                else replace(share, max_epochs=None)
                for share in part.shares
            ),
        )
        for part in (*old, new)
    ]
    plan = MixturePlan(segments, row_tokens)
    ends = (max(0, new.first_row - 1), new.first_row + new.blend_rows)
    pairs = zip(*map(plan.weights, ends), strict=True)
    return dict(zip(plan.sources, map(list, pairs), strict=True))


def _take_over(context: StageContext, change: _Change) -> EditRecord:
    segment, plan = change.segment, change.plan
    rows = (segment.first_row, segment.blend_rows)
    record = EditRecord(utc_now(), change.stage, *rows, (), change.shares)
    _record(context, record)
    # Rows from here on were not trained on, so what was planned for them is no past.
    past = [part for part in plan.segments if part.first_row < segment.first_row]
    first = segment if past else replace(segment, blend_rows=0)
    write_plan(context.directory(change.stage), replace(plan, segments=(*past, first)))
    return record


def _record(context: StageContext, record: EditRecord) -> None:
    log = LineLog(context.run_dir / EDITS)
    log.append(record)
    log.sync()
    log.close()
    rows = f"from row {record.first_row:,} on, over {record.blend_rows:,} rows"
    text = f"{rows}: {_told(record.shares)}"
    if record.added:
        text = f"sources added: {', '.join(record.added)}"
    append_event(context.run_dir, "edited", record.stage, text)
    context.show(Progress("edit", "message", text=f"{record.stage}: {text}"))


def _add_sources(context: StageContext, added: Sequence[str]) -> EditRecord:
    """Cleans and encodes new sources and puts them beside the old ones, which stay as they are."""
    digests: dict[str, list[str]] = {}
    made = {name: _edited(context.run_dir, name) for name in EXTENDED}
    works = {
        "clean": lambda one: clean.add_sources(
            one, added, context.directory("clean"), made["clean"]
        ),
        "shards": lambda one: shards.add_sources(
            one, added, context.directory("shards"), made["shards"], made["clean"]
        ),
    }
    for name, needs in EXTENDED.items():
        if getattr(context.config, name) is None:
            continue
        if made[name].exists():
            directories.discard(made[name])
        stage = Stage(name, needs, works[name])
        inputs = input_digests(stage, context)
        inputs |= {need: pair[1] for need, pair in digests.items() if need in needs}
        wanted = stage_identity(context.config, name)
        run_stage(stage, context, made[name], wanted, inputs)
        before, after = read_manifest(context.directory(name)), read_manifest(made[name])
        assert before is not None and after is not None
        digests[name] = [manifest_digest(before), manifest_digest(after)]
    record = EditRecord(utc_now(), "shards", 0, 0, tuple(added), {}, digests)
    _record(context, record)
    _finish_exchange(context.run_dir)
    return record


def _edited(run_dir: Path, stage: str) -> Path:
    return run_dir / f"{stage}.edited"


def _finish_exchange(run_dir: Path) -> None:
    """Puts edited stages into their place, once their edit is recorded."""
    edits = read_edits(run_dir)
    for stage in EXTENDED:
        target = _edited(run_dir, stage)
        manifest = read_manifest(target) if target.exists() else None
        recorded = [edit.digests[stage][1] for edit in edits if stage in edit.digests]
        if manifest is not None and manifest_digest(manifest) in recorded[-1:]:
            set_aside(run_dir, (stage,))
            disk.rename(target, run_dir / stage)


def _begin_with(context: StageContext, stage: str) -> bool:
    """What the stage was begun with follows the edit, so that `train` goes on."""
    directory = context.directory(stage)
    begun, wanted = read_begun(directory), stage_identity(context.config, stage)
    if begun is None or not changed_fields(begun, wanted, begun.inputs):
        return False
    write_atomic(directory / BEGUN, to_json(replace(begun, identity=wanted)).encode())
    return True
