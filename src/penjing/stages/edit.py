"""The verb `edit`: sources added to a run, and another mixture for a stage that is being trained.

The user changes the run file; this verb takes over what an edit may change, records it, and says
what the shares were and will be. Anything else is `--redo`'s or `--extend`'s matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from penjing.artifacts import directories, disk
from penjing.artifacts.lines import LineLog, write_atomic
from penjing.artifacts.progress import Progress
from penjing.artifacts.records import EditRecord, Manifest, to_json
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
from penjing.stages import shards
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

EDITED = "shards.edited"
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
        done = []
        _finish_exchange(run_dir)
        running = [
            (stage, plan)
            for stage in TRAINED_STAGES
            if not finished(run_dir / stage) and (plan := read_plan(run_dir / stage))
        ]
        changes = [
            (stage, plan, _segment_of(context, stage, plan, wishes))
            for stage, plan in running
            if plan.segments[-1].shares != _section(config, stage).mixture
        ]
        added = _added_sources(context)
        _refuse_other_changes(context, {stage for stage, _ in running})
        if added:
            done.append(_add_sources(context, added))
        for stage, plan, segment in changes:
            done.append(_change(context, stage, plan, segment))
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
    for stage in ("tokenizer", "shards", *TRAINED_STAGES):
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


def _segment_of(context: StageContext, stage: str, plan: StagePlan, wishes: Wishes) -> Segment:
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
    before, after = _shares(plan.segments, segment, row_tokens)
    moved = sum(abs(after[name] - before[name]) for name in after) / 2
    least = int(LEAST_BLEND_SHARE * total) * row_tokens
    if moved > SUDDEN and blend * row_tokens < least and not wishes.abrupt and first_row:
        told = ", ".join(f"{n} {before[n]:.1%} → {after[n]:.1%}" for n in after)
        raise ConfigError(
            f"{stage}: {moved:.0%} of the rows would change their source within "
            f"{blend * row_tokens:,} tokens ({told}): a model forgets by it. Give --blend-tokens "
            f"of at least {least:,}, or say --abrupt"
        )
    return segment


def _shares(
    old: Sequence[Segment], new: Segment, row_tokens: int
) -> tuple[dict[str, float], dict[str, float]]:
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
    before, after = (dict(zip(plan.sources, plan.weights(row), strict=True)) for row in ends)
    return before, after


def _change(context: StageContext, stage: str, plan: StagePlan, segment: Segment) -> EditRecord:
    row_tokens = context.config.model.max_position_embeddings
    before, after = _shares(plan.segments, segment, row_tokens)
    record = EditRecord(
        utc_now(),
        stage,
        segment.first_row,
        segment.blend_rows,
        (),
        {name: [before[name], after[name]] for name in after},
    )
    _record(context, record)
    # Rows from here on were not trained on, so what was planned for them is no past.
    past = [part for part in plan.segments if part.first_row < segment.first_row]
    first = segment if past else replace(segment, blend_rows=0)
    write_plan(context.directory(stage), replace(plan, segments=(*past, first)))
    return record


def _record(context: StageContext, record: EditRecord) -> None:
    log = LineLog(context.run_dir / EDITS)
    log.append(record)
    log.sync()
    log.close()
    told = ", ".join(f"{n} {a:.1%} → {b:.1%}" for n, (a, b) in record.shares.items())
    text = (
        f"sources added: {', '.join(record.added)}"
        if record.added
        else (f"from row {record.first_row:,} on, over {record.blend_rows:,} rows: {told}")
    )
    append_event(context.run_dir, "edited", record.stage, text)
    context.show(Progress("edit", "message", text=f"{record.stage}: {text}"))


def _add_sources(context: StageContext, added: Sequence[str]) -> EditRecord:
    """Encodes new sources and puts them beside the old ones, which stay as they are."""
    old, target = context.directory("shards"), context.run_dir / EDITED
    if target.exists():
        directories.discard(target)
    stage = Stage("shards", ("tokenizer",), lambda one: shards.add_sources(one, added, old, target))
    wanted = stage_identity(context.config, "shards")
    run_stage(stage, context, target, wanted, input_digests(stage, context))
    before, after = read_manifest(old), read_manifest(target)
    assert before is not None and after is not None
    digests = (manifest_digest(before), manifest_digest(after))
    record = EditRecord(utc_now(), "shards", 0, 0, tuple(added), {}, digests)
    _record(context, record)
    _finish_exchange(context.run_dir)
    return record


def _finish_exchange(run_dir: Path) -> None:
    """Puts edited shards into their place, once their edit is recorded."""
    target, edits = run_dir / EDITED, read_edits(run_dir)
    manifest: Manifest | None = read_manifest(target) if target.exists() else None
    recorded = [edit.shards[1] for edit in edits if edit.shards]
    if manifest is not None and manifest_digest(manifest) in recorded[-1:]:
        set_aside(run_dir, ("shards",))
        disk.rename(target, run_dir / "shards")


def _begin_with(context: StageContext, stage: str) -> bool:
    """What the stage was begun with follows the edit, so that `train` goes on."""
    directory = context.directory(stage)
    begun, wanted = read_begun(directory), stage_identity(context.config, stage)
    if begun is None or not changed_fields(begun, wanted, begun.inputs):
        return False
    write_atomic(directory / BEGUN, to_json(replace(begun, identity=wanted)).encode())
    return True
