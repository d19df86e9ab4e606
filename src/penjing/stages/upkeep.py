"""Brings stages of a run up to date with its file.

A finished stage whose identity changed is stale, with all after it: nothing is retrained or
deleted unless the caller says so. Which stages there are is `stages.pipeline`'s duty; torch is not
loaded here.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from penjing.artifacts import directories, disk
from penjing.artifacts.lines import read_record, read_records, write_atomic
from penjing.artifacts.progress import Progress
from penjing.artifacts.records import EditRecord, Manifest, to_json
from penjing.artifacts.stage import (
    MANIFEST,
    append_event,
    changed_fields,
    identity_digest,
    read_manifest,
    run_lock,
    utc_now,
    versions,
    write_manifest,
)
from penjing.config.loading import dump_run, identity
from penjing.config.schema import STAGE_NAMES, RunConfig
from penjing.config.training import HORIZONS
from penjing.data.corpus import Conduct
from penjing.errors import ArtifactError, ConfigError, PenjingError, StoppedEarly
from penjing.process import cpu_seconds, peak_memory_bytes, started_ranks
from penjing.stages.context import TRAINED_STAGES, Show, StageContext

BEGUN = "begun.json"
"""What a training stage was begun with, as a manifest whose results are still empty."""

EDITS = "edits.jsonl"


@dataclass(frozen=True)
class Stage:
    """One stage: which finished stages it reads, and the function that does its work."""

    name: str
    needs: tuple[str, ...]
    run: Callable[[StageContext], dict[str, Any]]


def grow(
    stages: Sequence[Stage],
    config: RunConfig,
    base: Path,
    runs: Path,
    *,
    only: str | None,
    redo: str | None,
    extend: bool,
    show: Show,
    conduct: Conduct | None = None,
    part: str | None = None,
) -> Path:
    """Runs every stage that is not finished, in order; returns the run's directory.

    Args:
        stages: all that may be done, in order.
        config: the run.
        base: the folder from which the sources' paths start.
        runs: the folder of runs.
        only: do this one stage; the ones it needs must be finished.
        redo: keep this stage and all after it aside and do them again.
        extend: a stage whose horizon alone grew goes on from its last checkpoint.
        show: receives what the screen shows.
        conduct: how jobs over the corpus are run.
        part: of the tokenizer stage, the one part to do; what it needs must be there.

    Raises:
        ConfigError: a finished stage is stale and neither `redo` nor `extend` covers it; or there
            are several processes.
    """
    if started_ranks() > 1:
        raise ConfigError(
            f"found {started_ranks()} processes (WORLD_SIZE): start one, without torchrun; "
            "training over several processes through the command line comes later (the loop itself "
            "is tested on two ranks)"
        )
    run_dir = runs / config.name
    with run_lock(run_dir):
        directories.sweep_partials(run_dir)
        if redo:
            set_aside(run_dir, STAGE_NAMES[STAGE_NAMES.index(redo) :])
        context = StageContext(config, base, run_dir, show, conduct or Conduct(), part)
        for stage in stages:
            if getattr(config, stage.name) is not None and only in (None, stage.name):
                _bring_up_to_date(stage, context, extend=extend)
    return run_dir


def _bring_up_to_date(stage: Stage, context: StageContext, *, extend: bool) -> None:
    directory = context.directory(stage.name)
    edits = read_edits(context.run_dir)
    wanted = stage_identity(context.config, stage.name, edits)
    inputs = input_digests(stage, context)
    manifest = read_manifest(directory)
    begun = read_begun(directory)
    old = manifest or begun
    if old is not None and stage.name != "report":
        changed = changed_fields(old, wanted, inputs)
        followed = {f"inputs.{need}" for need in inputs if _is_followed(need, old, inputs, edits)}
        changed = [field for field in changed if field not in followed]
        horizon = {f"{stage.name}.{form}" for form in HORIZONS}
        may_extend = extend and stage.name in TRAINED_STAGES and set(changed) <= horizon
        if changed and not may_extend:
            raise ConfigError(_stale_message(stage.name, changed, old, wanted))
        if changed and manifest is not None:
            disk.rename(directory / MANIFEST, directory / "stage-before-extension.json")
        elif manifest is not None:
            context.show(Progress(stage.name, "skipped", text="finished before"))
            return
    if directory.exists() and stage.name not in TRAINED_STAGES:
        directories.discard(directory)
    run_stage(stage, context, directory, wanted, inputs)


def run_stage(
    stage: Stage,
    context: StageContext,
    directory: Path,
    wanted: dict[str, Any],
    inputs: dict[str, str],
) -> None:
    """Does a stage's work, which leaves its files in `directory`, and writes its manifest there."""
    run_dir = context.run_dir
    write_atomic(run_dir / "config.toml", dump_run(context.config).encode())
    clock, cpu = time.monotonic(), cpu_seconds()
    draft = Manifest(
        stage=stage.name,
        identity=wanted,
        identity_digest=identity_digest(wanted),
        inputs=inputs,
        seed=context.config.seed,
        versions=versions(),
        machine={},
        started=utc_now(),
        finished="",
        seconds=0.0,
        cpu_seconds=0.0,
        peak_memory_bytes=0,
    )
    if stage.name in TRAINED_STAGES:
        directory.mkdir(parents=True, exist_ok=True)
        write_atomic(directory / BEGUN, to_json(draft).encode())
    append_event(run_dir, "started", stage.name, f"{stage.name} begins or resumes")
    context.show(Progress(stage.name, "started"))
    try:
        results = stage.run(context)
    except (StoppedEarly, KeyboardInterrupt) as stop:
        append_event(run_dir, "interrupted", stage.name, str(stop))
        raise
    except PenjingError as error:
        append_event(run_dir, "failed", stage.name, str(error))
        raise
    seconds, cpu = time.monotonic() - clock, cpu_seconds() - cpu
    machine = run_dir / "machine.json"  # its record is runtime's, which loads torch
    manifest = replace(
        draft,
        machine=json.loads(machine.read_bytes()) if machine.exists() else {},
        finished=utc_now(),
        seconds=seconds,
        cpu_seconds=cpu,
        peak_memory_bytes=peak_memory_bytes(),
        results=results,
    )
    write_manifest(directory, manifest)
    append_event(run_dir, "finished", stage.name, f"{stage.name} finished", seconds=seconds)
    context.show(
        Progress(stage.name, "finished", values=(("seconds", seconds), ("cpu_seconds", cpu)))
    )


