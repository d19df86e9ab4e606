"""A stage's manifest, a run's lock and its events.

Deciding what to do about a stale stage is `stages.upkeep`'s duty.
"""

import fcntl
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from penjing.artifacts.lines import LineLog, read_record, write_atomic
from penjing.artifacts.records import Event, Manifest, to_json
from penjing.errors import ArtifactError

MANIFEST = "stage.json"
EVENTS = "events.jsonl"
PINS = "pins"


def finished(stage_dir: Path) -> bool:
    """Whether the stage wrote its manifest, which it does last."""
    return (stage_dir / MANIFEST).exists()


def read_manifest(stage_dir: Path) -> Manifest | None:
    """The manifest of a finished stage, None of an unfinished one.

    Raises:
        ArtifactError: `stage.json` is damaged.
    """
    path = stage_dir / MANIFEST
    if not path.exists():
        return None
    manifest = read_record(path, Manifest)
    if identity_digest(manifest.identity) != manifest.identity_digest:
        raise ArtifactError(
            f"{path} was altered: its identity does not have the digest that it states"
        )
    return manifest


def write_manifest(stage_dir: Path, manifest: Manifest) -> None:
    """Declare the stage finished."""
    write_atomic(stage_dir / MANIFEST, f"{to_json(manifest)}\n".encode())


def identity_digest(identity: Mapping[str, Any]) -> str:
    """The sha256 of the fields as canonical JSON."""
    text = json.dumps(dict(identity), sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def changed_fields(
    old: Manifest, identity: Mapping[str, Any], inputs: Mapping[str, str]
) -> list[str]:
    """Names of identity fields that differ, then `inputs.NAME` of inputs that do."""
    # Through JSON, so that a tuple equals the list that was read back.
    new = json.loads(json.dumps(dict(identity)))
    return [
        *_differing(old.identity, new),
        *(f"inputs.{k}" for k in _differing(old.inputs, inputs)),
    ]


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    # Absent is None: a setting that came later leaves what was made without it as it is.
    return [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]


def utc_now() -> str:
    """The time as ISO 8601, in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def append_event(run_dir: Path, kind: str, stage: str, message: str, **values: Any) -> None:
    """Add a line to the run's `events.jsonl`."""
    log = LineLog(run_dir / EVENTS)
    try:
        log.append(Event(utc_now(), kind, stage, message, values))
    finally:
        log.close()


def pins(stage_dir: Path) -> set[str]:
    """Names of checkpoints that are never deleted: the lines of `STAGE/pins`."""
    path = stage_dir / PINS
    return set(path.read_text().split()) if path.exists() else set()


def write_pins(stage_dir: Path, names: Collection[str]) -> None:
    write_atomic(stage_dir / PINS, "".join(f"{name}\n" for name in sorted(names)).encode())


@contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Hold the run for one writer; the operating system lets go when the process ends.

    Raises:
        ArtifactError: another process is writing this run; its id is named.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / ".lock").open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            handle.seek(0)
            raise ArtifactError(
                f"{run_dir} is being written by process {handle.read().strip() or 'unknown'}: "
                "wait for it, or stop it first"
            ) from error
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        yield


def versions() -> dict[str, str]:
    """Versions of everything that can change a result; nothing heavy is imported."""
    found = {"python": platform.python_version()}
    for package in ("penjing", "torch", "numpy", "safetensors", "regex", "pyarrow"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    root = Path(__file__).resolve().parents[3]
    if (root / ".git").exists():
        found["git_commit"] = _git_commit(root)
    lock = root / "requirements.lock"
    if lock.exists():
        found["lock_sha256"] = hashlib.sha256(lock.read_bytes()).hexdigest()
    return found


def _git_commit(root: Path) -> str:
    """The checkout's commit, with "+" when tracked files differ from it."""
    try:
        answer = subprocess.run(  # noqa: S603 - fixed words and our own path
            ["git", "-C", root, "describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*"],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip()
