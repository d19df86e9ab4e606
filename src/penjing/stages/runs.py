"""The verb `runs`: what runs there are; deleting them so that it can be undone; pinned checkpoints.

Which checkpoints a stage keeps by itself is `train.checkpoint`'s duty.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from penjing.artifacts import disk
from penjing.artifacts.stage import append_event, pins, read_manifest, run_lock, write_pins
from penjing.config.schema import STAGE_NAMES
from penjing.errors import ArtifactError, ConfigError

TRASH = ".trash"


def list_runs(runs: Path) -> Iterator[str]:
    """A line a run: its size, its finished stages, and when it was last written."""
    found = sorted(path.parent for path in runs.glob("*/config.toml"))
    if not found:
        yield f"{runs}: no runs here"
    for run in found:
        stages = [name for name in STAGE_NAMES if read_manifest(run / name) is not None]
        size = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
        written = max(path.stat().st_mtime for path in (run, *run.iterdir()))
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(written))
        yield f"{run.name}: {size / 1e9:.2f} GB, {day}, finished: {', '.join(stages) or 'nothing'}"
    for run in sorted((runs / TRASH).glob("*")):
        yield f"in the trash: {run.name} (`penjing runs --restore {run.name}`)"


def act(runs: Path, what: str, name: str) -> str:
    """Do one of delete, restore, pin and unpin; what was done, in words.

    Raises:
        ConfigError: there is no such run or checkpoint.
        ArtifactError: the run is being written, or another stands where it is to go.
    """
    if what == "delete":
        run = _existing(runs, name)
        with run_lock(run):
            return _moved(run, runs / TRASH / name, f"restore it with --restore {name}")
    if what == "restore":
        return _moved(_existing(runs / TRASH, name), runs / name, "it is as it was")
    checkpoint = _existing(runs, name)
    stage = checkpoint.parent
    if not checkpoint.name.startswith("step-"):
        raise ConfigError(f"{name}: found no checkpoint: wanted NAME/STAGE/step-NNNNNN")
    others = pins(stage) - {checkpoint.name}
    write_pins(stage, others | {checkpoint.name} if what == "pin" else others)
    append_event(stage.parent, what, stage.name, f"{what} {checkpoint.name}")
    return f"{checkpoint}: {'kept for good' if what == 'pin' else 'treated as the others'}"


def _existing(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or path == folder.resolve() or not path.is_dir():
        known = ", ".join(sorted(one.name for one in folder.glob("*") if one.is_dir()))
        raise ConfigError(f"{folder / name}: found no such directory; there are: {known or 'none'}")
    return path


def _moved(source: Path, target: Path, then: str) -> str:
    if target.exists():
        raise ArtifactError(f"{target} is there already: move it away first")
    target.parent.mkdir(parents=True, exist_ok=True)
    disk.rename(source, target)
    return f"{source} is now {target}: {then}"