def read_edits(run_dir: Path) -> list[EditRecord]:
    """What `penjing edit` did to the run."""
    return list(read_records(run_dir / EDITS, EditRecord))


def _is_followed(
    need: str, old: Manifest, inputs: Mapping[str, str], edits: Sequence[EditRecord]
) -> bool:
    """Whether what a stage read only became another by edits, which leave old sources alone."""
    before = old.inputs.get(need)
    for edit in edits:
        pair = edit.digests.get(need)
        if pair and pair[0] == before:
            before = pair[1]
    return before == inputs[need]


def stage_identity(
    config: RunConfig, stage: str, edits: Sequence[EditRecord] = ()
) -> dict[str, Any]:
    """The fields of the run file that determine what this stage makes, by their TOML names.

    A tokenizer knows nothing of sources that were added to its run later.
    """
    added = {name for edit in edits for name in edit.added}
    sections: dict[str, Any] = {stage: getattr(config, stage)}
    if stage == "pretrain":
        sections["model"] = config.model
    if stage in ("clean", "tokenizer", "shards", "dpo"):
        sections |= {
            f"sources.{source.name}": source
            for source in config.sources
            if stage != "tokenizer" or source.name not in added
        }
    found: dict[str, Any] = {"seed": config.seed}
    for name, section in sections.items():
        found |= {f"{name}.{key}": value for key, value in identity(section).items()}
    return found


def input_digests(stage: Stage, context: StageContext) -> dict[str, str]:
    """A digest of each needed stage that is part of this run.

    Raises:
        ArtifactError: one of them is not finished.
    """
    found = {}
    for need in stage.needs:
        if getattr(context.config, need) is None:
            continue
        manifest = read_manifest(context.directory(need))
        if manifest is None:
            raise ArtifactError(
                f"{context.run_dir}: {stage.name} needs the stage {need}, which is not finished; "
                "run `penjing train` with the run file"
            )
        found[need] = manifest_digest(manifest)
    return found


def manifest_digest(manifest: Manifest) -> str:
    """By what later stages know what this one made."""
    return identity_digest({"identity": manifest.identity, "inputs": manifest.inputs})


def read_begun(directory: Path) -> Manifest | None:
    """What an unfinished training stage was begun with."""
    path = directory / BEGUN
    return read_record(path, Manifest) if path.exists() else None


def _stale_message(stage: str, changed: list[str], old: Manifest, wanted: Mapping[str, Any]) -> str:
    lines = [f"the stage {stage} was made with another configuration:"]
    for field in changed:
        if field.startswith("inputs."):
            lines.append(f"  {field.removeprefix('inputs.')} was made anew since")
        else:
            before, now = old.identity.get(field, "absent"), wanted.get(field, "absent")
            lines.append(f"  {field}: was {before}, is now {now}")
    lines.append(
        f"nothing was changed; `--redo {stage}` does it and all later stages again (the old ones "
        "are kept aside)"
    )
    if any(field == f"{stage}.{form}" for field in changed for form in HORIZONS):
        lines.append("`--extend` goes on from its last checkpoint to the new length")
    if any(field.endswith(".mixture") or field.startswith("sources.") for field in changed):
        lines.append("`penjing edit` adds sources, and changes the mixture of a stage in training")
    return "\n".join(lines)


def set_aside(run_dir: Path, stages: Sequence[str]) -> None:
    """Renames the directories of these stages to `NAME.old-K`."""
    for name in stages:
        directory, count = run_dir / name, 1
        if directory.exists():
            while (aside := run_dir / f"{name}.old-{count}").exists():
                count += 1
            disk.rename(directory, aside)
            append_event(run_dir, "set_aside", name, f"kept as {aside.name}")
