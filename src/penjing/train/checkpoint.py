"""Checkpoints: a loadable Hugging Face folder with the training state beside the weights.

Writing is atomic and verified by `artifacts.directories`; when to save is `train.fit`'s. No random
state is kept: every draw derives from seed, stage and step.
"""

import errno
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from penjing.artifacts import disk
from penjing.artifacts.directories import discard, require_free_bytes, staged, verified
from penjing.artifacts.records import StepRecord
from penjing.artifacts.stage import pins
from penjing.errors import ArtifactError, DiskFullError
from penjing.model.language_model import LanguageModel
from penjing.model.weights import load_weights, save_weights
from penjing.train.guard import GuardState
from penjing.train.optimizer import Optimizer

STATE, OPTIMIZER = "state.json", "optimizer.safetensors"


@dataclass(frozen=True)
class TokenizerBundle:
    """The tokenizer as a checkpoint carries it: its files, its digest, and its special ids."""

    files: Mapping[str, bytes]
    digest: str
    end_of_text: int
    im_end: int


@dataclass(frozen=True)
class TrainingState:
    """`state.json`: where training stands after `step` steps. `position` counts rows, globally."""

    stage: str
    seed: int
    tokenizer_digest: str
    optimizer: str
    step: int = 0
    position: int = 0
    tokens: int = 0
    targets: int = 0
    skipped_steps: int = 0
    loss: float | None = None
    guard: GuardState = field(default_factory=GuardState)
    loss_scale: float = 2.0**16
    """Of float16, with `good_steps` since it changed."""
    good_steps: int = 0
    open_record: StepRecord | None = None
    """Of `step`, if a stop interrupted its probes."""


def checkpoint_path(stage_dir: Path, step: int) -> Path:
    """`STAGE/step-000100`."""
    return stage_dir / f"step-{step:06d}"


def checkpoints(stage_dir: Path) -> list[Path]:
    """Oldest first; damaged ones that were put aside are left out."""
    found = [path for path in stage_dir.glob("step-*") if path.name[5:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def final_checkpoint(stage_dir: Path) -> Path:
    """The last checkpoint of a finished stage, verified; never an earlier one in its place.

    Raises:
        ArtifactError: there is none, or it was altered.
    """
    found = checkpoints(stage_dir)
    if not found:
        raise ArtifactError(
            f"{stage_dir} has no checkpoint: train the stage {stage_dir.name} first"
        )
    return verified(found[-1])


def save_checkpoint(
    stage_dir: Path,
    state: TrainingState,
    model: LanguageModel,
    optimizer: Optimizer,
    tokenizer: TokenizerBundle,
    *,
    keep: int,
    keep_every_steps: int | None = None,
) -> Path:
    """Publish `STAGE/step-NNNNNN`, then delete all but the newest `keep`, those of every
    `keep_every_steps`-th step, and those that are pinned.

    Raises:
        DiskFullError: there is no room; earlier checkpoints are untouched.
        ArtifactError: it cannot be written; the same.
    """
    tensors = optimizer.state_tensors()
    weight_bytes = sum(value.nbytes for value in model.parameters())
    require_free_bytes(stage_dir, weight_bytes + sum(value.nbytes for value in tensors.values()))
    final = checkpoint_path(stage_dir, state.step)
    try:
        with staged(final) as directory:
            save_weights(
                model,
                directory,
                bos_token_id=tokenizer.end_of_text,
                eos_token_ids=(tokenizer.im_end, tokenizer.end_of_text),
                pad_token_id=tokenizer.end_of_text,
            )
            for name, content in tokenizer.files.items():
                (directory / name).write_bytes(content)
            save_file(tensors, directory / OPTIMIZER)
            (directory / STATE).write_text(json.dumps(asdict(state), indent=1) + "\n")
    except OSError as error:
        kind = DiskFullError if error.errno == errno.ENOSPC else ArtifactError
        raise kind(
            f"{final} could not be written ({error}); make room: training resumes "
            "from the checkpoint before it"
        ) from error
    for old in checkpoints(stage_dir)[:-keep]:
        every = keep_every_steps and int(old.name[5:]) % keep_every_steps == 0
        if not every and old.name not in pins(stage_dir):
            discard(old)
    return final


def set_aside_spoiled(stage_dir: Path, first_step: int) -> None:
    """Rename checkpoints at or after a step that may have spoiled the weights to `spoiled-NAME`, if
    there is one before it.
    """
    found = checkpoints(stage_dir)
    good = [path for path in found if int(path.name[5:]) < first_step]
    for path in found[len(good) :] if good else ():
        aside = path.with_name(f"spoiled-{path.name}")
        disk.remove(aside)
        disk.rename(path, aside)


def read_state(directory: Path) -> TrainingState:
    """The training state of a verified checkpoint."""
    values: dict[str, Any] = json.loads((directory / STATE).read_text())
    guard: dict[str, Any] = values.pop("guard")
    guard |= {name: tuple(guard.get(name, ())) for name in ("losses", "skip_steps")}
    record = values.pop("open_record", None)
    return TrainingState(
        **values,
        guard=GuardState(**guard),
        open_record=StepRecord(**record) if record else None,
    )


def load_checkpoint(
    directory: Path, model: LanguageModel, optimizer: Optimizer, wanted: TrainingState
) -> TrainingState:
    """Put a verified checkpoint's weights and optimizer state in place.

    Args:
        directory: what `artifacts.directories` verified.
        model: filled in place.
        optimizer: filled in place.
        wanted: the state of a beginning; stage, seed, tokenizer and optimizer must be the same.

    Raises:
        ArtifactError: the checkpoint is of another run, tokenizer, optimizer or model shape.
    """
    state = read_state(directory)
    for name in ("stage", "seed", "tokenizer_digest", "optimizer"):
        found, expected = getattr(state, name), getattr(wanted, name)
        if found != expected:
            raise ArtifactError(
                f"{directory / STATE}: {name} is {found!r}, this run has {expected!r}; continue "
                f"with the run file that began it, or `--redo {wanted.stage}`"
            )
    loaded = load_weights(directory, model.dtype)
    if loaded.shape != model.shape:
        raise ArtifactError(f"{directory} holds {loaded.shape}, this run has {model.shape}")
    with torch.no_grad():
        stored = dict(loaded.named_parameters())
        for name, parameter in model.named_parameters():
            parameter.copy_(stored[name])
    optimizer.load_state_tensors(load_file(directory / OPTIMIZER))
    return state
